"""``omni eval`` on the default weights: the pipeline works, and the figures are not nonsense."""

import json

import pytest
from typer.testing import CliRunner

from omni.cli import app
from omni.data.pictures import draw
from omni.data.sample import Medium, Message, Sample
from omni.data.shards import write_shards

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Held-out sets of one sample, so that nothing has to be pulled or made."""
    from random import Random

    import numpy as np

    home = tmp_path_factory.mktemp("data")
    circle = draw("circle", (214, 32, 32), Random(0)).resize((160, 160))
    pixels = np.full((224, 224, 3), 250, np.uint8)
    pixels[32:192, 32:192] = np.asarray(circle.convert("RGB"))
    meta = {"source": "test", "licence": "Apache-2.0"}
    asked = "Is there a red shape?"
    sums = "What is 2 plus 2?"
    choice = "What is the capital of France?\nA. Oslo\nB. Paris\nC. Rome\nD. Lima\n"
    write_shards(
        [
            Sample(
                "easy-vqa-0",
                "image",
                (Message("user", (0, asked)), Message("assistant", ("yes",))),
                (Medium.image(pixels),),
                {**meta, "about": ["easy-vqa"]},
            )
        ],
        home / "easy-vqa" / "held_out",
    )
    texts = [(sums, "4.", "arithmetic"), (f"{choice}Answer with the letter.", "B", "choice of x")]
    write_shards(
        [
            Sample(
                f"text-{i}",
                "text",
                (Message("user", (asked,)), Message("assistant", (answer,))),
                (),
                {**meta, "about": [about]},
            )
            for i, (asked, answer, about) in enumerate(texts)
        ],
        home / "text" / "held_out",
    )
    return home


def test_the_default_assistant_is_measured(data):
    options = ["--quick", "--limit", "2", "--json", "--bridge", "text", "--data", str(data)]
    result = CliRunner().invoke(app, ["eval", "easy-vqa", "text", *options])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    found = {row["measure"]: row for row in told["rows"]}
    assert found["sums and comparisons"]["figure"]["value"] == 1
    assert found["multiple choice (4 answers)"]["figure"]["value"] == 1
    assert found["easy-VQA answered"]["figure"]["samples"] == 1
    assert not told["problems"]
