"""The pytest plugin and `omni test`, as their users run them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dialogue_play import write
from http_server import served
from typer.testing import CliRunner

from omni.cli import app
from support import DATA

pytest_plugins = ["pytester"]
ROOT = DATA.parent.parent
PLUGIN = ("-p", "omni.dialogues.plugin", "-p", "no:asyncio")


@pytest.fixture(scope="module")
def server():
    with served() as running:
        yield running


def test_every_turn_is_a_test_and_says_what_failed(pytester, server):
    text = """
    name: Greetings
    tags: [fast]
    session: {modality: text}
    turns:
      - type: Hello
        expect: {words: hello}
      - type: Goodbye
        expect:
          words: [goodbye, see you]
    """
    path = write(pytester.path, text)
    result = pytester.runpytest(*PLUGIN, "--strict-markers", "--omni-url", server.url, "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*::turn 1 PASSED*",
            "*::turn 2 FAILED*",
            f"{path}:10: words: expected “goodbye” and “see you”, got You said Goodbye.",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_what_is_known_is_an_expected_failure(pytester, server):
    known = "{{known: It says what you say., turns: [{{type: Hi, expect: {{words: {}}}}}]}}"
    write(pytester.path, known.format("Bye"), "bye")
    write(pytester.path, known.format("Hi"), "hi")
    result = pytester.runpytest(*PLUGIN, "--omni-url", server.url, "-rx")
    result.assert_outcomes(xfailed=1, xpassed=1)
    result.stdout.fnmatch_lines(["*It says what you say.*"])


def test_tags_are_markers(pytester, server):
    write(pytester.path, "{tags: [fast], turns: [{type: Hi}]}", "one")
    write(pytester.path, "{tags: [slow], turns: [{type: Hi}, {type: Ho}]}", "two")
    options = (*PLUGIN, "--strict-markers", "--omni-url", server.url)
    pytester.runpytest(*options, "-m", "fast").assert_outcomes(passed=1, deselected=2)
    pytester.runpytest(*options, "-m", "dialogue").assert_outcomes(passed=3)


def test_a_broken_file_is_one_failure_and_the_others_are_played(pytester, server):
    write(pytester.path, "turns:\n- tipe: Hi", "broken")
    write(pytester.path, "turns: [{type: Hi}]", "good")
    write(pytester.path, "turns: [{say: {text: Hi, voice: nobody}}, {type: Ho}]", "voice")
    result = pytester.runpytest(*PLUGIN, "--omni-url", server.url)
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(["*broken.dialogue.yaml:2: turns[[]1].tipe: unknown field*"])
    assert result.stdout.str().count("voice.dialogue.yaml:1: unknown voice 'nobody'") >= 2


def test_latency_over_repeats_belongs_to_its_turn(pytester, server):
    text = """
    session: {modality: text}
    turns:
      - type: Hi
      - type: Ho
        expect: {latency: {done: {p95: 0.001}}}
    """
    write(pytester.path, text)
    result = pytester.runpytest(*PLUGIN, "--omni-url", server.url, "--omni-repeats", "2", "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*turn 2 FAILED*", "*latency: expected done p95 of at most*"])


def test_it_is_loaded_once_however_it_is_asked_for(pytester):
    """As an installed entry point, by -p and by pytest_plugins, all at once."""
    metadata = pytester.mkdir("installed") / "thing-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
    entry = "[pytest11]\nomni.dialogues.plugin = omni.dialogues.plugin\n"
    (metadata / "entry_points.txt").write_text(entry)
    pytester.makeconftest('pytest_plugins = ["omni.dialogues.plugin"]')
    write(pytester.path, "turns: [{type: Hi}]")
    search = os.pathsep.join([str(ROOT), str(metadata.parent)])
    command = [sys.executable, "-W", "error", "-m", "pytest", "--collect-only", "-q"]
    for extra in ((), ("-p", "omni.dialogues.plugin")):
        ran = subprocess.run(
            [*command, "-p", "no:asyncio", *extra],
            env=os.environ | {"PYTHONPATH": search},
            cwd=pytester.path,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert ran.stdout.count("a.dialogue.yaml::turn 1") == 1


def test_loading_it_costs_nothing():
    heavy = "{'pydantic', 'yaml', 'numpy', 'httpx', 'torch', 'typer'}"
    code = f"import sys, omni.dialogues.plugin; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.strip() == "[]"


def omni_test(*arguments: object):
    return CliRunner().invoke(app, ["test", *map(str, arguments)])


def test_the_command_says_by_its_exit_status_whether_all_passed(tmp_path, server):
    good = write(tmp_path, "turns: [{type: Hi, expect: {words: hi}}]", "good")
    bad = write(tmp_path, "turns: [{type: Hi, expect: {words: bye}}]", "bad")
    assert omni_test(good, "--url", server.url).exit_code == 0
    failed = omni_test(tmp_path, "--url", server.url)
    assert failed.exit_code == 1
    assert "bye" in failed.output
    assert omni_test(good, bad, "--url", server.url, "--tag", "none").exit_code == 2
    assert omni_test(tmp_path / "nowhere", "--url", server.url).exit_code == 2
    gone = omni_test(good, "--url", "http://127.0.0.1:9")
    assert gone.exit_code == 2
    assert "does not answer" in gone.output


def test_the_command_writes_reports_and_compares_runs(tmp_path, server):
    good = write(tmp_path, "turns: [{type: Hi}]", "good")
    junit, html = tmp_path / "junit.xml", tmp_path / "html"
    first = omni_test(good, "--url", server.url, "--html", html, "--junit", junit)
    assert first.exit_code == 0, first.output
    assert "<testsuite" in junit.read_text()
    assert (html / "run.json").is_file()
    assert list((html / "media").iterdir())
    options = ("--url", server.url, "--html", tmp_path / "again", "--compare", html, "--json")
    second = omni_test(good, *options)
    assert second.exit_code == 0
    (dialogue,) = json.loads(second.stdout)["dialogues"]
    assert dialogue["name"] == "good"
    assert Path(dialogue["repeats"][0]["turns"][0]["assistant"]["audio"]["path"]).is_file()
    lost = omni_test(good, "--url", server.url, "--compare", tmp_path / "nowhere")
    assert lost.exit_code == 2
