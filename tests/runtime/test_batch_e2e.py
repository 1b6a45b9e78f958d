"""Batches on the real weights: 200 mixed files, killed and restarted; the examples of the docs."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import av
import jsonschema
import numpy as np
import pytest
from PIL import Image

from encoders.media import AudioWriter, read_audio, wav_bytes
from omni.batch import Options, read_records
from omni.batch.schema import SCHEMA
from omni.data.pictures import draw
from runtime.batch import Batch

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
CLIPS = sorted((ROOT / "omni/bench/clips").glob("*.flac"))
PHOTOS = sorted((ROOT / "tests/data/photos").glob("*.jpg"))
OMNI = [sys.executable, "-m", "omni.cli"]


def write_sound(path: Path, clip: Path) -> None:
    writer = AudioWriter(path.suffix[1:], 16_000)
    path.write_bytes(writer.write(read_audio(clip).pcm) + writer.close())


def write_clip(path: Path, level: int) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=4)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, "u1"), "rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder with 190 good files of all kinds and ten broken ones."""
    folder = tmp_path_factory.mktemp("mixed")
    formats = ("wav", "flac", "mp3", "opus", "aac")
    for i in range(60):
        write_sound(folder / f"sound-{i:02}.{formats[i % 5]}", CLIPS[i % len(CLIPS)])
    photos = [Image.open(path) for path in PHOTOS]
    for i in range(70):
        size = 160 + 4 * i
        photo = photos[i % len(photos)].resize((size, size))
        photo.convert("RGB").save(folder / f"picture-{i:02}.{('jpg', 'png', 'webp')[i % 3]}")
    for i in range(10):
        write_clip(folder / f"clip-{i}.{('mp4', 'mkv')[i % 2]}", 20 * i)
    for i in range(50):
        (folder / f"text-{i:02}.txt").write_text(f"The number of this text is {i}.")
    sound = wav_bytes(read_audio(CLIPS[0]))  # which states its length
    broken = {
        "empty.wav": b"",
        "empty.jpg": b"",
        "cut.wav": sound[: len(sound) // 2],
        "cut.flac": (folder / "sound-01.flac").read_bytes()[:9000],
        "noise.mp3": np.random.default_rng(0).bytes(5000),
        "words.mp3": b"These are words, not sound.",
        "locked.mp4": b"Salted__" + np.random.default_rng(1).bytes(3000),
        "archive.wav": b"PK\x03\x04" + bytes(100),
        "cut.png": (folder / "picture-01.png").read_bytes()[:2000],
        "bytes.txt": bytes(range(256)),
    }
    for name, data in broken.items():
        (folder / name).write_bytes(data)
    assert len(list(folder.iterdir())) == 200
    return folder, set(broken)


def test_two_hundred_files_ten_of_them_broken_killed_twice(mixed, tmp_path):
    folder, broken = mixed
    out = tmp_path / "answers.jsonl"
    command = [*OMNI, "batch", str(folder), "--ask", "Name it.", "--out", str(out), "--json"]
    command += ["--instructions", "Answer in three words.", "--max-tokens", "6"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def lines() -> int:
        return len(out.read_bytes().splitlines()) if out.exists() else 0

    for stop_at in (40, 110):
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            deadline = time.monotonic() + 600
            while lines() < stop_at and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert process.poll() is None, process.stderr.read().decode()
            process.send_signal(signal.SIGKILL)
    kept = [json.loads(line) for line in out.read_bytes().splitlines()[:-1]]
    whole = {result["id"] for result in kept if not result["error"]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert summary["left"] == 0
    assert summary["done"] + summary["skipped"] == 190
    assert summary["failed"] == 10
    assert summary["skipped"] >= len(whole) > 80

    results = [json.loads(line) for line in out.read_text().splitlines()]
    for result in results:
        jsonschema.validate(result, SCHEMA)
    assert len({result["id"] for result in results}) == len(results) == 200
    failed = {Path(result["id"]).name for result in results if result["error"]}
    assert failed == broken
    by_name = {Path(result["id"]).name: result for result in results}
    assert "capital of france" in by_name["sound-00.wav"]["media"][0]["transcript"]["text"].lower()
    assert "cat" in by_name["picture-00.jpg"]["media"][0]["seen"][0]["text"]
    assert by_name["clip-9.mkv"]["media"][0]["seen"][0]["end"] > 1
    for name, result in by_name.items():
        if name not in broken:
            assert result["answers"][0]["answer"], name


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """What the examples of the docs work on."""
    text = (ROOT / "docs/batch.md").read_text()
    (tmp_path / "calls").mkdir()
    write_sound(tmp_path / "calls/question.wav", CLIPS[0])
    write_sound(tmp_path / "calls/other.mp3", CLIPS[5])
    Image.open(PHOTOS[0]).save(tmp_path / "calls/cat.jpg")
    [manifest] = re.findall(r"```json\n(.*?)```", text, re.S)
    (tmp_path / "manifest.jsonl").write_text(manifest)
    monkeypatch.chdir(tmp_path)
    return text


def test_the_examples_of_the_docs_do_what_they_say(samples, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = re.findall(r"```sh\n(omni batch .*?)\n```", samples, re.S)
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command)
        assert words.pop(0) == "omni"
        done = subprocess.run([*OMNI, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert {"calls/question.wav", "call-17", "manifest.jsonl:2"} <= {a["id"] for a in answers}
    call = next(a for a in answers if a["id"] == "call-17")
    assert [a["ask"] for a in call["answers"]] == ["What is asked?", "What is in the picture?"]
    assert "cat" in call["answers"][1]["answer"].lower()
    assert read_audio(tmp_path / "spoken/call-17.2.wav").seconds > 0.3
    meeting = next(a for a in answers if a["id"] == "manifest.jsonl:2")
    assert "monday" in meeting["answers"][0]["answer"].lower()
    subtitles = (tmp_path / "subtitles/calls/question.wav.srt").read_text()
    assert "capital of France" in subtitles
    assert "capital of France" in (tmp_path / "texts/calls/question.wav.txt").read_text()
    assert (tmp_path / "table.csv").read_text("utf-8-sig").count("calls/") >= 3
    words = json.loads((tmp_path / "transcripts.jsonl").read_text().splitlines()[0])
    assert words["settings"]["words"]

    [program] = re.findall(r"```python\n(.*?)```", samples, re.S)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3
    assert "failed" not in done.stdout


def test_two_processes_share_the_work(tmp_path):
    (tmp_path / "calls").mkdir()
    for i in range(6):
        write_sound(tmp_path / f"calls/{i}.wav", CLIPS[i])
    (tmp_path / "calls/broken.wav").write_bytes(b"")
    out = tmp_path / "heard.jsonl"
    command = [*OMNI, "batch", str(tmp_path / "calls"), "--out", str(out), "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stderr
    results = {Path(r["id"]).stem: r for r in map(json.loads, out.read_text().splitlines())}
    assert len(results) == 7
    assert results.pop("broken")["error"]
    assert all(r["media"][0]["transcript"]["text"] for r in results.values())
    again = subprocess.run(
        [*command, "--srt", str(tmp_path / "srt")],
        env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert "6 were done before" in again.stderr + again.stdout
    assert len(list((tmp_path / "srt").rglob("*.srt"))) == 6


def test_a_language_that_does_not_exist_is_told_once(tmp_path):
    write_sound(tmp_path / "a.wav", CLIPS[0])
    write_sound(tmp_path / "b.wav", CLIPS[1])
    command = [*OMNI, "batch", str(tmp_path), "--language", "klingon", "--out", "out.jsonl"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode != 0
    assert done.stderr.count("klingon") == 1
    assert "Traceback" not in done.stderr


def test_pictures_are_read_as_in_a_conversation_and_drawn(tmp_path):
    circle = draw("circle", (214, 32, 32), Random(0)).resize((100, 100))
    picture = Image.new("RGB", (224, 224), "white")
    picture.paste(circle, (10, 10), circle)
    picture.save(tmp_path / "circle.png")
    asks = ["Is there a red shape?", "Is there a blue shape?"]
    lines = [
        {"id": "seen", "image": "circle.png", "ask": asks},
        {"id": "drawn", "ask": ["Draw a blue star.", "What is the capital of Spain?"]},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Batch(Options(draw=tmp_path / "out")) as batch:
        found = {r["id"]: r for r in batch.run(read_records([str(manifest)]))}
    yes, no = (a["answer"].lower() for a in found["seen"]["answers"])
    assert yes.startswith("yes")
    assert no.startswith("no")
    drawn, capital = found["drawn"]["answers"]
    assert capital["answer"].count("Madrid") == 1
    red, _, blue = np.asarray(Image.open(drawn["picture"]), float)[110:146, 110:146].mean((0, 1))
    assert blue > red + 80
