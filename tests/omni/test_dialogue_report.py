"""Reports of dialogues: terminal, JUnit and the page, also of hostile texts and of two runs."""

import base64
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from omni.client.media import save_wav
from omni.dialogues.report import terminal, write_html, write_junit
from omni.dialogues.results import (
    AssistantTurn,
    Call,
    Check,
    DialogueResult,
    Media,
    Moment,
    Problem,
    Repeat,
    Run,
    TurnResult,
    UserTurn,
)
from omni.types import AudioChunk
from support import chromium

HOSTILE = "</td><script>boom()</script> \"'& \x00\x1b[31m\u202e\udc80{{ 7 * 7 }} ]]>"
PLACE = Path("talks/capital.dialogue.yaml")


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.wav"
    wave = 0.3 * np.sin(np.arange(24_000) * 0.1)
    save_wav(path, AudioChunk(wave.astype(np.float32), 24_000))
    return Media(path, "audio/wav", 1.0)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (8, 8), "red").save(path)
    return Media(path, "image/png")


def turn(index=0, said="What is the capital of France?", answer="Paris.", **more) -> TurnResult:
    return TurnResult(
        index,
        3 + index,
        UserTurn(said=said, heard=said),
        AssistantTurn(text=answer, statuses=("completed",)),
        measured={"turn_end": 400.0, "first_token": 700.0, "first_audible": 900.0, "done": 1500.0},
        seconds=2.5,
        **more,
    )


def dialogue(*turns: TurnResult, **more) -> DialogueResult:
    more = {"path": PLACE, "name": "A capital"} | more
    return DialogueResult(repeats=(Repeat(turns, seconds=5.0),), **more)


def run(*dialogues: DialogueResult) -> Run:
    return Run("2026-01-02T03:04:05+00:00", "http://server", {"model": "m"}, dialogues, 12.0)


BROKEN = Check("words", "“Paris”", "Lyon.", False, line=5)
PROBLEM = Problem("no whole answer within 60 s", PLACE, 7)


def print_run(shown: Run) -> str:
    console = Console(width=60, force_terminal=False)
    with console.capture() as captured:
        terminal(shown, console)
    return captured.get()


def junit(tmp_path: Path, shown: Run) -> ElementTree.Element:
    path = tmp_path / "deep" / "junit.xml"
    write_junit(shown, path)
    return ElementTree.parse(path).getroot()


def page(tmp_path: Path, shown: Run, against: Run | None = None) -> str:
    write_html(shown, tmp_path / "page", against)
    return (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


def test_the_terminal_says_of_a_failure_what_was_said_heard_wanted_and_found():
    failed = turn(1, "And of Spain?", "Lyon.", checks=(BROKEN,))
    text = print_run(run(dialogue(turn()), dialogue(turn(), failed, name="Two capitals")))
    assert "✓ A capital" in text
    assert "✗ Two capitals" in text
    assert "talks/capital.dialogue.yaml:4" in text
    for said in ("And of Spain?", "Lyon.", "words: expected “Paris”, got Lyon."):
        assert said in text
    assert "What is the capital of France?" not in text  # turns that passed stay short
    assert "first audible 900" in text
    assert "1 passed, 1 failed: m at http://server" in text


def test_the_terminal_tells_known_failures_and_unexpected_passes():
    known = "It confuses towns."
    shown = run(
        dialogue(turn(checks=(BROKEN,)), known=known), dialogue(turn(), known="It is fixed.")
    )
    text = print_run(shown)
    assert known in text
    assert "It is fixed." in text
    assert "1 known failure, 1 unexpected pass" in text


def test_the_terminal_scores_soft_expectations():
    soft = Check("meaning", "like “Paris”", "0.62: Lyon.", False, soft=True, score=0.62)
    text = print_run(run(dialogue(turn(checks=(soft,)))))
    assert "✓ A capital" in text
    assert "turn 1: meaning 0.62" in text


def test_the_terminal_says_why_a_dialogue_was_not_played():
    broken = DialogueResult(PLACE, "capital", error=replace(PROBLEM, message="is empty"))
    text = print_run(run(broken, dialogue(turn(error=PROBLEM))))
    assert "talks/capital.dialogue.yaml:7: is empty" in text
    assert "no whole answer within 60 s" in text


def test_a_hostile_text_cannot_steer_the_terminal():
    text = print_run(run(dialogue(turn(said=HOSTILE, checks=(BROKEN,)), name=f"[bold]{HOSTILE}")))
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\udc80]", text)
    assert "[bold]" in text


def test_junit_has_a_suite_for_a_dialogue_and_a_case_for_a_turn(tmp_path):
    failed, error = turn(1, checks=(BROKEN,)), turn(2, error=PROBLEM)
    root = junit(tmp_path, run(dialogue(turn(), failed, error)))
    (suite,) = root
    assert root.tag == "testsuites"
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "1", "errors": "1", "skipped": "0"}
    cases = suite.findall("testcase")
    assert cases[0].get("name") == "turn 1: What is the capital of France?"
    assert cases[0].get("classname") == "capital"
    assert float(cases[0].get("time")) == 2.5
    assert [child.tag for child in cases[0]] == ["system-out"]
    assert "capital.dialogue.yaml:5: words: expected “Paris”" in cases[1].find("failure").text
    assert "no whole answer" in cases[2].find("error").get("message")
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert properties["turn 1: first_audible (ms, median)"] == "900"
    assert properties["server"] == "m at http://server"


def test_junit_skips_what_is_known(tmp_path):
    (suite,) = junit(tmp_path, run(dialogue(turn(checks=(BROKEN,)), turn(1), known="It guesses.")))
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")
    assert suite.find("testcase/skipped").get("message") == "It guesses."


def test_junit_counts_a_dialogue_that_could_not_be_played_as_an_error(tmp_path):
    suites = junit(
        tmp_path,
        run(
            DialogueResult(PLACE, "capital", error=PROBLEM, known="whatever"),
            DialogueResult(PLACE, "refused", repeats=(Repeat(error=PROBLEM),)),
        ),
    )
    assert [(s.get("tests"), s.get("errors")) for s in suites] == [("1", "1")] * 2


def test_junit_takes_all_repeats_and_what_was_found_over_them(tmp_path):
    slow = Check("latency", "done p95 of at most 9 ms", "1500 ms", False, turn=0, line=9)
    repeats = (Repeat((turn(),)), Repeat((turn(answer="Lyon.", checks=(BROKEN,)),)))
    (suite,) = junit(tmp_path, run(DialogueResult(PLACE, "x", repeats=repeats, checks=(slow,))))
    (case,) = suite.findall("testcase")
    assert float(case.get("time")) == 5.0
    assert "got Lyon." in case.find("failure").text
    assert "latency: expected done p95" in case.find("failure").text


def test_junit_is_xml_whatever_was_said(tmp_path):
    hostile = turn(said=HOSTILE, answer=HOSTILE, checks=(replace(BROKEN, found=HOSTILE),))
    (suite,) = junit(tmp_path, run(dialogue(hostile, name=HOSTILE, known=None)))
    assert "<script>" in suite.get("name")
    assert "\\x1b" in suite.find("testcase/failure").text


def test_the_page_holds_sound_and_pictures_in_itself(tmp_path, sound, picture):
    user = UserTurn(said="Hm?", audio=sound, pictures=(picture,))
    shown = turn()
    shown = replace(shown, user=user, assistant=replace(shown.assistant, audio=sound))
    text = page(tmp_path, run(dialogue(shown)))
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert text.count("<img ") == 1
    recordings = re.findall(r'<audio [^>]*src="data:audio/mpeg;base64,([^"]+)"', text)
    assert len(recordings) == 2
    (tmp_path / "back.mp3").write_bytes(base64.b64decode(recordings[0]))
    with av.open(tmp_path / "back.mp3") as container:
        pcm = np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])
    assert len(pcm) / 24_000 == pytest.approx(1.0, abs=0.15)
    assert len(base64.b64decode(recordings[0])) < sound.path.stat().st_size / 5
    assert np.abs(pcm).max() == pytest.approx(0.3, abs=0.1)


def test_the_page_shows_words_calls_checks_times_and_events(tmp_path):
    shown = turn(
        checks=(BROKEN,),
        events=(Moment("user.typed", 0.0), *(Moment("x.delta", 1.0, "Hel"),) * 2),
        stages={"vad": 12.0},
    )
    call = Call("weather", '{"city": "Rome"}', "snow")
    shown = replace(shown, assistant=replace(shown.assistant, calls=(call,), transcript="Parys"))
    text = page(tmp_path, run(dialogue(shown)))
    for part in ("Parys", "weather(", "snow", "“Paris”", "first audible", "x.delta × 2", "HelHel"):
        assert part in text, part


def test_the_page_escapes_everything(tmp_path):
    hostile = turn(
        said=HOSTILE,
        answer=HOSTILE,
        checks=(replace(BROKEN, wanted=HOSTILE, found=HOSTILE),),
        error=replace(PROBLEM, message=HOSTILE),
        events=(Moment(HOSTILE, 0, HOSTILE),),
    )
    call = Call(HOSTILE, HOSTILE, HOSTILE)
    hostile = replace(hostile, assistant=replace(hostile.assistant, calls=(call,)))
    whole = dialogue(hostile, name=HOSTILE, description=HOSTILE, known=HOSTILE, tags=(HOSTILE,))
    text = page(tmp_path, run(whole), run(whole))
    assert "<script" not in text
    assert not re.search("[\x00\x1b\u202e\udc80]", text)
    assert "{{ 7 * 7 }}" in text


def test_the_page_sets_two_runs_side_by_side(tmp_path):
    slower = replace(turn(answer="Lyon.", checks=(BROKEN,)), measured={"first_audible": 1900.0})
    text = page(
        tmp_path,
        run(dialogue(slower), dialogue(turn(), path=Path("new.yaml"), name="N")),
        run(dialogue(turn()), dialogue(turn(), path=Path("old.yaml"), name="O")),
    )
    for mark in ("worse", "slower", "new", "gone"):
        assert re.search(rf'class="mark[^"]*">{mark}<', text), mark
    assert "Lyon." in text
    assert "Paris." in text
    assert "Earlier run" in text


def test_a_page_without_dialogues_or_recordings_is_still_one(tmp_path):
    gone = Media(tmp_path / "gone.wav", "audio/wav", 1.0)
    lost = replace(turn(), user=UserTurn(audio=gone), measured={})
    assert "no longer there" in page(tmp_path, run(dialogue(lost)))
    assert "Dialogues" in page(tmp_path, run())


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_legible_and_does_not_overflow(tmp_path, sound, picture, theme):
    user = UserTurn(said="Hm? " + "long" * 80, audio=sound, pictures=(picture,))
    shown = replace(turn(checks=(BROKEN, replace(BROKEN, soft=True, score=0.5))), user=user)
    shown = run(dialogue(shown, known="It guesses."), dialogue(shown, path=Path("b"), name="B"))
    page(tmp_path, shown, run(dialogue(turn())))
    with chromium() as browser:
        opened = browser.new_page(color_scheme=theme, viewport={"width": 360, "height": 800})
        problems, asked = [], []
        opened.on("console", lambda message: problems.append(message.text))
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto((tmp_path / "page" / "index.html").as_uri())
        opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert opened.evaluate("document.documentElement.scrollWidth") <= 360
        assert opened.evaluate(CONTRAST) == []
        opened.get_by_label("what failed").check()
        assert opened.locator(".dialogue:visible").count() == 1
        opened.locator("audio").first.evaluate("sound => sound.play()")
        assert problems == []
        assert all(url.startswith(("file:", "data:")) for url in asked)


CONTRAST = """() => {
  const rgb = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => rgb(color).slice(0, 3)
    .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = element => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if ((rgb(color)[3] ?? 1) > 0) return color;
    }
  };
  const poor = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    const pair = [light(getComputedStyle(element).color), light(paper(element))].sort();
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) poor.push(`${texts.currentNode.data.trim()}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
