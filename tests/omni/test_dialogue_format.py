"""The format of dialogues: what is accepted, and which line an error names."""

import json
import textwrap

import jsonschema
import pytest
import yaml
from dialogue_play import write
from typer.testing import CliRunner

from omni.cli import app
from omni.dialogues import reading
from omni.dialogues.format import schema
from omni.dialogues.reading import ScriptError, find, read
from omni.errors import InputError
from support import DATA

SCHEMA = DATA.parent.parent / "omni" / "dialogues" / "schema.json"
CAT = DATA / "photos" / "cat.jpg"
EVERYTHING = f"""
name: Everything
description: All that a file can say.
tags: [fast, tools_2]
known: It shows that the model forgets.
repeats: 2
seed: 7
timeout: 30
session:
  instructions: Be brief.
  voice: heart
  speed: 1.2
  language: en
  turn_detection: {{type: server_vad, silence_duration_ms: 300}}
  noise_reduction: near_field
  modality: audio
  tools:
    - name: weather
      description: The weather of a city.
      parameters: {{type: object, properties: {{city: {{type: string}}}}}}
      gives: It is sunny in $city.
  tool_choice: auto
  temperature: 0.5
  seed: 1
  max_output_tokens: 100
user: {{voice: am_michael, speed: 1.1}}
conditions:
  noise: {{kind: babble, snr: 10}}
  echo: {{level: -30, delay: 0.05}}
  loss: {{rate: 0.1, concealed: false}}
  jitter: 0.2
turns:
  - say:
      - I would like …
      - pause: 1.2
      - {{text: a cup of tea., voice: bf_emma, speed: 0.9}}
      - {{recording: {DATA / "speech" / "sky_adam.flac"}, text: Why is the sky blue}}
    voice: heart
    speed: 1
    show:
      - {CAT}
      - {{picture: {CAT}, at: 1}}
      - {{frames: [{CAT}], every: 0.5}}
    expect:
      - words: {{any: tea, all: [tea], none: [coffee], regex: "te."}}
        meaning: {{like: [Here is your tea., Tea it is.], at_least: 0.5}}
        language: [en, fr]
        spoken: true
        sounds_like: {{wer: 0.3, text: Here is tea.}}
        picture: false
        calls: {{name: weather, arguments: {{city: Oslo}}}}
        nothing_said: false
        answers: 1
        latency: {{first_audio: {{p50: 1500, p95: 2500}}, done: 9000}}
        events: [response.created, response.done]
        heard: {{all: tea, wer: 0.2}}
      - meaning: Here is your tea.
        soft: true
  - interrupts: 0.8
    type: Stop!
    hang_up: 0.5
    expect: {{stopped: 500}}
  - resume: true
    silent: 2
    tools: {{weather: rain}}
    conditions: {{}}
    expect: []
"""


def told(tmp_path, text: str) -> list[str]:
    """The problems of a file, as ``line: message``."""
    with pytest.raises(ScriptError) as caught:
        read(write(tmp_path, text))
    assert all(problem.file == tmp_path / "a.dialogue.yaml" for problem in caught.value.problems)
    return [f"{problem.line}: {problem.message}" for problem in caught.value.problems]


def test_a_file_may_say_all_of_this(tmp_path):
    script = read(write(tmp_path, EVERYTHING))
    assert script.name == "Everything"
    assert script.line("turns", 1, "expect", 0, "stopped") == 62
    jsonschema.validate(yaml.safe_load(EVERYTHING), schema())


def test_the_shipped_schema_is_the_one_of_the_format():
    assert json.loads(SCHEMA.read_text()) == schema()
    printed = CliRunner().invoke(app, ["test", "--schema"])
    assert printed.exit_code == 0
    assert json.loads(printed.stdout) == schema()
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_name_is_by_default_that_of_the_file(tmp_path):
    assert read(write(tmp_path, "turns: [{type: Hi}]", "greeting")).name == "greeting"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("turns:\n  - tipe: Hi", "2: turns[1].tipe: unknown field; expected say, voice, speed"),
        ("turns:\n  - say: {txt: Hi}", "2: turns[1].say.txt: unknown field; expected pause, text"),
        ("turns:\n- say: {text: a, spede: 1}", "2: turns[1].say.spede: unknown field"),
        ("turns:\n- say:\n  - a\n  - {pause: x}", "4: turns[1].say[2].pause: expected a number"),
        ("turns:\n\n  - say: 42", "3: turns[1].say: expected a text or an object or a list"),
        ("name: [a]\nturns: [{type: Hi}]", "1: name: expected a text"),
        ("name: x", "1: turns is missing"),
        ("turns: []", "1: turns: List should have at least 1 item"),
        ("turns:\n  - {}", "2: turns[1]: the user does nothing here; expected say, type, show"),
        ("turns:\n  - {say: Hi, type: Hi}", "2: turns[1]: say and type are in one turn"),
        ("turns:\n- type: Hi\n- {interrupts: 1, silent: 2}", "3: turns[2]: who interrupts says"),
        ("turns:\n- {type: Hi, interrupts: 1}", "1: the first turn has no answer to interrupt"),
        ("turns:\n- {type: Hi, hang_up: 1}\n- type: Hi", "1: turn 2 comes after hang_up"),
        ("turns:\n- {type: Hi, resume: true}", "1: turn 1 resumes, but nobody hung up before"),
        ("turns:\n- type: Hi\n  show: no.jpg", "3: turns[1].show: there is no file"),
        ("turns:\n- say:\n  - {recording: no.wav}", "3: turns[1].say[1].recording: there is no"),
        (
            "turns:\n- type: Hi\n  expect:\n    words: {regex: '('}",
            "4: turns[1].expect.words.regex: ( is no regular expression",
        ),
        (
            "turns:\n- type: Hi\n  expect:\n  - latency:\n      frist_audio: 1",
            "5: turns[1].expect[1].latency.frist_audio: it should be 'turn_end'",
        ),
        (
            "turns:\n- type: Hi\n  expect: {latency: {done: {}}}",
            "3: turns[1].expect.latency.done: no bound is given",
        ),
        (
            "turns:\n- type: Hi\n  expect: {meaning: {at_least: 0.5}}",
            "3: turns[1].expect.meaning: ",
        ),
        ("tags: [Fast lane]\nturns: [{type: Hi}]", "1: tags[1]: String should match pattern"),
        ("turns:\n- type: Hi\n  type: Ho", "3: type is there twice"),
        ("turns: [", "1: is not YAML: "),
        ("turns: &a [*a]", "1: turns[1]: expected an object"),
        ("just a text", "1: expected an object"),
        ("", "None: is empty"),
    ],
)
def test_an_error_names_the_line_and_what_was_expected(tmp_path, text, expected):
    (first, *rest) = told(tmp_path, text)
    assert first.startswith(expected)
    assert not rest


def test_all_errors_of_a_file_are_told_in_its_order(tmp_path):
    found = told(tmp_path, "nam: x\nturns:\n- tipe: Hi\n- say: Hi\n  speed: 9\nrepeats: 0")
    assert [message.partition(":")[0] for message in found] == ["1", "3", "5", "6"]


def test_what_cannot_be_read_is_told(tmp_path, monkeypatch):
    path = tmp_path / "b.dialogue.yaml"
    for content, expected in ((b"\xff\xfe\x00", "UTF-8"), (b"a" * 300, "larger")):
        path.write_bytes(content)
        monkeypatch.setattr(reading, "_MAX_BYTES", 200)
        with pytest.raises(ScriptError, match=expected):
            read(path)
    with pytest.raises(ScriptError, match="No such file"):
        read(tmp_path / "none.dialogue.yaml")


def test_folders_are_searched_for_dialogues(tmp_path):
    (tmp_path / "deep").mkdir()
    first = write(tmp_path, "", "a")
    second = write(tmp_path / "deep", "", "b")
    (tmp_path / "other.yaml").write_text("")
    assert find([tmp_path, first]) == [first, second]
    assert find([tmp_path / "other.yaml"]) == [tmp_path / "other.yaml"]
    with pytest.raises(InputError, match="there is no"):
        find([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \*\.dialogue\.yaml in"):
        find([tmp_path / "empty"])


def test_anchors_are_followed(tmp_path):
    text = textwrap.dedent("""
        user: &slow {speed: 0.8}
        turns:
          - {<<: *slow, say: Hi}
    """)
    assert read(write(tmp_path, text)).dialogue.turns[0].speed == 0.8
