import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from struct import pack

import data_tiny
import numpy as np
import pytest
from PIL import Image

from fakes import ScriptedLlm
from omni.data import knowledge, phrases, voices
from omni.data.conversations import Questions, Text
from omni.data.describe import COLOURS, article, plural
from omni.data.numbers import cardinal, clock, ordinal, year
from omni.data.pictures import Pictures, easy_vqa
from omni.data.rooms import RATE, Place, coloured, echo, record
from omni.data.sample import Sample
from omni.data.shards import read_shards
from omni.data.speech import PARTS, Speech, make_speech
from omni.data.talk import talk
from omni.data.texts import SOURCES, is_held_out, normal, sentences
from omni.data.things import resources, things
from omni.errors import InputError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("OMNI_HOME", str(tmp_path))
    data_tiny.make(tmp_path)
    yield tmp_path
    for cache in data_tiny.CACHES:
        cache.cache_clear()


# -- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (21, "twenty-one"),
        (100, "one hundred"),
        (342, "three hundred and forty-two"),
        (1005, "one thousand and five"),
        (12_345, "twelve thousand three hundred and forty-five"),
    ],
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert cardinal(number) == words


def test_years_ordinals_and_times_in_words() -> None:
    assert year(1984) == ("1984", "nineteen eighty-four")
    assert year(1905) == ("1905", "nineteen oh five")
    assert year(1700) == ("1700", "seventeen hundred")
    assert year(2007) == ("2007", "two thousand and seven")
    assert ordinal(21) == ("21st", "twenty-first")
    assert ordinal(12) == ("12th", "twelfth")
    assert ordinal(30) == ("30th", "thirtieth")
    assert clock(7, 5) == ("7:05", "seven oh five")
    assert clock(7, 0) == ("7 o'clock", "seven o'clock")


@pytest.mark.parametrize("source", SOURCES)
def test_sentences_are_plain_and_each_there_once(source: str) -> None:
    found = sentences(source)
    assert found
    assert len(set(found)) == len(found)
    for sentence in found:
        assert sentence[0].isupper()
        assert sentence[-1] in ".!?"
        assert not re.search(r"[\d<>_{}]|Not to be read|Somebody", sentence)


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert normal("Don't — she said — “stop”, Well-known 'X'!") == (
        "don't she said stop well known x"
    )


def test_phrases_fill_every_slot_and_say_numbers_in_words() -> None:
    random = Random(0)
    for _ in range(300):
        written, said = phrases.phrase(random)
        assert "{" not in written + said
        assert not re.search(r"\d", said)
        assert "clod" not in said  # an insult, by its gloss


def test_held_out_questions_and_sentences_are_never_trained_on() -> None:
    seen: dict[str, set[str]] = {}
    for part in ("train", "held_out"):
        texts = (Text(part).sample(n) for n in range(400))
        asked = (m.text for s in texts for m in s.messages if m.role == "user")
        seen[part] = {a.partition("\n")[0] for a in asked if not a.startswith("Finish")}
    assert len(seen["held_out"]) > 5
    assert not seen["train"] & seen["held_out"]


def test_answers_are_right_and_the_rejected_ones_are_not() -> None:
    for n in range(300):
        asked = knowledge.question(Random(n), kinds=("arithmetic", "opposites", "comparison"))
        assert asked.answer != asked.wrong
        if sum_ := re.match(r"What is (\d+) (plus|minus|times) (\d+)\?", asked.text):
            a, b = int(sum_[1]), int(sum_[3])
            right = {"plus": a + b, "minus": a - b, "times": a * b}[sum_[2]]
            assert asked.answer == f"{right}."
        elif asked.about == "opposites":
            one, other = asked.text[len("What is the opposite of ") : -1], asked.answer[:-1].lower()
            assert (one, other) in data_tiny.PAIRS or (other, one) in data_tiny.PAIRS


def test_choices_name_the_right_letter() -> None:
    for n in range(200):
        asked = knowledge.choice(Random(n))
        options = dict(re.findall(r"^([ABCD])\. (.*)$", asked.text, re.M))
        assert len(set(options.values())) == 4
        if sum_ := re.match(r"What is (\d+) \+ (\d+)\?", asked.text):
            assert int(options[asked.answer]) == int(sum_[1]) + int(sum_[2])


# -- sound --------------------------------------------------------------------------------------


def test_noise_has_the_level_that_was_asked_for() -> None:
    random = np.random.default_rng(0)
    voice = np.sin(np.arange(RATE) / 9).astype(np.float32) * 0.3
    noisy = record(voice, Place(noise=10.0, peak=1.0), random, before=0.5, after=0.0)
    quiet, loud = noisy[: RATE // 2], noisy[RATE // 2 :]
    ratio = 10 * np.log10(np.mean(loud**2) / np.mean(quiet**2) - 1)
    assert ratio == pytest.approx(10, abs=0.6)
    assert np.abs(noisy).max() == pytest.approx(1.0)


def test_an_echo_dies_away_as_fast_as_its_room_says() -> None:
    click = np.zeros(RATE, np.float32)
    click[0] = 1
    wet = echo(click, 0.4, 0.0, np.random.default_rng(0))
    level = [10 * np.log10(np.mean(wet[i : i + 800] ** 2)) for i in (800, 800 + RATE // 5)]
    assert level[0] - level[1] == pytest.approx(30, abs=3)  # 0.2 s of 0.4 s for 60 dB


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_falls_by_its_slope(slope: float) -> None:
    noise = coloured(RATE * 8, slope, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = (power[f * 8 : f * 16].mean() for f in (400, 3200))
    assert 10 * np.log10(low / high) / 3 == pytest.approx(3 * slope, abs=0.4)


def test_a_longer_throat_moves_the_spectrum_down() -> None:
    spectrum = np.zeros((100, 2), np.float32)
    spectrum[50] = 1
    assert voices.stretch(spectrum, 0.8)[:, 0].argmax() == 40
    np.testing.assert_array_equal(voices.stretch(spectrum, 1.0), spectrum)


def test_speech_is_the_same_again_and_says_what_it_is() -> None:
    make = Speech("train", seed=3)
    one, two = make.sample(5), make.sample(5)
    assert one is not None
    assert one == two
    assert one != Speech("train", seed=4).sample(5)
    sound = one.media[0].sound()
    assert sound.seconds == pytest.approx(one.meta["seconds"], abs=0.01)
    assert one.messages[-1].text == one.meta["transcript"]
    assert one.meta["normal"] == normal(one.meta["spoken"])
    assert np.abs(sound.pcm).max() > 0.02


def test_voices_and_sentences_of_tests_are_not_trained_on() -> None:
    assert not set(voices.TRAINED) & set(voices.HELD_OUT)
    random = np.random.default_rng(0)
    for family, known in (("kokoro", voices.TRAINED), ("held out", voices.HELD_OUT)):
        assert {voices.Voice.draw(family, random).name for _ in range(200)} == set(known)
    for part, (_, held_out) in PARTS.items():
        if PARTS[part][0] == "hibari":
            for n in range(6):
                sample = Speech(part).sample(n)
                assert sample is not None
                assert is_held_out(sample.meta["spoken"]) == held_out


def test_speech_is_made_in_shards_and_more_can_be_added(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(text: str, voice: voices.Voice, random: np.random.Generator) -> np.ndarray:
        return random.normal(0, 0.1, RATE).astype(np.float32)

    monkeypatch.setattr("omni.data.speech.read", read)
    (home / "data/sets/kokoro-voices").mkdir()
    made = []
    for hours in (0.05, 0.15):
        make_speech(
            home / "speech", hours, part="train_voices", done=lambda shard: made.append(shard.name)
        )
    assert made == ["00000.parquet", "00001.parquet", "00002.parquet"]
    found = list(read_shards(home / "speech" / "train_voices"))
    assert len(found) == 192
    assert {s.meta["split"] for s in found} == {"train_voices"}
    with pytest.raises(InputError, match="no part 'test'"):
        make_speech(home / "speech", 1, part="test")


def test_spoken_questions_are_asked_and_answered() -> None:
    sample = Questions("train").sample(1)
    assert sample.messages[0].parts == (0,)
    assert sample.messages[1].text == sample.meta["answer"]
    assert sample.rejected not in (None, sample.meta["answer"])
    assert sample.media[0].sound().seconds > 0.5


# -- pictures -----------------------------------------------------------------------------------


def composed(count: int = 60) -> list[Sample]:
    return [Pictures("held_out").sample(n) for n in range(count)]


def test_things_are_where_the_answers_say() -> None:
    for sample in composed():
        pixels = sample.media[0].pixels().astype(int)
        side = len(pixels)
        ground = np.array(COLOURS[sample.meta["ground"]])
        things_ = sample.meta["things"]
        cells = {tuple(cell) for *_, cell in things_}
        if len(cells) == 1:
            continue  # a large one reaches beyond its cell
        for row in range(3):
            for column in range(3):
                y, x = side * (2 * row + 1) // 6, side * (2 * column + 1) // 6
                middle = pixels[y - 30 : y + 30, x - 30 : x + 30]
                # The ground gets up to a fifth darker; what lies on it is another colour.
                brightness = middle @ ground / max(1, ground @ ground)
                away = np.abs(middle - brightness[..., None] * ground).max(-1) > 40
                shown = (away | (brightness > 1.3) | (brightness < 0.6)).mean() > 0.1
                assert shown == ((row, column) in cells), sample.meta


def test_answers_about_pictures_fit_what_is_in_them() -> None:
    kinds = set()
    for sample in composed(200):
        turns = [m.text for m in sample.messages]
        names = [t[0] for t in sample.meta["things"]]
        colours = {t[0]: t[2] for t in sample.meta["things"]}
        for text, answer, about in zip(turns[::2], turns[1::2], sample.meta["about"], strict=True):
            kinds.add(about)
            if text == "How many things are in the picture?":
                assert answer.lower() == f"{cardinal(len(names))}."
            elif text.startswith("What color is the background"):
                assert answer.lower() == f"{sample.meta['ground']}."
            elif about == "colour" and "ground" not in text:
                assert answer.lower() == f"{colours[text[len('What color is the ') : -1]]}."
            elif about == "presence":
                asked = re.sub(r"Is there (an? )?| in the picture\?", "", text)
                assert (answer == "Yes.") == (asked in names)
            elif about == "caption":
                assert answer == sample.meta["caption"]
        assert sample.rejected != turns[-1]
    assert kinds == {"caption", "colour", "count", "place", "kind", "name", "presence"}


def test_things_for_tests_are_not_in_training_pictures() -> None:
    kept = {t.name for t in things("fluent", "clipart") if t.held_out}
    for n in range(40):
        assert not kept & {t[0] for t in Pictures("train").sample(n).meta["things"]}


def test_only_things_are_taken_from_the_emoji() -> None:
    assert {t.name: t.kind for t in things("fluent")} == {
        "cat": "animal", "dog": "animal", "fox": "animal",
        "apple": "fruit", "plum": "fruit", "pear": "fruit",
    }  # fmt: skip


def test_words_for_one_and_for_many() -> None:
    assert [article(w) for w in ("apple", "unicorn", "pear", "glasses", "bus")] == [
        "an apple", "a unicorn", "a pear", "glasses", "a bus"
    ]  # fmt: skip
    assert [plural(w) for w in ("box", "berry", "key", "socks", "glass")] == [
        "boxes", "berries", "keys", "socks", "glasses"
    ]  # fmt: skip


def test_easy_vqa_keeps_its_own_split(home: Path) -> None:
    folder = home / "data/sets/easy-vqa/easy_vqa/data"
    for split, count in (("train", 8), ("test", 3)):
        (folder / split / "images").mkdir(parents=True)
        picture = Image.new("RGB", (64, 64), "white")
        picture.paste("red", (46, 4, 60, 18))
        picture.save(folder / split / "images" / "0.png")
        rows = [f'["is there a circle {i}?", "yes", 0]' for i in range(count)]
        rows[0] = '["what color is the circle?", "red", 0]'
        (folder / split / "questions.json").write_text(f"[{', '.join(rows)}]")
    (folder / "answers.txt").write_text("yes\nno\nred\n")
    train, test = list(easy_vqa("train")), list(easy_vqa("held_out"))
    assert [len(s.messages) for s in train] == [12, 4]
    assert [len(s.messages) for s in test] == [6]
    assert train[0].messages[0].parts[0] == 0
    assert any("there a circle" in m.text for m in train[0].messages)
    assert train[0].meta["things"] == [["circle", "shape", "red", [0, 2]]]


def test_files_are_read_out_of_qt_resources() -> None:
    def name(text: str) -> bytes:
        return pack(">HI", len(text), 0) + text.encode("utf-16-be")

    names = name("cat.png")
    content = pack(">I", 5) + b"photo"
    tree = pack(">IHII", 0, 2, 1, 1) + pack(">IHHHI", 0, 0, 0, 0, 0)
    header = 20
    data = pack(
        ">4sIIII", b"qres", 1, header, header + len(tree), header + len(tree) + len(content)
    )
    assert list(resources(data + tree + content + names)) == [("cat.png", b"photo")]
    assert list(resources(b"something else entirely, long enough")) == []


# -- talk ---------------------------------------------------------------------------------------


def test_talk_after_a_picture_has_the_llms_own_answers() -> None:
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return "x" * 200 if "joke" in question else f"About: {question[:40]}"

    llm = ScriptedLlm(answer)
    samples = list(talk(llm, "train", 20))  # type: ignore[arg-type]
    assert 10 < len(samples) <= 20
    for sample in samples:
        sample.check()
        assert sample.messages[0].parts[0] == 0  # the picture comes first
        question, said = sample.messages[-2:]
        assert said.text == f"About: {question.text[:40]}"
        # What was said about the picture was not seen when this was answered.
        assert question.text in asked
        assert "joke" not in "".join(m.text for m in sample.messages), "answers that do not end"
    assert [s.id for s in talk(llm, "train", 20)] == [s.id for s in samples]  # type: ignore[arg-type]
    assert {len(s.messages) for s in samples} > {2, 4}
