"""The messages of a request -> those that the LLM reads; media are heard and seen on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from encoders.audio import joined
from encoders.media import audio_chunks, load_image
from encoders.video import describe, read_video
from omni.errors import InputError, MediaError
from omni.types import Message, Span, ToolCall
from runtime.api.chat_body import (
    AnyMessage,
    AssistantMessage,
    AudioPart,
    ImagePart,
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
    VideoPart,
)
from runtime.api.media import MediaSource
from runtime.api.slot import Slot
from runtime.items import read_picture
from runtime.states import EAR_RATE
from runtime.wire import decode_base64

MAX_SECONDS = 600.0
"""Of a recording or clip in a message; longer ones would not fit into the context."""

MAX_MEDIA = 32
"""Pictures, recordings and clips of one request."""


class Reader:
    """Reads messages with what a ``slot`` hears and sees.

    ``recall`` gives the words of an earlier spoken answer by its id, None for an unknown one.
    """

    def __init__(
        self, slot: Slot, source: MediaSource, recall: Callable[[str], str | None]
    ) -> None:
        self._slot = slot
        self._source = source
        self._recall = recall
        self._media = 0

    async def read(self, messages: Sequence[AnyMessage]) -> tuple[Message, ...]:
        """The messages; raises `InputError` that names the field at fault."""
        read = []
        for index, message in enumerate(messages):
            match message:
                case SystemMessage():
                    read.append(Message("system", (_text(message.content),)))
                case UserMessage():
                    read.append(await self._user(message, f"messages.{index}.content"))
                case AssistantMessage():
                    read.append(self._assistant(message, f"messages.{index}"))
                case ToolMessage():
                    text = _text(message.content)
                    read.append(Message("tool", (text,), call_id=message.tool_call_id))
        return tuple(read)

    def _assistant(self, message: AssistantMessage, path: str) -> Message:
        said = _text(message.content or ())
        if message.refusal:
            said += message.refusal
        if message.audio is not None and not said:
            words = self._recall(message.audio.id)
            if words is None:
                raise InputError(
                    f"the server no longer knows the answer {message.audio.id!r}; send its "
                    "transcript as the content",
                    param=f"{path}.audio.id",
                    code="not_found",
                )
            said = words
        calls = tuple(
            ToolCall(call.id, call.function.name, call.function.arguments)
            for call in message.tool_calls or ()
        )
        if not said and not calls:
            raise InputError(
                f"{path} is empty: an assistant's message needs content or tool_calls",
                param=f"{path}.content",
            )
        return Message("assistant", (said,) if said else (), calls)

    async def _user(self, message: UserMessage, path: str) -> Message:
        shown: list[str | Span] = []
        said: list[str | Span] = []
        for index, part in enumerate(message.content):
            where = f"{path}.{index}"
            if not isinstance(part, TextPart):
                self._media += 1
                if self._media > MAX_MEDIA:
                    raise InputError(
                        f"a request may hold {MAX_MEDIA} pictures, recordings and clips",
                        param=where,
                    )
            try:
                match part:
                    case TextPart():
                        said.append(part.text)
                    case ImagePart():
                        shown += await self._image(part.image_url.url, f"{where}.image_url.url")
                    case VideoPart():
                        shown += await self._video(part.video_url.url, f"{where}.video_url.url")
                    case AudioPart():
                        said += await self._audio(part.input_audio.data, f"{where}.input_audio")
            except MediaError as error:
                raise MediaError(
                    f"{where}: {error}", param=error.param or where, code=error.code
                ) from None
        # What was shown comes before what was said about it.
        return Message("user", (*shown, *said))

    async def _image(self, url: str, param: str) -> list[Span]:
        data = await self._source.read(url, param)
        engine = self._slot.engine

        def look() -> Span:
            frame = load_image(data)
            return engine.on_device(partial(engine.parts.sight.encode, [frame]))[0]

        read = read_picture(await self._slot.run(look))
        return [] if read is None else [read]

    async def _audio(self, data: str, param: str) -> list[Span]:
        raw = await self._slot.run(partial(decode_base64, data, f"{param}.data"))
        hearing = self._slot.engine.parts.hearing
        windows = hearing.transcribe_windows(
            audio_chunks(raw, EAR_RATE, MAX_SECONDS), run=self._slot.engine.in_background
        )
        heard = joined([part async for part in self._slot.each(windows)], 0.0, None)
        if not heard.text and heard.embeds is None:
            return []
        return [Span("audio", heard.text, heard.embeds, (0.0, heard.seconds))]

    async def _video(self, url: str, param: str) -> list[Span]:
        data = await self._source.read(url, param)
        engine = self._slot.engine

        def watch() -> list[Span]:
            clip = read_video(data, max_seconds=MAX_SECONDS)
            parts = engine.parts
            return describe(clip, parts.sight, parts.hearing, run=engine.in_background)

        spans = await self._slot.run(watch)
        return [
            Span("video", f"[The clip shows this. {span.text}]", times=span.times) for span in spans
        ]


def _text(parts: Sequence[TextPart | RefusalPart]) -> str:
    return "\n".join(p.text if isinstance(p, TextPart) else p.refusal for p in parts)
