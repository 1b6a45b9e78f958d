"""The examples of docs/dialogues.md: read here, and played on the real weights."""

import re
import shutil
from pathlib import Path

import pytest
from dialogue_play import play_all, problems
from http_server import served

from omni.dialogues import format as the_format
from omni.dialogues.reading import read
from support import DATA

TEXT = (DATA.parent.parent / "docs" / "dialogues.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
ADDRESS = "http://127.0.0.1:7860"


def example(folder: Path, text: str, name: str = "a") -> Path:
    shutil.copy(DATA / "photos" / "cat.jpg", folder)
    path = folder / f"{name}.dialogue.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_a_dialogue(tmp_path, text):
    assert read(example(tmp_path, text)).dialogue.turns


@pytest.mark.parametrize(
    "kind", ["Turn", "Expectation", "Session", "Dialogue", "Conditions", "Percentiles", "Words"]
)
def test_every_field_is_described(kind):
    for name in getattr(the_format, kind).model_fields:
        assert re.search(rf"\b{name}\b", TEXT), f"{kind}.{name}"


def test_the_python_snippet_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example(tmp_path, "name: Capital\nturns: [{type: Hi}]", "capital")
    (snippet,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    with served() as running:
        exec(snippet.replace(ADDRESS, running.url), {"__name__": "snippet"})
    assert capsys.readouterr().out == "Capital passed You said Hi.\n"
    assert (tmp_path / "report" / "run.json").is_file()


@pytest.mark.e2e
async def test_the_examples_pass_on_the_default_model(tmp_path, server):
    paths = [example(tmp_path, text, str(number)) for number, text in enumerate(EXAMPLES)]
    run = await play_all(server, tmp_path, *paths)
    assert run.passed, [problems(dialogue) for dialogue in run.dialogues]
    assert [d.name for d in run.dialogues if d.known] == ["A cat is called a cat"]
