"""Pipecat's OpenAI Realtime service, as it is, in an environment of its own."""

import json
import os
from pathlib import Path

import pytest
from others import HERE, lacking, pcm24, run

pytestmark = pytest.mark.e2e

PYTHON = os.environ.get("OMNI_PIPECAT_PYTHON")


@pytest.fixture(scope="module")
def report(request, tmp_path_factory):
    """What went through a pipeline that talked with the server."""
    if not PYTHON or not Path(PYTHON).is_file():
        lacking(
            "Pipecat is not installed; make a virtual environment, pip install -r "
            f"{HERE / 'pipecat-requirements.txt'} into it, and set OMNI_PIPECAT_PYTHON to its "
            "python"
        )
    question = tmp_path_factory.mktemp("pipecat") / "question.pcm"
    question.write_bytes(pcm24("france_slt.flac"))
    server = request.getfixturevalue("server")  # not before it is known to be needed
    url = server.replace("http", "ws") + "/v1/realtime"
    return json.loads(run(PYTHON, HERE / "pipecat_bot.py", url, question))


def test_the_pipeline_sees_no_error(report):
    assert report["errors"] == []


def test_the_bot_greets_and_the_spoken_question_is_heard(report):
    assert "hello" in report["greeting"].lower()
    assert "capital of france" in " ".join(report["heard"]).lower()
    assert report["started"] > 0
    assert report["stopped"] > 0


def test_the_bot_calls_the_function_and_says_what_it_gave(report):
    ((name, arguments),) = report["calls"].values()
    assert name == "look_up_capital"
    assert arguments["country"] == "France"
    assert "Paris" in report["words"]
    assert report["samples"] > 24_000
    assert report["tokens"] > 0
