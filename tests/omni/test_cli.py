"""The ``omni`` command, as users run it."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from encoders.media import read_audio
from omni.cli import app
from support import DATA

ROOT = Path(__file__).parents[2]


def omni(*arguments: str, seconds: float = 120) -> subprocess.CompletedProcess:
    ran = subprocess.run(
        [sys.executable, "-m", "omni.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=seconds,
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran


def refused(*arguments: str) -> str:
    """The one line with which a command fails."""
    ran = omni(*arguments)
    assert ran.returncode == 1, (ran.stdout, ran.stderr)
    lines = ran.stderr.strip().splitlines()
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("omni: ")
    return lines[0]


def last_json(ran: subprocess.CompletedProcess) -> dict:
    return json.loads(ran.stdout.strip().splitlines()[-1])


def commands(command: click.Command, path: tuple[str, ...] = ()):
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(p) for p, _ in COMMANDS])
def test_every_command_and_each_of_its_options_explains_itself(path, command):
    assert command.help or command.get_short_help_str()
    for parameter in command.params:
        assert parameter.help, f"omni {' '.join(path)}: {parameter.opts} has no help"


def test_help_lists_the_commands_and_an_unknown_option_is_told():
    ran = omni("--help")
    assert ran.returncode == 0
    for name in ("demo", "serve", "ask", "doctor", "models", "bench"):
        assert name in ran.stdout
    ran = omni("serve", "--bogus")
    assert ran.returncode == 2
    assert "--bogus" in ran.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("serve", "--port", "99999"),
        ("serve", "--max-sessions", "0"),
        ("ask", "hi", "--threads", "0"),
        ("ask", "hi", "--context", "10"),
        ("ask", "hi", "--temperature", "-1"),
        ("ask", "hi", "--quantization", "int2"),
    ],
    ids=lambda options: options[-2],
)
def test_a_value_out_of_range_is_told_before_anything_is_loaded(options):
    ran = omni(*options)
    assert ran.returncode == 2
    assert options[-2] in ran.stderr


def test_what_cannot_be_asked_is_told_before_anything_is_loaded(tmp_path):
    assert "nope.jpg" in refused("ask", "What is this?", "--image", str(tmp_path / "nope.jpg"))
    assert "nowhere" in refused("ask", "Hi.", "--speak", str(tmp_path / "nowhere" / "out.wav"))
    assert "--speak" in refused("ask", "Hi.", "--speak", str(tmp_path))
    assert "give a question" in refused("ask")
    assert "'nonsense'" in refused("ask", "Hi.", "--model", "nonsense")


def test_a_port_in_use_is_told_before_anything_is_loaded():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused("serve", "--port", str(port))
    assert f"127.0.0.1:{port}" in message
    assert "--port" in message


def test_the_doctor_ends_with_its_report_as_json():
    ran = omni("doctor", "--json")
    report = last_json(ran)
    assert report["ok"] == (ran.returncode == 0)
    assert {"Python", "Memory", "Disk", "Weights"} <= {check["name"] for check in report["checks"]}
    assert all(check["finding"] for check in report["checks"])


def test_files_that_are_not_what_they_should_be_are_told_before_anything_is_loaded(tmp_path):
    empty, text = tmp_path / "empty.flac", tmp_path / "text.jpg"
    empty.write_bytes(b"")
    text.write_text("I am no picture.")
    assert "empty" in refused("ask", "--audio", str(empty))
    assert "'text.jpg' is damaged or not a picture" in refused("ask", "Hi.", "--image", str(text))


@pytest.mark.e2e
def test_a_picture_is_asked_about():
    cat = DATA / "photos" / "cat.jpg"
    report = last_json(omni("ask", "What is this?", "--image", str(cat), "--json"))
    assert "cat" in report["answer"].lower()
    assert "cat" in report["seen"][0].lower()
    assert report["speech"] is None
    assert 0 < report["timings"]["first_token"] <= report["timings"]["done"]


@pytest.mark.e2e
def test_a_recorded_question_is_answered_into_a_file(tmp_path):
    clip, out = DATA / "speech" / "france_michael.flac", tmp_path / "out.wav"
    report = last_json(omni("ask", "--audio", str(clip), "--speak", str(out), "--json"))
    assert "capital of france" in report["transcript"].lower()
    assert "Paris" in report["answer"]
    assert report["speech"] == str(out)
    assert read_audio(out).seconds > 0.4
