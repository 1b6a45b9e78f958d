"""Who speaks when: voices told apart in a recording of any length.

A voice is a point on the unit sphere: the embedding of 1.6 s of speech by Resemblyzer's network
(three LSTM layers, trained as in Wan et al., "Generalized end-to-end loss for speaker
verification", arXiv 1710.10467). Windows slide over the speech, average-linkage clustering finds
the voices, and what is closest to which voice, with a price for changing, gives the turns. One
pass; an hour of speech keeps 5 MB of embeddings.

>>> encoder = SpeakerEncoder(ensure("resemblyzer"))  # doctest: +SKIP
>>> stream = encoder.stream()  # doctest: +SKIP
>>> for chunk in sound:  # doctest: +SKIP
...     stream.feed(chunk)
>>> label(transcript, stream.finish())  # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.mel import HOP, N_FFT, RATE, mel_filters
from encoders.vad import FRAME, SileroVad, VadStream, onnx_session
from omni.errors import InputError, MediaError, WeightsError
from omni.types import AudioChunk, Pcm, Segment, Transcript, Word

Floats = NDArray[np.float32]

BANDS = 40
WINDOW = 160
"""Mel frames of 10 ms that the network was trained on."""
_LEVEL = 10 ** (-30 / 20)
"""Root mean square to which quieter speech is raised, as in training."""
_SPEECH, _STILL = 0.5, 0.35
_PAUSE, _SHORTEST, _LONGEST = 8, 8, 600
"""Frames of 32 ms: silence that ends a run of speech; a run that has a voice; the longest run."""
_JOIN = 1.0
"""Seconds of silence within a turn."""
_POOL = 1000
"""Clusters at most in one linkage, which takes quadratic time; beyond, the closest are merged."""


@dataclass(frozen=True, slots=True)
class SpeakerTurn:
    """``speaker`` ("1", "2", … in order of appearance) speaks from ``start`` to ``end`` seconds."""

    speaker: str
    start: float
    end: float


class SpeakerEncoder:
    """The network; one instance serves all recordings, each with its own :class:`SpeakerStream`."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        ``step`` is the distance of two windows in seconds. Clusters of windows whose mean cosine
        is at least ``same`` are one voice. A voice has at least ``least`` seconds of speech and
        ``share`` of all of it; what is less (interjections, laughter) goes to the nearest.
        ``change`` is the price of a change of speaker inside a run of speech, in cosines.
        """

        threads: int = 2
        step: float = 0.4
        same: float = 0.67
        least: float = 1.0
        share: float = 0.01
        change: float = 0.2
        batch: int = 32

    def __init__(self, path: Path, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._session = onnx_session(resemblyzer_onnx(load_state(path)), self.config.threads)
        self._vad = SileroVad()

    def stream(self) -> SpeakerStream:
        """A fresh recording."""
        return SpeakerStream(self, self._vad.stream())

    def embed(self, mels: Floats) -> Floats:
        """The voices of windows (B, 160, 40) of :func:`voice_mel`: unit vectors (B, 256)."""
        raw: Floats = self._session.run(["voice"], {"mels": mels.transpose(1, 0, 2)})[0]
        raw /= np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-6)
        return raw


class SpeakerStream:
    """One recording, fed as it is read; :meth:`finish` tells who spoke when."""

    def __init__(self, encoder: SpeakerEncoder, vad: VadStream) -> None:
        self._encoder = encoder
        self._vad = vad
        self._start = 0  # sample of the first that is held
        self._held = np.zeros(0, np.float32)
        self._levels = np.zeros(0, np.float32)  # voice activity of the whole frames held
        self._runs: list[_Run] = []
        self._waiting: list[tuple[Floats, float]] = []  # mel and weight of windows to be embedded
        self._voices: list[NDArray[np.float16]] = []
        self._clusters = _Clusters()

    def feed(self, chunk: AudioChunk) -> None:
        """Take the next piece of the recording; MediaError unless it is mono at 16 kHz."""
        if chunk.sample_rate != RATE or chunk.pcm.ndim != 1:
            raise MediaError(
                f"audio has shape {chunk.pcm.shape} at {chunk.sample_rate} Hz; speakers are told "
                f"apart in mono sound at {RATE} Hz: resample it with encoders.media.Resampler",
                param="sample_rate",
            )
        for begin in range(0, len(chunk.pcm), RATE):
            pcm = chunk.pcm[begin : begin + RATE]
            self._held = np.concatenate([self._held, pcm])
            heard = np.array(self._vad.feed(pcm), np.float32)
            self._levels = np.concatenate([self._levels, heard])
            self._advance()

    def finish(self, count: int | None = None) -> list[SpeakerTurn]:
        """End the recording: its turns in order, by ``count`` speakers or as many as are heard.

        Fewer than ``count`` are found where fewer voices can be told apart. InputError for a
        ``count`` below 1.
        """
        if count is not None and count < 1:
            raise InputError(f"there cannot be {count} speakers; give 1 or more", param="count")
        self._advance(ended=True)
        self._embed()
        if not self._voices:
            return []
        config = self._encoder.config
        least = max(config.least, config.share * self._clusters.seconds)
        centres = self._clusters.centres(config.same, least, count)
        return _turns(self._runs, np.concatenate(self._voices), centres, config.change)

    def _advance(self, ended: bool = False) -> None:
        """Take the runs of speech that have ended out of what is held, and drop silence."""
        while True:
            speech = np.flatnonzero(self._levels >= _SPEECH)
            self._drop(int(speech[0]) if len(speech) else len(self._levels))
            end = _run_end(self._levels, ended) if len(self._levels) else 0
            if not end:
                return
            if end >= _SHORTEST:
                self._cut(self._held[: end * FRAME])
            self._drop(end)

    def _drop(self, frames: int) -> None:
        self._levels = self._levels[frames:]
        self._held = self._held[frames * FRAME :]
        self._start += frames * FRAME

    def _cut(self, pcm: Pcm) -> None:
        """Slide windows over a run of speech that begins with what is held."""
        level = float(np.sqrt(np.mean(pcm**2)))
        mel = voice_mel(pcm * max(1.0, _LEVEL / max(level, 1e-6)))
        if len(mel) < WINDOW:
            mel = np.resize(mel, (WINDOW, BANDS))  # repeated
        step = self._encoder.config.step * RATE / HOP
        spare = len(mel) - WINDOW
        begins = np.linspace(0, spare, 1 + math.ceil(spare / step)).round().astype(int)
        start, seconds = self._start / RATE, len(pcm) / RATE
        # The embedding of much less than a window is unsure: it founds no voice.
        weight = seconds / len(begins) * min(1.0, seconds * RATE / HOP / WINDOW) ** 2
        self._waiting += [(mel[begin : begin + WINDOW], weight) for begin in begins]
        self._runs.append(_Run(start, start + seconds, len(begins)))
        while len(self._waiting) >= self._encoder.config.batch:
            self._embed()

    def _embed(self) -> None:
        batch = self._waiting[: self._encoder.config.batch]
        del self._waiting[: len(batch)]
        if batch:
            voices = self._encoder.embed(np.stack([mel for mel, _ in batch]))
            self._voices.append(voices.astype(np.float16))
            self._clusters.add(voices, np.array([seconds for _, seconds in batch], np.float32))


@dataclass(frozen=True, slots=True)
class _Run:
    """Speech without a pause, in seconds, and how many windows lie evenly over it."""

    start: float
    end: float
    windows: int

    def between(self, window: int) -> float:
        """The middle between the centres of ``window`` and of the one before it."""
        width = WINDOW * HOP / RATE
        step = (self.end - self.start - width) / max(1, self.windows - 1)
        return self.start + width / 2 + (window - 0.5) * step


class _Clusters:
    """Average-linkage clustering by cosine, in bounded memory.

    The mean cosine between two clusters of unit vectors is the product of their sums over the
    product of their sizes, so sums (N, D) and sizes (N,) are all that is kept; a vector weighs as
    many seconds as it stands for.
    """

    def __init__(self) -> None:
        self._sums = np.zeros((0, 0), np.float32)
        self._sizes = np.zeros(0, np.float32)

    @property
    def seconds(self) -> float:
        """The weight of all vectors together."""
        return float(self._sizes.sum())

    def add(self, voices: Floats, seconds: Floats) -> None:
        """Take unit vectors (B, D) and their weights (B,)."""
        weighted = voices * seconds[:, None]
        self._sums = np.concatenate([self._sums.reshape(-1, voices.shape[1]), weighted])
        self._sizes = np.concatenate([self._sizes, seconds])
        if len(self._sizes) > _POOL:
            merges = self._merges()
            for _ in range(len(self._sizes) - _POOL // 2):
                next(merges)
            alive = self._sizes > 0
            self._sums, self._sizes = self._sums[alive], self._sizes[alive]

    def centres(self, same: float, least: float, count: int | None) -> Floats:
        """The voices, unit vectors (K, D): clusters of ``least`` seconds, or the largest.

        Merged while the two closest have a cosine of ``same``; with ``count``, as far as leaves
        that many.
        """
        found = self._sums[:0]
        for cosine in self._merges():
            large = self._sizes >= least
            if count is None and cosine < same:
                break
            if count is not None and len(found) <= large.sum() <= count:
                found = self._sums[large]
        if count is None:
            found = self._sums[self._sizes >= least]
        if not len(found):
            found = self._sums[[self._sizes.argmax()]]
        centres: Floats = found / np.linalg.norm(found, axis=1, keepdims=True)
        return centres

    def _merges(self) -> Iterator[float]:
        """The cosine of the two closest clusters, which are merged when the next is asked for."""
        cosines = self._sums @ self._sums.T / np.outer(self._sizes, self._sizes)
        np.fill_diagonal(cosines, -2.0)
        nearest = cosines.argmax(axis=1)
        closest = cosines.max(axis=1)
        for _ in range(len(self._sizes) - 1):
            i = int(closest.argmax())
            j = int(nearest[i])
            yield float(closest[i])
            self._sums[i] += self._sums[j]
            self._sizes[i] += self._sizes[j]
            self._sizes[j] = 0.0
            others = self._sizes > 0
            others[i] = False
            row = np.full(len(others), -2.0, np.float32)
            row[others] = self._sums[others] @ self._sums[i] / self._sizes[others] / self._sizes[i]
            cosines[i], cosines[:, i] = row, row
            cosines[j], cosines[:, j] = -2.0, -2.0
            stale = (nearest == i) | (nearest == j)
            stale[i] = True
            nearest[stale] = cosines[stale].argmax(axis=1)
            closest[stale] = cosines[stale].max(axis=1)
            closest[j] = -2.0


def _run_end(levels: Floats, ended: bool) -> int:
    """How many frames of ``levels`` are a run of speech that has ended; 0: it goes on."""
    silent = np.convolve(levels < _STILL, np.ones(_PAUSE))[_PAUSE - 1 :] == _PAUSE
    if silent.any():
        return min(int(silent.argmax()), _LONGEST)
    if len(levels) >= _LONGEST:
        return _LONGEST
    return len(levels) if ended else 0


def _turns(
    runs: Sequence[_Run], voices: NDArray[np.float16], centres: Floats, change: float
) -> list[SpeakerTurn]:
    """Who speaks in each run of speech; runs of one speaker with a short pause are one turn."""
    turns: list[SpeakerTurn] = []
    names: dict[int, str] = {}
    done = 0
    for run in runs:
        cosines = voices[done : done + run.windows].astype(np.float32) @ centres.T
        done += run.windows
        who = _path(cosines, change)
        cuts = [0, *(i for i in range(1, len(who)) if who[i] != who[i - 1]), len(who)]
        edges = [run.start, *(run.between(i) for i in cuts[1:-1]), run.end]
        for cut, (start, end) in zip(cuts, pairwise(edges), strict=False):
            name = names.setdefault(who[cut], str(len(names) + 1))
            if turns and turns[-1].speaker == name and start - turns[-1].end < _JOIN:
                start = turns.pop().start
            turns.append(SpeakerTurn(name, round(start, 2), round(end, 2)))
    return turns


def _path(cosines: Floats, change: float) -> list[int]:
    """The column of each row (W, K) for the greatest sum, less ``change`` for every change."""
    best, came = cosines[0], []
    for row in cosines[1:]:
        top = int(best.argmax())
        stay = best >= best[top] - change
        came.append(np.where(stay, np.arange(len(best)), top))
        best = np.where(stay, best, best[top] - change) + row
    path = [int(best.argmax())]
    for back in reversed(came):
        path.append(int(back[path[-1]]))
    return path[::-1]


def label(transcript: Transcript, turns: Sequence[SpeakerTurn]) -> Transcript:
    """``transcript`` with the speaker of every word and segment, as far as there are turns.

    A word is its nearest turn's, a segment that of the speaker who has most of it.
    """
    if not turns:
        return transcript

    def whose(part: Word | Segment) -> str:
        shares: dict[str, float] = {}
        for turn in turns:
            overlap = min(part.end, turn.end) - max(part.start, turn.start)
            if overlap > 0:
                shares[turn.speaker] = shares.get(turn.speaker, 0.0) + overlap
        if shares:
            return max(shares, key=lambda name: shares[name])
        middle = (part.start + part.end) / 2
        return min(turns, key=lambda t: max(t.start - middle, middle - t.end)).speaker

    return replace(
        transcript,
        words=tuple(replace(word, speaker=whose(word)) for word in transcript.words),
        segments=tuple(replace(part, speaker=whose(part)) for part in transcript.segments),
    )


def voice_mel(pcm: Pcm) -> Floats:
    """The network's input: mel power of 25 ms every 10 ms, zeros at both ends, (frames, 40)."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(pcm, N_FFT // 2), N_FFT)[::HOP]
    spectrum = np.fft.rfft(windows * np.hanning(N_FFT + 1)[:-1], axis=-1)
    return ((spectrum.real**2 + spectrum.imag**2) @ mel_filters(BANDS)).astype(np.float32)


def load_state(path: Path) -> dict[str, Floats]:
    """The weights in Resemblyzer's checkpoint as arrays; WeightsError when it is something else."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        return {name: value.float().numpy() for name, value in state.items()}
    except Exception as error:  # torch.load raises nearly anything on a broken file
        raise WeightsError(
            f"{path} is not the checkpoint of Resemblyzer ({error}); "
            "fetch it again with: omni models pull resemblyzer"
        ) from error


def resemblyzer_onnx(state: Mapping[str, Floats]) -> bytes:
    """The network as ONNX, which runs it several times faster than PyTorch on a CPU.

    mels (160, B, 40) -> voice (B, 256), not yet of unit length. WeightsError when a weight is
    missing.
    """
    from onnx import helper, numpy_helper

    nodes: list[Any] = []
    weights: list[Any] = []

    def add(name: str, array: Floats) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def gates(array: Floats) -> Floats:
        """PyTorch's order (input, forget, cell, output) -> ONNX's (input, output, forget, cell)."""
        i, f, c, o = np.split(array, 4)
        return np.concatenate([i, o, f, c])

    try:
        x = "mels"
        for layer in range(3):
            w, r, b, c = (
                gates(state[f"lstm.{name}_l{layer}"])
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            inputs = [
                x,
                add(f"w{layer}", w[None]),
                add(f"r{layer}", r[None]),
                add(f"b{layer}", np.concatenate([b, c])[None]),
            ]
            outputs = [f"all{layer}", f"last{layer}"]
            nodes.append(helper.make_node("LSTM", inputs, outputs, hidden_size=r.shape[1]))
            x = f"x{layer}"
            nodes.append(helper.make_node("Squeeze", [f"all{layer}", "axis"], [x]))
        weights.append(numpy_helper.from_array(np.array([1]), "axis"))
        weights.append(numpy_helper.from_array(np.array([0]), "first"))
        nodes.append(helper.make_node("Squeeze", ["last2", "first"], ["state"]))
        linear = [add("w", state["linear.weight"]), add("b", state["linear.bias"])]
        nodes.append(helper.make_node("Gemm", ["state", *linear], ["linear"], transB=1))
        nodes.append(helper.make_node("Relu", ["linear"], ["voice"]))
    except KeyError as error:
        raise WeightsError(f"the checkpoint has no {error}; it is not Resemblyzer's") from None
    mels = helper.make_tensor_value_info("mels", 1, ["frames", "batch", BANDS])
    voice = helper.make_tensor_value_info("voice", 1, ["batch", "size"])
    graph = helper.make_graph(nodes, "resemblyzer", [mels], [voice], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
