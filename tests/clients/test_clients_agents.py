"""The OpenAI Agents SDK for JavaScript, as it is, over its stock WebSocket transport in Node."""

import json
import shutil

import pytest
from others import HERE, lacking, pcm24, run

pytestmark = pytest.mark.e2e

NODE = shutil.which("node")


@pytest.fixture(scope="module")
def report(request, tmp_path_factory):
    """What the SDK saw in a conversation with the server."""
    if NODE is None:
        lacking("no node found; install Node.js 20 or newer")
    if not (HERE / "node" / "node_modules").is_dir():
        lacking(f"the Agents SDK is not installed; run: npm ci --prefix {HERE / 'node'}")
    question = tmp_path_factory.mktemp("agents") / "question.pcm"
    question.write_bytes(pcm24("france_slt.flac"))
    server = request.getfixturevalue("server")  # not before it is known to be needed
    url = server.replace("http", "ws") + "/v1/realtime"
    return json.loads(run(NODE, HERE / "node" / "agents.mjs", url, question))


def test_the_sdk_sees_no_error(report):
    assert report["errors"] == []


def test_typed_and_spoken_questions_are_answered_aloud(report):
    assert "Paris" in report["texts"]["typed"]
    assert report["typedSound"] > 24_000
    assert "france" in report["texts"]["heard"].lower()
    assert report["texts"]["historyHeard"] == report["texts"]["heard"]
    assert "Paris" in report["texts"]["spoken"]


def test_the_sdk_runs_a_tool_and_the_answer_knows_what_it_gave(report):
    assert report["calls"] == ["Oslo"]
    (call,) = report["toolItems"]
    assert (call["name"], call["status"]) == ("get_weather", "completed")
    assert "31 degrees" in call["output"]
    assert "31" in report["texts"]["weather"] or "sunny" in report["texts"]["weather"]


def test_an_interruption_by_call_or_by_voice_cancels_the_answer(report):
    assert report["interruptedStatus"] == "cancelled"
    assert report["interrupted"] >= 1
    assert report["bargeInStatus"] == "cancelled"
    assert "Paris" in report["texts"]["bargeIn"]


def test_history_handoff_and_usage(report):
    assert report["history"] == {"removed": True, "last": "item_written"}
    assert report["handoff"] == ["Assistant", "Storyteller"]
    assert "stories" in report["instructions"]
    assert report["usage"]["totalTokens"] > 100
