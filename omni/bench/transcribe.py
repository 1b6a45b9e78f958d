"""``omni bench transcribe``: how fast recordings become words, and how right they are.

All systems run the same weights (whisper-base) on the same sound in the same run, greedily, with
the same number of threads; the language is detected. The time is that of all recordings, without
loading a model and without reading the files.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from omni.errors import MissingExtraError
from omni.types import AudioChunk, Clause, Pcm
from omni.wer import edits, words

if TYPE_CHECKING:
    from encoders.audio import WhisperEncoder
    from omni.types import SpeechDecoder

RATE = 16_000
_PAUSES = (0.2, 0.4, 0.7, 1.2)
"""Seconds between the sentences of a recording, in turn."""
_VOICES = ("am_michael", "bf_emma")
_PER_RECORDING = 4
_BATCHES = (8, 16)
"""Batch sizes that faster-whisper is tried with; its best counts."""

System = Callable[[Sequence[Pcm]], list[str]]


@dataclass(frozen=True, slots=True)
class Sample:
    """A recording at 16 kHz, with what is said in it where that is known."""

    name: str
    pcm: Pcm
    text: str | None


def run(files: Sequence[Path], *, against: bool, minutes: float, threads: int) -> dict[str, Any]:
    """Transcribe ``files``, or the default material, with each system."""
    from encoders.audio import WhisperEncoder
    from omni.weights import ensure

    path = ensure("whisper-base")
    systems = _others(path, threads) if against else {}
    samples = [_read(file) for file in files] or list(material(minutes))
    one = WhisperEncoder(path, WhisperEncoder.Config(threads=threads))
    together = WhisperEncoder(path, WhisperEncoder.Config(threads=1, workers=threads))
    ours: dict[str, System] = {
        "omni, batched": partial(_batched, together),
        "omni, one at a time": partial(_one_by_one, one),
    }
    warm_up = samples[0].pcm[: 10 * RATE]
    rows = []
    for name, system in (ours | systems).items():
        system([warm_up])
        rows.append(measure(name, system, samples))
    seconds = sum(len(sample.pcm) for sample in samples) / RATE
    return {
        "recordings": len(samples),
        "seconds": round(seconds, 1),
        "longest_s": round(max(len(sample.pcm) for sample in samples) / RATE, 1),
        "threads": threads,
        "systems": rows,
    }


def measure(name: str, system: System, samples: Sequence[Sample]) -> dict[str, Any]:
    """One row: wall and processor time, times real time, and word error rate."""
    if sys.stderr.isatty():
        print(f"{name} …", file=sys.stderr)
    began, cpu = time.perf_counter(), time.process_time()
    texts = system([sample.pcm for sample in samples])
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    seconds = sum(len(sample.pcm) for sample in samples) / RATE
    known = [
        (words(sample.text), words(text))
        for sample, text in zip(samples, texts, strict=True)
        if sample.text is not None
    ]
    said = sum(len(reference) for reference, _ in known)
    return {
        "system": name,
        "seconds": round(took, 2),
        "cpu_seconds": round(cpu, 2),
        "real_time_factor": round(took / seconds, 4),
        "times_real_time": round(seconds / took, 1),
        "word_error_rate": round(sum(edits(*pair) for pair in known) / said, 4) if said else None,
    }


def render(result: dict[str, Any]) -> str:
    """The result as a table."""
    first = result["systems"][0]["seconds"]
    lines = [
        f"{result['recordings']} recordings, {result['seconds'] / 60:.1f} minutes, the longest "
        f"{result['longest_s'] / 60:.1f}; whisper-base, {result['threads']} threads",
        f"{'':28}{'x real time':>12}{'RTF':>8}{'CPU s':>8}{'WER':>8}{'time':>8}",
    ]
    for row in result["systems"]:
        rate = row["word_error_rate"]
        lines.append(
            f"{row['system']:28}{row['times_real_time']:12.1f}{row['real_time_factor']:8.3f}"
            f"{row['cpu_seconds']:8.1f}{'' if rate is None else f'{rate:.1%}':>8}"
            f"{row['seconds'] / first:8.2f}"
        )
    return "\n".join(lines)


# The sound


def _read(file: Path) -> Sample:
    """``file``, with the words of the text file beside it as what is said."""
    from encoders.media import read_audio

    text = file.with_suffix(".txt")
    said = text.read_text(encoding="utf-8") if text.is_file() else None
    return Sample(file.name, read_audio(file, RATE, max_seconds=86_400).pcm, said)


def sentences() -> list[str]:
    """The sentences that are spoken."""
    text = resources.files("omni.bench").joinpath("sentences.txt").read_text(encoding="utf-8")
    return text.splitlines()


def material(minutes: float) -> Iterator[Sample]:
    """The recorded questions, recordings in three voices, and one of at least ``minutes``."""
    from decoders.kokoro import KokoroVoice
    from decoders.voices import HibariVoice
    from encoders.media import Resampler
    from omni.bench.voice import questions
    from omni.weights import ensure

    def at_rate(pcm: Pcm, rate: int) -> Pcm:
        resampler = Resampler(rate, RATE)
        return np.concatenate([resampler.feed(pcm), resampler.flush()])

    def say(voice: SpeechDecoder, text: str, name: str | None = None, speed: float = 1.0) -> Pcm:
        spoken = list(voice.speak(Clause(text), voice=name, speed=speed))
        return at_rate(np.concatenate([c.pcm for c in spoken]), spoken[0].sample_rate)

    for number, (text, clip) in enumerate(questions(), 1):
        yield Sample(f"question {number}", at_rate(clip.pcm, clip.sample_rate), text)
    texts = sentences()
    hibari = HibariVoice()
    kokoro = KokoroVoice(lambda: ensure("kokoro-82m"), english=hibari.phonemes)
    for index, name in enumerate(_VOICES):
        group = texts[index * 2 * _PER_RECORDING :][: 2 * _PER_RECORDING]
        for begin in range(0, len(group), _PER_RECORDING):
            part = group[begin : begin + _PER_RECORDING]
            yield recording(f"{name} {begin}", [(t, say(kokoro, t, name)) for t in part])
    spoken: list[tuple[str, Pcm]] = []
    speed = 1.0
    while sum(len(pcm) for _, pcm in spoken) < minutes * 60 * RATE:
        for text in texts:
            spoken.append((text, say(hibari, text, speed=speed)))
        speed = 0.9 if speed == 1.0 else speed + 0.05
    for begin in range(0, len(texts), _PER_RECORDING):
        yield recording(f"hibari {begin}", spoken[begin : begin + _PER_RECORDING])
    yield recording("long", spoken)


def recording(name: str, spoken: Sequence[tuple[str, Pcm]]) -> Sample:
    """Sentences one after the other, with pauses."""
    parts: list[Pcm] = []
    for index, (_, pcm) in enumerate(spoken):
        silence = np.zeros(int(_PAUSES[index % len(_PAUSES)] * RATE), np.float32)
        parts += [pcm.astype(np.float32), silence]
    return Sample(name, np.concatenate(parts), " ".join(text for text, _ in spoken))


# The systems


def _chunks(pcm: Pcm) -> Iterator[AudioChunk]:
    for begin in range(0, len(pcm), RATE):
        yield AudioChunk(pcm[begin : begin + RATE], RATE, begin)


def _batched(whisper: WhisperEncoder, sounds: Sequence[Pcm]) -> list[str]:
    from encoders.batch import BatchTranscriber, Recording

    recordings = (Recording(str(i), _chunks(pcm)) for i, pcm in enumerate(sounds))
    texts = {}
    with BatchTranscriber(whisper).transcribe(recordings) as results:
        for key, result in results:
            if isinstance(result, Exception):
                raise result
            texts[key] = result.text
    return [texts[str(i)] for i in range(len(sounds))]


def _one_by_one(whisper: WhisperEncoder, sounds: Sequence[Pcm]) -> list[str]:
    return [whisper.transcribe_long(_chunks(pcm)).text for pcm in sounds]


def _others(path: Path, threads: int) -> dict[str, System]:
    """The other programs with the same weights; MissingExtraError when they are not installed."""
    try:
        faster_whisper: Any = import_module("faster_whisper")
        whisper: Any = import_module("whisper")
    except ImportError as error:
        raise MissingExtraError(
            f"{error.name} is not installed; --against needs: pip install faster-whisper and "
            "pip install --no-deps openai-whisper, with tiktoken, numba and more-itertools"
        ) from None
    import torch

    from omni.bench.ct2 import torch_whisper

    torch.set_num_threads(threads)
    model = faster_whisper.WhisperModel(
        str(path), device="cpu", compute_type="int8", cpu_threads=threads
    )
    pipeline = faster_whisper.BatchedInferencePipeline(model=model)
    reference = torch_whisper(path)

    def faster(batch: int, sounds: Sequence[Pcm]) -> list[str]:
        heard = (pipeline.transcribe(s, batch_size=batch, beam_size=1)[0] for s in sounds)
        return [" ".join(segment.text for segment in segments) for segments in heard]

    def openai(sounds: Sequence[Pcm]) -> list[str]:
        return [str(whisper.transcribe(reference, pcm, fp16=False)["text"]) for pcm in sounds]

    systems: dict[str, System] = {
        f"faster-whisper, batches of {batch}": partial(faster, batch) for batch in _BATCHES
    }
    return systems | {"openai-whisper": openai}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
