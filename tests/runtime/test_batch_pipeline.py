"""Batches with stand-ins for the models: what is read, asked, answered, and what goes wrong."""

import threading
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from encoders.media import wav_bytes
from fakes import ScriptedLlm
from omni.batch import Medium, Options, Record, Unusable
from omni.batch.schema import SCHEMA
from omni.data.describe import COLOURS
from omni.errors import InputError, OmniError
from omni.types import AudioChunk, Capabilities, Segment, Span, Transcript
from runtime.batch import Batch
from runtime.batch.asking import ask
from runtime.batch.perceive import Perceived, by_time, kind_of_file, look, moments, near
from runtime.prompt import Reading


class Transcripts:
    """Hears how many seconds a recording has, one recording after the other."""

    def __init__(self, recordings):
        self.seconds = 0.0
        self._recordings = recordings

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        for recording in self._recordings:
            try:
                pcm = np.concatenate([chunk.pcm for chunk in recording.sound])
            except OmniError as error:
                yield recording.key, error
                continue
            seconds = len(pcm) / 16_000
            self.seconds += seconds
            said = f"{round(seconds)} seconds"
            segments = (Segment(said, 0.0, seconds),)
            yield (
                recording.key,
                Transcript(said, recording.language or "en", seconds, segments=segments),
            )


class Sight:
    capabilities = Capabilities(inputs=frozenset({"image"}))

    def encode(self, frames):
        return [Span("image", f"a {f.pixels[0, 0, 0]}", times=(f.time, f.time)) for f in frames]


class Voice:
    """Speaks English only: a tenth of a second for each clause."""

    capabilities = Capabilities(voices=("alto", "bass"))

    def speaks(self, language, voice):
        return language == "en"

    def speak(self, clause, voice=None):
        yield AudioChunk(np.zeros(2_400, np.float32), 24_000)


class Painter:
    """Paints in the colour of the wish."""

    def paint(self, wish, seed):
        return np.full((8, 8, 3), COLOURS[wish.colour], np.uint8)


class Models:
    """Stand-ins; ``loaded`` says which were asked for."""

    def __init__(self, script=lambda text: f"I read: {text}", context=4096):
        self.loaded = set()
        self._llm = ScriptedLlm(script, max_context=context)
        self._llm.tokenizer.decode = lambda ids: bytes(ids).decode()
        self.speakers = None
        self.voice = Voice()

    @property
    def transcriber(self):
        self.loaded.add("transcriber")
        return self

    def transcribe(self, recordings):
        return Transcripts(recordings)

    @property
    def sight(self):
        self.loaded.add("sight")
        return Sight()

    @property
    def sight_of_llm(self):
        return self.sight

    @property
    def llm(self):
        self.loaded.add("llm")
        return self._llm

    @property
    def reading(self):
        return Reading.between([self.sight_of_llm.capabilities], self.llm)

    @property
    def painter(self):
        return Painter()


def write_wav(path, seconds):
    pcm = 0.1 * np.sin(np.arange(int(16_000 * seconds)) / 10).astype(np.float32)
    path.write_bytes(wav_bytes(AudioChunk(pcm, 16_000)))
    return path


def run(records, models=None, **options) -> dict[str, dict]:
    with Batch(Options(**options), models or Models()) as batch:
        results = list(batch.run(records))
    for result in results:
        jsonschema.validate(result, SCHEMA)
    assert threading.active_count() < 10
    return {result["id"]: result for result in results}


def record(identity, *paths, asks=()):
    return Record(identity, tuple(Medium(None, path) for path in paths), tuple(asks))


def test_recordings_pictures_and_texts_are_asked_about(tmp_path):
    Image.new("RGB", (9, 9), (7, 0, 0)).save(tmp_path / "p.png")
    (tmp_path / "t.txt").write_text("Birds fly.")
    found = run(
        [
            record("sound", write_wav(tmp_path / "s.wav", 3), asks=["How long?", "Who?"]),
            record("picture", tmp_path / "p.png", asks=["What?"]),
            record("text", tmp_path / "t.txt", asks=["What?"]),
            Record("words", (Medium("text", text="Fish swim."),), ("What?",)),
        ]
    )
    sound = found["sound"]
    assert [a["ask"] for a in sound["answers"]] == ["How long?", "Who?"]
    assert sound["answers"][0]["answer"] == "I read: 3 seconds\n\nHow long?"
    assert sound["media"][0]["transcript"]["segments"][0]["end"] == 3.0
    assert sound["media"][0]["seconds"] == 3.0
    assert sound["usage"]["output_tokens"] > 10
    assert "a 7" in found["picture"]["answers"][0]["answer"]
    assert found["picture"]["media"][0]["seen"] == [{"text": "a 7"}]
    assert found["text"]["answers"][0]["answer"] == "I read: Birds fly.\n\nWhat?"
    assert "Fish swim." in found["words"]["answers"][0]["answer"]


def test_models_are_loaded_only_for_what_is_there(tmp_path):
    models = Models()
    run([record("sound", write_wav(tmp_path / "s.wav", 1))], models)
    assert models.loaded == {"transcriber"}
    models = Models()
    run([Record("words", (Medium("text", text="Hi"),))], models)
    assert models.loaded == set()


def test_pictures_are_drawn_where_they_are_asked_for_and_changed_by_the_next_question(tmp_path):
    asks = ("Draw a red apple.", "Now make it blue.", "Why?", "Make it green.", "画一颗黄色的星星")
    found = run([Record("a/b", (), asks)], draw=tmp_path)["a/b"]["answers"]
    assert [a["ask"] for a in found] == list(asks)
    drawn = [tmp_path / "a" / f"b.{n}.png" for n in (1, 2, 5)]
    assert [a.get("picture") for a in found] == [*map(str, drawn[:2]), None, None, str(drawn[2])]
    shown = [Image.open(path).getpixel((4, 4)) for path in drawn]
    assert shown == [COLOURS["red"], COLOURS["blue"], COLOURS["yellow"]]
    assert [a["answer"] for a in found[:3]] == [
        "Here is a red apple.",
        "Here is a blue apple.",
        "I read: Why?",
    ]
    assert "星星" in found[4]["answer"]


def test_without_a_place_for_pictures_nothing_is_drawn(tmp_path):
    [answer] = run([Record("a", (), ("Draw a red apple.",))])["a"]["answers"]
    assert answer == {"ask": "Draw a red apple.", "answer": "I read: Draw a red apple."}


def test_a_picture_that_cannot_be_drawn_or_written_costs_that_alone(tmp_path):
    class Unable(Models):
        @property
        def painter(self):
            raise InputError("there is no picture decoder")

    asks = ("Draw a red apple.", "Why?")
    found = run([Record("a", (), asks)], Unable(), draw=tmp_path)["a"]["answers"]
    assert found[0]["answer"] == "I cannot draw: there is no picture decoder."
    assert found[1]["answer"] == "I read: Why?"
    (tmp_path / "file").write_text("")
    found = run([Record("a", (), asks), Record("b", (), ("?",))], draw=tmp_path / "file")
    assert "cannot write the picture" in found["a"]["error"]["message"]
    assert found["b"]["answers"]


def test_media_of_one_record_are_told_apart_by_name(tmp_path):
    one, two = write_wav(tmp_path / "one.wav", 1), write_wav(tmp_path / "two.wav", 2)
    answer = run([record("both", one, two, asks=["?"])])["both"]["answers"][0]["answer"]
    assert answer == (
        "I read: The recording one.wav:\n1 seconds\nThe recording two.wav:\n2 seconds\n\n?"
    )


def test_what_is_said_can_be_the_question(tmp_path):
    path = write_wav(tmp_path / "s.wav", 2)
    found = run([record("a", path)], answer=True)["a"]
    assert found["answers"] == [{"ask": None, "answer": "I read: 2 seconds"}]


def test_broken_files_cost_one_error_each_and_nothing_else(tmp_path):
    good = write_wav(tmp_path / "good.wav", 2)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(good.read_bytes()[:20_000])
    broken = {
        "empty.wav": b"",
        "noise.flac": bytes(range(256)) * 20,
        "words.mp3": b"these are only words",
        "locked.wav": b"PK\x03\x04" + b"\x00" * 50,
        "paper.png": b"%PDF-1.7\n/Encrypt",
        "locked.mp4": b"Salted__" + bytes(range(200)),
    }
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
    bad = [*broken, "cut.wav", "missing.wav"]
    records: list[Record | Unusable] = [record(name, tmp_path / name) for name in bad]
    records.insert(3, record("good", good, asks=["?"]))
    records.append(Unusable("line 7", InputError("no JSON")))
    records.append(record("half", good, tmp_path / "empty.wav"))
    found = run(records)
    assert len(found) == len(records)
    assert found["good"]["error"] is None
    for name in (*bad, "line 7", "half"):
        assert found[name]["error"] is not None, name
        assert found[name]["media"] == []
    assert "0 bytes" in found["empty.wav"]["error"]["message"]
    assert "is a text" in found["words.mp3"]["error"]["message"]
    assert "ZIP" in found["locked.wav"]["error"]["message"]
    assert "encrypted" in found["locked.mp4"]["error"]["message"]
    assert found["cut.wav"]["error"]["code"] == "truncated"
    assert found["missing.wav"]["error"]["code"] == "not_found"


def test_content_counts_and_not_the_name(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "picture.txt", "png")
    write_wav(tmp_path / "sound.jpg", 1)
    found = run([record("p", tmp_path / "picture.txt"), record("s", tmp_path / "sound.jpg")])
    assert found["p"]["media"][0]["kind"] == "image"
    assert found["s"]["media"][0]["kind"] == "audio"


def test_a_record_is_not_held_up_by_the_ones_before_it(tmp_path):
    """More records than the queues hold, with and without sound, come out once each."""
    path = write_wav(tmp_path / "s.wav", 1)
    records = [
        record(str(i), path, asks=["?"]) if i % 3 else Record(str(i), (Medium("text", text="t"),))
        for i in range(90)
    ]
    found = run(records, Models(lambda text: "yes"))
    assert list(found) == sorted(found, key=list(found).index)
    assert len(found) == 90


def test_closing_early_ends_everything(tmp_path):
    path = write_wav(tmp_path / "s.wav", 1)
    read = []

    def endless() -> Iterator[Record]:
        while True:
            read.append(1)
            yield record(str(len(read)), path, asks=["?"])

    with Batch(Options(), Models(lambda text: "yes")) as batch:
        results = batch.run(endless())
        assert next(results)["answers"]
        results.close()
    assert len(read) < 100
    assert not [t for t in threading.enumerate() if t.name.startswith("omni-")]


def test_what_the_models_raise_comes_out(tmp_path):
    class Broken(Models):
        @property
        def sight(self):
            raise SystemExit("no weights")

    Image.new("RGB", (9, 9)).save(tmp_path / "p.png")
    with Batch(Options(), Broken()) as batch, pytest.raises(SystemExit):
        list(batch.run([record("p", tmp_path / "p.png")]))


def test_an_unknown_voice_is_told_before_any_work(tmp_path):
    models = Models()
    records = [record("s", write_wav(tmp_path / "s.wav", 1), asks=["?"])]
    with (
        Batch(Options(speak=tmp_path, voice="tenor"), models) as batch,
        pytest.raises(InputError, match=r"'tenor'.*alto, bass"),
    ):
        next(batch.run(records))
    assert models.loaded == set()


def test_an_answer_that_no_voice_can_say_is_told_and_the_batch_goes_on(tmp_path):
    answers = {"English?": "It is a cat.", "Chinese?": "这是一只猫。"}

    def script(text):
        return next(answer for ask, answer in answers.items() if text.endswith(ask))

    words = (Medium("text", text="t"),)
    records = [Record(ask, words, (ask,)) for ask in answers]
    found = run(records, Models(script), speak=tmp_path / "spoken")
    said = {ask: found[ask]["answers"][0] for ask in answers}
    assert [found[ask]["error"] for ask in answers] == [None] * 2
    assert Path(said["English?"]["speech"]).is_file()
    assert "'zh'" in said["Chinese?"]["warning"]
    assert "speech" not in said["Chinese?"]


def test_whatever_opening_a_file_raises_costs_that_file_only(tmp_path, monkeypatch):
    good, bad = write_wav(tmp_path / "good.wav", 1), write_wav(tmp_path / "bad.wav", 1)

    def has_sound(path, kind):
        if path == bad:
            raise RuntimeError("a codec fell over")
        return True

    monkeypatch.setattr("runtime.batch.pipeline.has_sound", has_sound)
    found = run([record("bad", bad), record("good", good)])
    assert "a codec fell over" in found["bad"]["error"]["message"]
    assert found["good"]["error"] is None


def test_stopping_before_the_first_record_is_not_lost(tmp_path):
    with Batch(Options(), Models()) as batch:
        batch.stop()
        assert list(batch.run([record("s", write_wav(tmp_path / "s.wav", 1))])) == []


def test_long_talk_is_read_in_parts_and_answered_from_notes():
    asked = []

    def script(text):
        asked.append(text)
        return "a note" if "part " in text else f"from {text.count('[Note')} notes"

    words = ". ".join(f"Sentence number {i} says something" for i in range(400))
    records = [Record("long", (Medium("text", text=words),), ("What is said?",))]
    found = run(records, Models(script, context=2048), max_tokens=64)
    answer = found["long"]["answers"][0]["answer"]
    notes = [text for text in asked if "part " in text]
    assert len(set(notes)) > 5
    assert answer == f"from {len(set(notes))} notes"
    for i in range(400):
        assert any(f"number {i} says" in text for text in notes), i


def test_what_cannot_be_made_to_fit_is_an_error():
    records = [Record("long", (Medium("text", text="word " * 3000),), ("?",))]
    echo = Models(lambda text: text[:1500], context=2048)
    found = run([*records, Record("b", (Medium("text", text="b"),), ("?",))], echo, max_tokens=900)
    assert found["b"]["answers"]
    assert "context" in found["long"]["error"]["message"] or found["long"]["answers"]


# --- moments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "seconds"),
    [
        ("What happens at 0:40?", [40.0]),
        ("What is said at 1:02:03 and 0:05?", [3723.0, 5.0]),
        ("What is shown after 90 seconds?", [90.0]),
        ("What happens at 1 minute and 20 seconds?", [80.0]),
        ("Who speaks in the 3rd minute?", [180.0]),
        ("Who won by 20 seconds?", []),
        ("What happens?", []),
    ],
)
def test_moments_are_read_from_questions(question, seconds):
    assert moments(question) == seconds


def talk():
    segments = tuple(Segment(f"word{i}", 10.0 * i, 10.0 * i + 5) for i in range(20))
    transcript = Transcript("x", "en", 200.0, segments=segments)
    return Perceived(Medium("audio"), "audio", transcript)


def test_a_question_about_a_moment_is_answered_from_what_is_near_it():
    prompt = next(ask([talk()], "What is said at 1:44?", lambda messages: True, None))
    lines = prompt[-1].text.splitlines()[:-2]
    assert lines == ['[1:40-1:45] somebody says: "word10"', '[1:50-1:55] somebody says: "word11"']
    everything = next(ask([talk()], "What is said?", lambda messages: True, None))
    assert len(everything[-1].text.splitlines()) == 22


def test_speakers_stand_in_what_the_model_reads():
    said = Transcript("Hi. Yes.", "en", 3.0, segments=(Segment("Hi.", 0.2, 1.0, speaker="1"),))
    lines = list(by_time(Perceived(Medium("audio"), "audio", said).lines()))
    assert lines == ['[0:00-0:01] speaker 1 says: "Hi."']
    assert near([(0.0, 1.0, "a"), (100.0, 101.0, "b")], [104.0]) == [(100.0, 101.0, "b")]


def test_clips_of_any_length_are_looked_at_a_few_frames_at_a_time(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for i in range(60):
            level = 200 if i >= 30 else 20
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, "u1"), "rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    most = 0

    class Counting(Sight):
        def encode(self, frames):
            nonlocal most
            most = max(most, len(frames))
            return [
                Span("image", "light" if f.pixels.mean() > 99 else "dark", times=(f.time, f.time))
                for f in frames
            ]

    assert kind_of_file(path) == "video"
    dark, light = look(path, "video", Counting())
    assert (dark.text, light.text) == ("From 0 s to 6 s: dark", "From 6 s to 12 s: light")
    assert light.times == pytest.approx((6.0, 11.8), abs=0.6)
    assert most <= 4
