"""``omni eval``: judging, intervals, parts on fakes, the table and the command's errors."""

import json
from dataclasses import replace
from functools import partial, partialmethod

import numpy as np
import pytest
from typer.testing import CliRunner

from fakes import LoudnessHearing, LoudnessStream, ScriptedLlm, fake_parts
from omni import types
from omni.cli import app
from omni.data.sample import Medium, Message, Sample
from omni.data.shards import write_shards
from omni.draw import judge
from omni.draw.pictures import Drawing
from omni.errors import InputError, MediaError
from omni.evaluate import bridges, command, parts
from omni.evaluate.bridges import Bridge
from omni.evaluate.figures import Figure, quantile, ratio, share
from omni.evaluate.judging import can_judge, in_place, is_right, numerals, word_errors
from omni.evaluate.report import markdown, plain, render
from omni.evaluate.retrieval import first_places
from omni.evaluate.run import Row, Run
from omni.evaluate.samples import check, clips, names_of
from omni.llm.model import Description

# Judging


@pytest.mark.parametrize(
    ("question", "answer", "expected", "right"),
    [
        ("What is 86 minus 23?", "86 minus 23 is 63.", "63.", True),
        ("What is 86 minus 23?", "86 minus 23 is 64, not 63.", "63.", False),
        ("What is 77 minus 0?", "77", "77.", True),
        ("What is 2 times 50?", "Two times fifty is one hundred.", "100.", True),
        ("Which is bigger, 303 or 499?", "499 is bigger than 303.", "499.", True),
        ("Which is bigger, 303 or 499?", "303 is smaller than 499.", "499.", False),
        ("How many things are there?", "There are 2 things.", "Two.", True),
        ("How many things are there?", "There are several.", "Two.", False),
        ("Is there a ring?", "Yes, there is a ring.", "Yes.", True),
        ("Is there a ring?", "There might be, yes.", "Yes.", False),
        ("Is there a ring?", "No.", "Yes.", False),
        ("What is the capital of Brazil?", "It is BRASILIA!", "Brasília.", True),
        ("What is this?", "I see two breakfast sausages.", "A breakfast sausage.", True),
        ("What is this?", "A sausage", "A breakfast sausage.", False),
        ("In which year?", "", "In 1914.", False),
    ],
)
def test_an_answer_is_judged_by_its_words(question, answer, expected, right):
    assert is_right(question, answer, expected) is right


def test_of_words_to_choose_from_the_first_that_was_not_asked_for_counts():
    among = ("red", "brown", "triangle", "circle")
    asked = "What is the color of the triangle?"
    assert is_right(asked, "The triangle is brown.", "brown", among)
    assert not is_right(asked, "The triangle is red and brown.", "brown", among)
    assert not is_right(asked, "It is a triangle.", "brown", among)


def test_places_are_compared_by_their_sides():
    assert in_place("It is in the top-left corner.", "At the top left.")
    assert in_place("center right", "On the right.")
    assert in_place("In the centre of the picture.", "In the middle.")
    assert not in_place("At the top.", "At the top left.")
    assert not in_place("I cannot see it.", "In the middle.")


def test_numbers_in_words_become_digits():
    assert numerals("One hundred and seven or twenty-one cats, 1,234 dogs") == [
        "107",
        "or",
        "21",
        "cats",
        "1234",
        "dogs",
    ]


def test_small_talk_is_not_judged():
    assert not can_judge("Good morning.", "Good morning! How can I help you?")
    assert not can_judge("What can you do?", "I can listen, look and answer your questions.")
    assert can_judge("Is a whale a fish?", "No, a whale is a mammal.")
    assert can_judge("What is the capital of Cuba?", "Havana.")


def test_numbers_may_be_heard_as_written_or_as_said():
    references = ("It is 59th street.", "It is fifty ninth street.")
    assert word_errors("it is 59th street", references) == (0, 4)
    assert word_errors("It is fifty-ninth street!", references) == (0, 5)
    assert word_errors("it is street", references) == (1, 4)


def test_a_label_may_be_told_by_its_plain_name():
    assert names_of("goldfish") == ("goldfish", "fish")


# Figures


def test_wilsons_interval_is_the_published_one():
    f = share(8, 10)
    assert (f.value, f.samples) == (0.8, 10)
    assert (f.low, f.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert share(0, 20).low == 0
    assert share(20, 20).high == 1
    assert share(0, 0) is None


def test_a_bootstrap_holds_the_rate_and_narrows_with_more_samples():
    few = ratio([(0, 10), (5, 10), (1, 10)], seed=0)
    many = ratio([(0, 10), (5, 10), (1, 10)] * 50, seed=0)
    assert few.value == many.value == pytest.approx(0.2)
    assert few.low <= 0.2 <= few.high
    assert many.high - many.low < (few.high - few.low) / 3
    assert few == ratio([(0, 10), (5, 10), (1, 10)], seed=0)
    assert ratio([], seed=0) is None


def test_quantiles_have_bounds_among_the_values():
    f = quantile([1.0, 2.0, 3.0, 4.0, 100.0], 0.5, seed=0)
    assert f.value == 3
    assert 1 <= f.low <= 3 <= f.high <= 100


# Parts, on fakes


def sample(kind, number, asked, said, medium, about, **meta):
    where = () if medium is None else (medium,)
    first = (asked,) if medium is None else (0, asked) if asked else (0,)
    messages = (Message("user", first), Message("assistant", (said,)))
    modality = "text" if medium is None else medium.kind
    meta = {"source": "test", "licence": "Apache-2.0", "about": about, **meta}
    return Sample(f"{kind}-{number}", modality, messages, where, meta)


def tone(tenths):
    pcm = np.full(1600 * tenths, 0.5, np.float32)
    return Medium.audio(pcm, 16_000)


def picture(width):
    return Medium.image(np.zeros((20, width, 3), np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Held-out sets of a few samples each, that the fakes can make sense of."""
    home = tmp_path_factory.mktemp("data")
    heard = [
        sample("speech", n, "Repeat.", "", tone(n), "speech", transcript=f"{n} tenths", spoken="x")
        for n in (2, 3, 4)
    ]
    questions = [
        sample(
            "questions",
            n,
            "",
            f"{n}.",
            tone(n),
            "sums",
            answer=f"{n}.",
            transcript=f"How many tenths, {n}?",
            spoken="",
        )
        for n in (2, 3)
    ]
    seen = [
        sample("pictures", n, "What color is it?", "Red.", picture(n), ["colour"], things=[])
        for n in (30, 40)
    ]
    words = [
        sample("text", 0, "Which?\nA. a\nB. b", "B", None, ["choice of meaning"]),
        sample("text", 1, "What is 1 plus 1?", "2.", None, ["arithmetic"]),
    ]
    for folder, samples in {
        "speech/held_out": heard,
        "speech/held_out_voices": heard,
        "questions/held_out": questions,
        "pictures/held_out": seen,
        "text/held_out": words,
    }.items():
        write_shards(samples, home / folder)
    return home


def by_words(script, **changed):
    return Bridge(
        "text", replace(fake_parts(script), **changed), frozenset(("text", "audio", "image"))
    )


def figures(run):
    return {row.measure: (row.figure.value, row.figure.samples, row.bad) for row in run.rows}


def test_hearing_counts_what_is_heard_and_what_the_llm_repeats(data):
    run = Run([by_words(lambda asked: asked.split("\n")[0])], data)
    parts.hearing(run)
    found = figures(run)
    assert found["held-out sentences: words wrong"] == (0, 3, 0)
    assert found["held-out sentences: words wrong, repeated by the LLM"] == (0, 3, 0)
    assert found["recorded questions: words wrong"][0] > 0.9
    assert found["recorded questions: words wrong"][1] == 24


def test_a_bad_sample_is_counted_and_told_and_the_rest_goes_on(data):
    class Deaf(LoudnessHearing):
        def stream(self):
            return DeafStream()

    class DeafStream(LoudnessStream):
        def transcribe(self, language=None) -> types.Transcript:
            heard = super().transcribe(language)
            if heard.text == "3 tenths":
                raise MediaError("the sound is too odd")
            return heard

    run = Run([by_words(lambda asked: asked[:1], hearing=Deaf())], data)
    parts.spoken_questions(run)
    assert figures(run) == {"spoken questions answered": (1, 1, 1)}
    assert run.problems == ["spoken questions answered, text: the sound is too odd"]
    assert "1 bad" in render(run.rows)


def test_answers_while_the_model_fails_are_bad_and_the_rest_is_answered(monkeypatch):
    def answer(asked):
        if "plus" in asked:
            raise ValueError("the model broke")
        return "yes"

    monkeypatch.setattr(bridges, "TOGETHER", 1)
    asked = [[types.Message("user", (text,))] for text in ("What is 1 plus 1?", "Well?")]
    broken, fine = by_words(answer).answer([partial(list, one) for one in asked], 5)
    assert str(broken) == "the model broke"
    assert fine == "yes"


def test_only_what_an_adapter_changes_is_measured_of_it(data):
    text = by_words(lambda asked: "It is blue.")
    adapter = Bridge("adapter", fake_parts(lambda asked: "Red, of course."), frozenset({"image"}))
    run = Run([text, adapter], data)
    parts.PARTS["text"](run)
    alone = {row.bridge for row in run.rows if "picture" not in row.measure}
    after = {row.bridge for row in run.rows if "picture" in row.measure}
    assert (alone, after) == ({"text"}, {"text", "adapter"})
    log = []
    run = Run([text, adapter], data, log=log.append)
    parts.pictures(run)
    values = {row.bridge: row.figure.value for row in run.rows if row.measure == "colours"}
    assert values == {"text": 0, "adapter": 1}
    assert {entry["came"] for entry in log} == {"It is blue.", "Red, of course."}


def test_the_likeliest_of_the_choices_counts(data):
    run = Run([by_words(lambda asked: "b" if "Which" in asked else "1 plus 1 is 2")], data)
    parts.text(run)
    assert figures(run) == {
        "multiple choice (4 answers)": (1, 1, 0),
        "sums and comparisons": (1, 1, 0),
        "multiple choice (4 answers), after a picture": (1, 1, 0),
        "sums and comparisons, after a picture": (1, 1, 0),
    }


def test_bridges_are_timed_in_turns(data):
    text = by_words(lambda asked: "Yes")
    adapter = Bridge("adapter", fake_parts(), frozenset({"audio", "image"}))
    run = Run([text, adapter], data, limit=3)
    parts.latency(run)
    assert {row.unit for row in run.rows} == {"ms"}
    rows = [row for row in run.rows if row.measure == "utterance, median"]
    assert [(row.bridge, row.figure.samples) for row in rows] == [("text", 3), ("adapter", 3)]
    until = {row.measure: row.figure.value for row in run.rows if row.bridge == "text"}
    assert until["picture, median"] < until["picture, to the first token, median"]


class Painters:
    """Draws shapes well, but for every blue one, which it draws red."""

    name = "painter"
    known = frozenset({"circle", "square"})

    def load(self, read):
        return self

    def paint(self, wish, seed):
        colour = "red" if wish.colour == "blue" else wish.colour
        return Drawing(wish.subject, colour).render()


def test_what_is_drawn_is_judged_by_a_classifier_and_by_the_nearest_picture(monkeypatch):
    learn = judge.Judge.__init__
    monkeypatch.setattr(judge.Judge, "__init__", partialmethod(learn, steps=60))
    run = Run([by_words(lambda asked: "", painters=Painters())], None)
    parts.drawing(run)
    found = figures(run)
    assert found["shapes: thing, by the classifier"] == (1, 24, 0)
    assert found["shapes: colour, by the classifier"] == (22 / 24, 24, 0)
    assert found["shapes: both, by the nearest picture"] == (22 / 24, 24, 0)
    assert found["a picture, median"][1] == 24
    none = Run([by_words(lambda asked: "")], None)
    parts.drawing(none)
    assert not none.rows
    assert none.problems == ["drawing: nothing draws with this model"]


def test_of_pictures_with_one_name_the_best_placed_counts():
    names = ["cat", "dog", "cat"]
    scores = np.array([[0.1, 0.5, 0.3], [0.2, 0.1, 0.4]], np.float32)
    assert first_places(scores, ["cat", "dog"], names) == [1, 2]


def test_the_same_seed_draws_the_same_samples():
    first = Run([], None, seed=1, limit=5).some(clips(), 24, 6)
    assert first == Run([], None, seed=1, limit=5).some(clips(), 24, 6)
    assert first != Run([], None, seed=2, limit=5).some(clips(), 24, 6)
    assert len(Run([], None, quick=True).some(clips(), 24, 6)) == 6


# The table


ROWS = [
    Row("hearing", "words wrong", "text", Figure(0.123, 0.1, 0.15, 40), cost=True),
    Row("hearing", "words wrong", "adapter", Figure(0.09, 0.08, 0.1, 40), bad=2, cost=True),
    Row("latency", "utterance, median", "text", Figure(412.4, 400, 420, 24), unit="ms", cost=True),
]


def test_the_table_has_a_column_for_each_bridge():
    lines = render(ROWS).splitlines()
    assert lines[0].split()[-2:] == ["text", "adapter"]
    assert "12.3 % (10.0–15.0)" in lines[2]
    assert "9.0 % (8.0–10.0), 2 bad" in lines[2]
    assert lines[-1].endswith("–")


def test_the_table_is_markdown_too():
    lines = markdown(ROWS).splitlines()
    assert lines[1] == "|---|---:|---:|---:|"
    assert lines[2].startswith("| hearing: words wrong ↓ | 40 | 12.3 % (10.0–15.0) |")
    assert {line.count("|") for line in lines} == {5}
    assert json.loads(json.dumps(plain(ROWS)))[0]["figure"]["value"] == 0.123


# The command


def test_an_unknown_part_is_named_before_anything_is_loaded():
    result = CliRunner().invoke(app, ["eval", "smelling"])
    assert isinstance(result.exception, InputError)
    assert "'smelling'" in str(result.exception)
    assert "hearing" in str(result.exception)


def test_data_that_is_missing_is_told_with_the_commands_that_make_it(tmp_path):
    result = CliRunner().invoke(app, ["eval", "hearing", "easy-vqa", "--data", str(tmp_path)])
    said = str(result.exception)
    assert "omni data make speech --part held_out --hours 0.2" in said
    assert "omni data make speech --part held_out_voices --hours 0.2" in said
    assert "omni data make easy-vqa --part held_out" in said
    check(tmp_path, [])


def test_a_log_needs_a_place(tmp_path):
    result = CliRunner().invoke(app, ["eval", "--log", str(tmp_path / "none" / "log.jsonl")])
    assert "--log takes a file" in str(result.exception)


def test_the_command_prints_the_table_and_json_and_writes_the_log(data, tmp_path, monkeypatch):
    found = [by_words(lambda asked: "2")], ["the audio adapter: it is not here"]
    described = Description("scripted", "cpu", "none", 0, 0.0)
    monkeypatch.setattr(ScriptedLlm, "describe", lambda self: described, raising=False)
    monkeypatch.setattr(bridges, "load", lambda model, which, ear, threads: found)
    log = tmp_path / "log.jsonl"
    options = ["--data", str(data), "--log", str(log), "--json", "--markdown"]
    result = CliRunner().invoke(app, ["eval", "questions", *options])
    assert result.exit_code == 0, result.output
    assert "Left out: the audio adapter" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("| measure")
    told = json.loads(lines[-1])
    assert told["rows"][0]["figure"]["value"] == 0.5
    assert told["left_out"] == ["the audio adapter: it is not here"]
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(entry["mark"] for entry in entries) == [False, True]


def test_every_part_that_the_command_names_is_there():
    assert tuple(parts.PARTS) == command.PARTS
