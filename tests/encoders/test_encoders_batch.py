import threading
from itertools import pairwise

import numpy as np
import pytest

from encoders.audio import WhisperEncoder
from encoders.batch import BatchTranscriber, Recording
from encoders.whisper import Attempt
from omni.errors import InputError, MediaError
from omni.types import AudioChunk

RATE = 16_000


class LoudVad:
    """Somebody speaks where it is loud."""

    def stream(self):
        held = np.zeros(0, np.float32)

        class Stream:
            def feed(self, pcm):
                nonlocal held
                held = np.concatenate([held, pcm])
                frames = len(held) // 512
                loud = np.abs(held[: frames * 512]).reshape(frames, 512).max(axis=1) > 0.01
                held = held[frames * 512 :]
                return list(loud.astype(float))

        return Stream()


class BurstModel:
    """Hears bursts of noise: their lengths in tenths of a second, one token each."""

    def __init__(self):
        self.languages = {"en": 1, "de": 2}
        self.batches = []

    direct = frozenset()

    def text(self, tokens):
        return "".join(f" {token}" for token in tokens)

    def attempt(self, windows):
        self.batches.append(windows)
        return [self._one(window) for window in windows]

    def _one(self, window):
        loud = np.concatenate([[False], window.mel.max(axis=0) > window.mel.max() - 1.0, [False]])
        edges = np.flatnonzero(loud[1:] != loud[:-1]).reshape(-1, 2)
        tokens = [round((end - begin) / 10) for begin, end in edges]
        starts = [begin / 100 for begin, _ in edges] + [edges[-1][1] / 100]
        unsure = 3 in tokens and window.language is None  # a short burst could be German
        whole = not (7 in tokens and window.mel.shape[1] < 1000)  # this one loops
        code = window.language or ("de" if unsure else "en")
        return Attempt(
            tokens, 0.9, 0.0, code, not unsure, whole, starts, [0.9] * len(tokens), self.text
        )


class BurstWhisper(WhisperEncoder):
    def __init__(self, **config):
        self.config = self.Config(workers=2, **config)
        self.model = BurstModel()
        self._vad = LoudVad()


def bursts(*tenths, pause=1.5):
    """Noise of the given lengths, as chunks of uneven size, made while they are read."""
    rng = np.random.default_rng(0)
    silence = np.zeros(int(pause * RATE), np.float32)
    for length in tenths:
        noise = rng.uniform(-0.5, 0.5, length * RATE // 10).astype(np.float32)
        yield AudioChunk(silence, RATE)
        for part in np.array_split(noise, 2):
            yield AudioChunk(part, RATE)
    yield AudioChunk(silence, RATE)


def transcribe(whisper, *recordings, **config):
    batcher = BatchTranscriber(whisper, BatchTranscriber.Config(**config))
    with batcher.transcribe(recordings) as results:
        return dict(results), results.seconds


def test_each_recording_gets_all_its_words_in_order():
    rng = np.random.default_rng(1)
    lengths = {str(key): [int(n) for n in rng.integers(8, 30, 12)] for key in range(6)}
    whisper = BurstWhisper()
    recordings = [Recording(key, bursts(*said), times=True) for key, said in lengths.items()]
    found, seconds = transcribe(whisper, *recordings, batch=4, round_seconds=20, ahead_seconds=40)
    for key, said in lengths.items():
        heard = found[key]
        for word, length in zip(heard.text.split(), said, strict=True):
            assert int(word) == pytest.approx(length, abs=1)
        assert heard.seconds == pytest.approx(sum(said) / 10 + 13 * 1.5, abs=0.01)
        onset = 1.5
        for word, length in zip(heard.words, said, strict=True):
            assert word.start == pytest.approx(onset, abs=0.07)
            onset += length / 10 + 1.5
    assert seconds == pytest.approx(sum(found[key].seconds for key in found))
    for batch in whisper.model.batches:
        assert len(batch) <= 4
        assert len({window.mel.shape for window in batch}) == 1
    assert max(len(batch) for batch in whisper.model.batches) == 4


def test_one_bad_recording_costs_one_error():
    def broken():
        yield from bursts(10, 12)
        raise MediaError("the recording is damaged")

    def crashing():
        yield from bursts(10)
        raise RuntimeError("a decoder crashed")

    found, _ = transcribe(
        BurstWhisper(),
        Recording("damaged", broken()),
        Recording("good", bursts(10, 20)),
        Recording("crashed", crashing()),
        Recording("rate", [AudioChunk(np.zeros(900, np.float32), 24_000)]),
        Recording("language", bursts(10), "xx"),
        Recording("silent", [AudioChunk(np.zeros(90_000, np.float32), RATE)]),
        Recording("empty", []),
        Recording("last", bursts(15), "de-AT"),
    )
    assert str(found["damaged"]) == "the recording is damaged"
    assert "a decoder crashed" in str(found["crashed"])
    assert isinstance(found["rate"], MediaError)
    assert isinstance(found["language"], InputError)
    assert len(found["good"].text.split()) == 2
    assert (found["silent"].text, found["silent"].seconds) == ("", 90_000 / RATE)
    assert found["empty"].seconds == 0
    assert (found["last"].language, len(found["last"].text.split())) == ("de", 1)


def test_an_unsure_language_gives_way_to_the_one_heard_before_in_that_recording():
    found, _ = transcribe(
        BurstWhisper(),
        Recording("english", bursts(20, 3, 20, pause=6.0)),
        Recording("unknown", bursts(3, pause=6.0)),
    )
    assert found["english"].language == "en"
    assert found["unknown"].language == "de"


def test_a_doubtful_piece_is_heard_again_in_a_longer_window():
    whisper = BurstWhisper()
    found, _ = transcribe(whisper, Recording("a", bursts(20, 7, 21, 7, pause=6.0)))
    assert len(found["a"].text.split()) == 4
    lengths = [[window.mel.shape[1] for window in batch] for batch in whisper.model.batches]
    assert lengths == [[600] * 4, [1000] * 2]


def test_closing_ends_the_threads_and_the_recordings():
    ended = threading.Event()

    def endless():
        try:
            while True:
                yield from bursts(10)
        finally:
            ended.set()

    results = BatchTranscriber(BurstWhisper()).transcribe(
        [Recording("short", bursts(10)), Recording("endless", endless())]
    )
    assert next(results)[0] == "short"
    closer = threading.Thread(target=results.close)
    closer.start()
    assert list(results) == []
    closer.join(10)
    assert not closer.is_alive()
    assert ended.is_set()
    assert not [t for t in threading.enumerate() if t.name.startswith("omni-")]


def test_what_the_list_of_recordings_raises_comes_after_what_was_read():
    def listed():
        yield Recording("a", bursts(10))
        raise InputError("line 2 of the manifest is broken")

    heard = []
    with (
        pytest.raises(InputError, match="line 2"),
        BatchTranscriber(BurstWhisper()).transcribe(listed()) as results,
    ):
        heard.extend(key for key, _ in results)
    assert heard == ["a"]


def test_recordings_that_wait_for_results_are_not_waited_for():
    done = threading.Event()

    def listed():
        yield Recording("a", bursts(10))
        assert done.wait(20)
        yield Recording("b", bursts(10))

    with BatchTranscriber(BurstWhisper()).transcribe(listed()) as results:
        assert next(results)[0] == "a"
        done.set()
        assert [key for key, _ in results] == ["b"]


def test_an_hour_of_sound_is_never_held_as_a_whole():
    made = 0.0
    held = []
    ready = threading.Event()

    def hour():
        nonlocal made
        ready.wait(10)
        for chunk in bursts(*[20] * 600, pause=4.0):
            made += chunk.seconds
            held.append(made - results.seconds)
            yield chunk

    config = BatchTranscriber.Config(round_seconds=20, ahead_seconds=60)
    whisper = BurstWhisper(min_seconds=2.5, margin=0.0)  # short windows are quicker to compute
    results = BatchTranscriber(whisper, config).transcribe([Recording("hour", hour())])
    ready.set()
    with results:
        [(_, heard)] = list(results)
    assert made == pytest.approx(3604)
    assert heard.text.split() == ["20"] * 600
    # Half of it counts as speech: what is read ahead, the round that is decoded, a piece of each.
    assert max(held) < 2.5 * (60 + 60 + 2 * 8)
    assert results.seconds == pytest.approx(3604)
    assert len(held) > 1000


# With the real model


@pytest.fixture(scope="module")
def spoken():
    """Sentences and their sound, by the assistant's own English voice."""
    from decoders.voices import HibariVoice
    from encoders.media import Resampler
    from omni.bench.transcribe import sentences
    from omni.types import Clause

    voice = HibariVoice()
    found = []
    for text in sentences()[:22]:
        resampler = Resampler(24_000, RATE)
        pcm = [resampler.feed(chunk.pcm) for chunk in voice.speak(Clause(text))]
        found.append((text, np.concatenate([*pcm, resampler.flush()])))
    return found


@pytest.mark.e2e
def test_no_word_is_lost_or_doubled_at_the_cuts_of_a_long_file(spoken):
    from omni.weights import ensure
    from omni.wer import edits, words

    whisper = WhisperEncoder(ensure("whisper-base"))
    whole, onsets, pauses = [], [], (0.1, 0.3, 0.6, 1.5)
    at = 0
    for index, (_, pcm) in enumerate(spoken):
        silence = np.zeros(int(pauses[index % 4] * RATE), np.float32)
        onsets.append((at + int(np.flatnonzero(np.abs(pcm) > 0.02)[0])) / RATE)
        at += len(pcm) + len(silence)
        whole += [pcm, silence]
    sound = AudioChunk(np.concatenate(whole), RATE)
    others = [Recording(str(i), [AudioChunk(pcm, RATE)]) for i, (_, pcm) in enumerate(spoken)]
    found, _ = transcribe(whisper, Recording("long", [sound], times=True), *others)
    heard = found["long"]

    one_by_one = whisper.transcribe_long(sound, times=True)
    assert heard.text == one_by_one.text
    assert heard.segments == one_by_one.segments

    told = words(" ".join(text for text, _ in spoken))
    alone = words(" ".join(found[str(i)].text for i in range(len(spoken))))
    together = words(heard.text)
    assert len(together) == len(alone)
    assert edits(alone, together) <= 2
    assert edits(told, together) < 0.03 * len(told)

    assert [word.text for word in heard.words] == heard.text.split()
    assert all(a.start <= a.end <= b.start + 0.01 for a, b in pairwise(heard.words))
    starts = np.array([word.start for word in heard.words])
    assert max(np.abs(starts - onset).min() for onset in onsets) < 0.2
