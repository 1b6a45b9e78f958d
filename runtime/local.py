"""The assistant in this process, without a server: for ``omni ask`` and for files."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

import numpy as np

from encoders.media import load_image, open_container, read_audio
from encoders.video import describe, read_video
from omni import events as ev
from omni.errors import InputError, OmniError
from omni.prompts import INSTRUCTIONS
from omni.types import AudioChunk, Message, Sampling, Span, Usage
from runtime.assembly import Assembly
from runtime.drawing import wish_in
from runtime.engine import Engine
from runtime.items import read_picture
from runtime.states import EAR_RATE

MAX_SECONDS = 3600.0
"""Of one recording or clip."""


@dataclass(frozen=True)
class Answer:
    """What came of one question.

    ``seen`` says what was in the pictures and clips, ``audio`` is None unless it was asked for,
    ``picture`` is a PNG file where one was asked for and could be drawn; ``timings`` are seconds
    since the question.
    """

    text: str
    transcript: str | None
    seen: tuple[str, ...]
    audio: AudioChunk | None
    picture: bytes | None
    usage: Usage
    timings: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def check_files(
    audio: str | os.PathLike[str] | None,
    images: Sequence[str | os.PathLike[str]],
    video: str | os.PathLike[str] | None,
) -> None:
    """Raise `MediaError` for a file that is not what it should be, before models are loaded."""
    for image in images:
        load_image(image)
    for path, kind in ((audio, "recording"), (video, "video")):
        if path is not None:
            with open_container(path, kind):
                pass


class Assistant:
    """An engine with one conversation. Use it as a context manager."""

    def __init__(self, assembly: Assembly | None = None, instructions: str = INSTRUCTIONS) -> None:
        self._engine = Engine((assembly or Assembly()).build())
        self._messages: list[Message] = [Message("system", (instructions,))]
        self._events: queue.SimpleQueue[ev.OutputEvent] = queue.SimpleQueue()
        self._drawn: Message | None = None
        """The question before, where a picture answered it."""
        self._count = 0

    def __enter__(self) -> Assistant:
        # One question is answered sooner by models that load when they are needed.
        self._engine.start(warm_up=False)
        self._engine.open("local", self._events.put)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.release("local")
        self._engine.close()

    def ask(
        self,
        text: str | None = None,
        *,
        audio: str | os.PathLike[str] | None = None,
        images: Sequence[str | os.PathLike[str]] = (),
        video: str | os.PathLike[str] | None = None,
        speak: bool = False,
        sampling: Sampling | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Ask about any mix of media; earlier questions and answers are remembered.

        ``on_text`` gets the answer's text as it grows. Raises `MediaError` for a file that cannot
        be used and `OmniError` when the answer failed; the conversation is then as before.
        """
        began = time.monotonic()
        timings: dict[str, float] = {}
        spans: list[str | Span] = []
        seen: list[str] = []
        transcript = None
        parts = self._engine.parts
        for image in images:
            frame = load_image(image)
            [span] = self._engine.on_device(partial(parts.sight.encode, [frame]))
            seen.append(span.text or "")
            spans.append(read_picture(span) or "")
        if video is not None:
            clip = read_video(video)
            told = partial(describe, clip, parts.sight, parts.hearing)
            for span in self._engine.on_device(told):
                seen.append(span.text or "")
                spans.append(Span("video", f"[The clip shows this. {span.text}]", times=span.times))
        if images or video is not None:
            timings["seen"] = time.monotonic() - began
        if audio is not None:
            recording = read_audio(audio, EAR_RATE, max_seconds=MAX_SECONDS)
            heard = partial(parts.hearing.transcribe_long, recording)
            transcript = self._engine.on_device(heard).text
            timings["transcript"] = time.monotonic() - began
            if transcript:
                spans.append(Span("audio", transcript))
        if text:
            spans.append(text)
        if not spans:
            raise InputError(
                "no words were found in the recording, and there is no question; add one"
                if audio is not None
                else "there is nothing to answer: give a question, a recording, a picture or a clip"
            )
        self._count += 1
        question = Message("user", tuple(spans))
        start = ev.Start(
            f"answer-{self._count}",
            (*self._messages, question),
            sampling or Sampling(temperature=0.0),
            speak=speak,
            wish=wish_in((question,) if self._drawn is None else (self._drawn, question)),
        )
        answer = self._collect(start, on_text, began, timings)
        self._drawn = question if answer.picture else None
        self._messages += [question, Message("assistant", (answer.text,))]
        return Answer(
            answer.text,
            transcript,
            tuple(seen),
            answer.audio,
            answer.picture,
            answer.usage,
            timings,
            answer.warnings,
        )

    def _collect(
        self,
        start: ev.Start,
        on_text: Callable[[str], None] | None,
        began: float,
        timings: dict[str, float],
    ) -> Answer:
        self._engine.submit("local", start)
        words: list[str] = []
        sound: list[AudioChunk] = []
        warnings: list[str] = []
        picture = None
        while True:
            event = self._events.get()
            match event:
                case ev.TextDelta(_, text, at):
                    timings.setdefault("first_token", at - began)
                    words.append(text)
                    if on_text is not None:
                        on_text(text)
                case ev.AudioDelta():
                    timings.setdefault("first_audio", event.at - began)
                    sound.append(event.chunk)
                case ev.PictureEnded():
                    picture = event.data
                case ev.VoiceMissing(_, language, _):
                    warnings.append(f"no voice knows the language {language!r}")
                case ev.ResponseDone():
                    timings["done"] = event.at - began
                    if event.reason == "failed":
                        raise OmniError(event.error or "the answer failed")
                    audio = None
                    if sound:
                        pcm = np.concatenate([chunk.pcm for chunk in sound])
                        audio = AudioChunk(pcm, sound[0].sample_rate)
                    return Answer(
                        "".join(words).strip(),
                        None,
                        (),
                        audio,
                        picture,
                        event.usage,
                        {},
                        tuple(dict.fromkeys(warnings)),
                    )
