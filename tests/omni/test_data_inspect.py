import json
from collections.abc import Iterator
from pathlib import Path

import data_tiny
import numpy as np
import pytest
from typer.testing import CliRunner

from omni.cli import app
from omni.data.inspect import contact_sheet, render, summarise
from omni.data.sample import Medium, Message, Sample
from omni.data.shards import write_shards
from omni.errors import InputError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    sound = Medium.audio(np.zeros(8000, np.float32), 16_000)
    picture = Medium.image(np.zeros((4, 4, 3), np.uint8))
    samples = [
        Sample(
            f"s{n}",
            "audio",
            (Message("user", (0, "What <is> this?", 1)), Message("assistant", ("A test.",))),
            (sound, picture),
            {"source": "set:file", "licence": "MIT", "voice": "ann", "seconds": 0.5 + n},
            rejected="A <b>bird</b>.",
        )
        for n in range(5)
    ]
    write_shards(samples, tmp_path / "data" / "train", size=2, recipe={"seed": 7})
    return tmp_path / "data"


def test_figures_are_those_of_the_samples(data: Path) -> None:
    found = summarise(data / "train")
    assert (found["samples"], found["shards"], found["rejected"]) == (5, 3, 5)
    assert found["hours"] == pytest.approx(12.5 / 3600, abs=1e-3)
    assert found["seconds"] == {"least": 0.5, "median": 2.5, "most": 4.5}
    assert found["source"] == {"set": 5}
    assert found["recipe"] == {"seed": 7}
    text = render(data / "train", found)
    assert "5 samples, 3 shards" in text
    assert "licence: MIT 5" in text


def test_the_page_shows_and_plays_without_other_files(data: Path) -> None:
    page = contact_sheet([data / "train"], 3)
    assert page.count("<article>") == 3
    assert page.count('<audio controls preload="none" src="data:audio/flac;base64,') == 3
    assert page.count('<img src="data:image/webp;base64,') == 3
    assert "What &lt;is&gt; this?" in page
    assert "<b>bird" not in page
    assert "http" not in page


def test_the_command_reports_all_folders(data: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.html"
    done = CliRunner().invoke(
        app, ["data", "inspect", str(data), "--sheet", str(sheet), "--verify", "--json"]
    )
    assert done.exit_code == 0
    found = json.loads(done.stdout.splitlines()[-1])["data"]
    assert found[str(data / "train")]["samples"] == 5
    assert sheet.read_text().startswith("<!doctype html>")


def test_the_command_names_a_damaged_shard(data: Path) -> None:
    path = data / "train" / "00001.parquet"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    done = CliRunner().invoke(app, ["data", "inspect", str(data), "--verify"])
    assert isinstance(done.exception, InputError)
    assert "00001.parquet is damaged" in str(done.exception)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("OMNI_HOME", str(tmp_path))
    data_tiny.make(tmp_path)
    yield tmp_path
    for cache in data_tiny.CACHES:
        cache.cache_clear()


def test_data_is_made_listed_and_inspected_by_command(home: Path) -> None:
    run = CliRunner().invoke
    listed = run(app, ["data", "list", "--json"])
    here = {s["name"] for s in json.loads(listed.stdout.splitlines()[-1])["sets"] if s["path"]}
    assert {"wordnet", "fluent"} <= here
    made = run(app, ["data", "make", "text", "--count", "100", "--workers", "1", "--json"])
    assert made.exit_code == 0, made.output
    folder = Path(json.loads(made.stdout.splitlines()[-1])["made"]["text"]["path"])
    assert folder == home / "data" / "text" / "train"
    assert "1024 samples" in run(app, ["data", "inspect", str(folder)]).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["make", "music"], "no data 'music' to make"),
        (["make", "text", "--part", "train_voices"], "no part 'train_voices'"),
        (["make", "text", "pictures", "--to", "x"], "one by one"),
        (["pull", "nothing"], "no set is called 'nothing'"),
        (["inspect", "nowhere"], "there is no data in nowhere"),
    ],
)
def test_wrong_words_are_answered(home: Path, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["data", *arguments])
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)
