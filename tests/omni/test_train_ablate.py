"""The ablation of the balance strategies on made-up modalities."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni.cli import app

STEPS = 6


@pytest.fixture(scope="module")
def ablated(tmp_path_factory):
    out = tmp_path_factory.mktemp("ablation")
    command = ["train", "tiny", "--ablate", "balance", "--stage", "instruct", "--seeds", "2"]
    sizes = [f"stages.instruct.{name}={STEPS}" for name in ("steps", "save_every")]
    options = [a for s in (*sizes, "stages.instruct.evaluate_every=2") for a in ("--set", s)]
    files = ["--out", str(out), "--report", str(out / "docs" / "balance.md")]
    ran = CliRunner().invoke(
        app, [*command, *options, *files, "--device", "cpu", "--json"], catch_exceptions=False
    )
    assert ran.exit_code == 0, ran.output
    return out, json.loads(ran.stdout.splitlines()[-1])


def test_three_ways_begin_alike_and_end_differently(ablated):
    _, result = ablated
    losses = result["losses"]
    assert list(losses) == ["plain mixing", "step balance", "step + adaptive"]
    for modality in ("text", "audio", "image"):
        curves = [losses[kind][modality] for kind in losses]
        assert all(len(seeds) == 2 for seeds in curves)
        assert all([step for step, _ in seed] == [0, 2, 4, 6] for c in curves for seed in c)
        assert len({c[0][0][1] for c in curves}) == 1
        assert len({c[0][-1][1] for c in curves}) == 3


def test_the_report_is_a_table_and_a_plot_per_modality(ablated):
    out, result = ablated
    text = (out / "docs" / "balance.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[1:]] == list(result["losses"])
    assert "±" in rows[1]
    assert "balance.svg" in text
    drawn = ET.parse(Path(out / "docs" / "balance.svg")).getroot()
    lines = drawn.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 3 * 3 * 2


def test_options_that_do_not_belong_together_are_refused():
    ran = CliRunner().invoke(app, ["train", "tiny", "--report", "x.md"])
    assert ran.exit_code == 1
    assert "belong to --ablate" in str(ran.exception)
