"""Tiny parts that behave: small, exact stand-ins for the models, for unit tests only."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch

from omni import events as ev
from omni.llm.cache import Output
from omni.llm.tools import HERMES
from omni.types import AudioChunk, Capabilities, Message, Span, Transcript, call
from runtime.assembly import Parts
from runtime.engine import Engine


@dataclass
class ByteCache:
    tokens: list[int] = field(default_factory=list)
    bytes: int = 0
    ahead: torch.Tensor | None = None

    @property
    def length(self) -> int:
        return len(self.tokens)

    def crop(self, length: int) -> None:
        del self.tokens[length:]


class ByteTokenizer:
    """One token per byte; a prompt ends with ``assistant:``; byte 0 ends an answer."""

    vocabulary = 256
    eos_ids = frozenset({0})

    controls: ClassVar[dict[str, int]] = {}
    tool_format = HERMES

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_chat(self, messages, add_generation_prompt=True, tools=()):
        text = "".join(f"\x05{tool.name}\x06" for tool in tools)
        for m in messages:
            calls = "".join(f"\x04{c.name}{c.arguments}" for c in m.tool_calls)
            text += f"\x02{m.role}:{m.text}{calls}\x03"
        return list((text + "\x02assistant:").encode())

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])


class ScriptedLlm:
    """Answers by ``script``, a function of the last user message, one byte per step."""

    def __init__(
        self,
        script: Callable[[str], str],
        *,
        max_context: int = 4096,
        pace: float = 0.0,
        name: str = "scripted",
    ) -> None:
        self.script = script
        self.tokenizer = ByteTokenizer()
        self.max_context = max_context
        self.name = name
        self.pace = pace
        self.fed: list[list[int]] = []

    def new_cache(self) -> ByteCache:
        return ByteCache()

    def run(self, feeds, *, all_logits=False, hidden=False) -> Output:
        time.sleep(self.pace)
        self.fed.append([len(feed.tokens) for feed in feeds])
        rows = []
        for feed in feeds:
            feed.cache.tokens.extend(feed.tokens)
            if not feed.logits:
                continue
            prompt, _, said = bytes(feed.cache.tokens).rpartition(b"\x02assistant:")
            asked = re.findall(r"\x02user:(.*?)\x03", prompt.decode(), re.S)
            answer = self.script(asked[-1] if asked else "").encode() + b"\0"
            row = torch.zeros(256)
            # A constraint may have made it say more than it wanted to.
            row[answer[min(len(said), len(answer) - 1)]] = 9.0
            rows.append(row)
        return Output(torch.stack(rows) if rows else torch.zeros(0, 256))


class LoudnessHearing:
    """Hears how many tenths of a second were loud: "5 tenths"; nothing in silence."""

    capabilities = Capabilities(inputs=frozenset({"audio"}), sample_rate=16_000)

    def stream(self):
        return LoudnessStream()

    def transcribe_long(self, chunk, language=None):
        stream = self.stream()
        stream.feed(chunk)
        return stream.transcribe(language)

    def transcribe_windows(self, sound, language=None, *, times=False, run=call):
        for chunk in sound:
            for begin in range(0, len(chunk.pcm), 16_000):
                second = AudioChunk(chunk.pcm[begin : begin + 16_000], chunk.sample_rate)
                yield run(lambda second=second: self.transcribe_long(second))


class LoudnessStream:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._pcm: list[np.ndarray] = []

    def feed(self, chunk: AudioChunk) -> None:
        assert chunk.sample_rate == 16_000
        self._pcm.append(chunk.pcm)

    def transcribe(self, language=None) -> Transcript:
        pcm = np.concatenate(self._pcm) if self._pcm else np.zeros(0)
        loud = round(float((np.abs(pcm) > 0.05).sum()) / 1600)
        return Transcript(f"{loud} tenths" if loud else "", "en", len(pcm) / 16_000)


class LoudnessVad:
    def stream(self):
        return LoudnessVadStream()


class LoudnessVadStream:
    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def feed(self, pcm) -> list[float]:
        pcm = np.concatenate([self._rest, pcm])
        count = len(pcm) // 512
        self._rest = pcm[count * 512 :]
        frames = pcm[: count * 512].reshape(count, 512)
        return [1.0 if np.abs(frame).mean() > 0.02 else 0.0 for frame in frames]


class AlwaysFinished:
    def probability(self, pcm) -> float:
        return 0.95


class SizeSight:
    """Sees the size of a picture."""

    capabilities = Capabilities(inputs=frozenset({"image"}))

    def encode(self, frames):
        return [Span("image", f"{f.pixels.shape[1]} by {f.pixels.shape[0]}") for f in frames]


class BeepVoice:
    """Says 10 ms per letter, in English only; ``gate`` can hold it up."""

    capabilities = Capabilities(sample_rate=24_000, voices=("beep",))

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def speaks(self, language, voice=None) -> bool:
        return language == "en"

    def speak(self, clause, *, voice=None, speed=1.0):
        self.gate.wait()
        pcm = np.full(240 * len(clause.text), 0.5, np.float32)
        for begin in range(0, len(pcm), 4800):
            yield AudioChunk(pcm[begin : begin + 4800], 24_000, begin)


def fake_parts(script: Callable[[str], str] = lambda asked: f"You said {asked}.", **llm) -> Parts:
    return Parts(
        llm=ScriptedLlm(script, **llm),
        hearing=LoudnessHearing(),
        vad=LoudnessVad(),
        turn=AlwaysFinished(),
        sight=SizeSight(),
        voice=BeepVoice(),
    )


class Running:
    """An engine with fake parts, apart from ``real`` ones; collects each session's events."""

    def __init__(
        self, script=lambda asked: f"You said {asked}.", config=None, real=None, **llm
    ) -> None:
        self.parts = replace(fake_parts(script, **llm), **(real or {}))
        self.engine = Engine(self.parts, config)
        self.boxes: dict[str, queue.SimpleQueue] = {}

    def __enter__(self):
        self.engine.start()
        return self

    def __exit__(self, *error):
        self.engine.close()

    def open(self, session: str) -> None:
        self.boxes[session] = queue.SimpleQueue()
        self.engine.open(session, self.boxes[session].put)

    def ask(self, session: str, text: str, response: str = "r", **options) -> None:
        messages = (Message("user", (text,)),)
        self.engine.submit(session, ev.Start(response, messages, **options))

    def until(self, session: str, kind: type):
        seen = []
        while True:
            seen.append(self.boxes[session].get(timeout=10))
            if isinstance(seen[-1], kind):
                return seen

    def answer(self, session: str, text: str, **options):
        self.ask(session, text, **options)
        return self.until(session, ev.ResponseDone)
