"""``POST /v1/audio/transcriptions``."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any, BinaryIO, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile

from encoders.audio import joined, space_before
from encoders.media import audio_chunks
from omni.captions import srt, verbose, vtt
from omni.errors import InputError, MediaError
from omni.types import AudioChunk, Transcript
from runtime.api.errors import validation_error
from runtime.api.examples import TRANSCRIPTION
from runtime.api.models import check_model
from runtime.api.slot import Slot, Stream, ready_hub, server_sent, while_connected
from runtime.checks import check_language
from runtime.hub import Hub
from runtime.states import EAR_RATE

router = APIRouter(tags=["audio"])

MAX_SECONDS = 4 * 3600.0
"""Of a recording."""

_LISTS = ("timestamp_granularities", "include")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "prompt": ("",),
    "temperature": ("0", "0.0", "0.00"),
    "include": ([],),
    "chunking_strategy": ("auto", "null", '"auto"'),
    "keywords": (),
    "languages": (),
    "known_speaker_names": (),
    "known_speaker_references": (),
}
"""Fields of OpenAI's that are not supported, and the values that ask for nothing."""


class TranscriptionForm(BaseModel):
    """The fields beside the file."""

    model_config = ConfigDict(extra="forbid")

    model: str = "omni"
    language: str | None = Field(
        default=None, description="ISO 639-1; it is detected when left out."
    )
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    timestamp_granularities: list[Literal["word", "segment"]] = Field(
        default=["segment"],
        description="For `verbose_json`; also as `timestamp_granularities[]`.",
    )
    stream: bool = False

    @property
    def times(self) -> bool:
        """Whether words and segments are asked for."""
        return self.response_format in ("srt", "vtt", "verbose_json")


_SCHEMA = TranscriptionForm.model_json_schema()
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                **_SCHEMA,
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "The recording, in any format that FFmpeg reads.",
                    },
                    **_SCHEMA["properties"],
                },
            },
            "examples": TRANSCRIPTION,
        }
    },
}


@router.post(
    "/v1/audio/transcriptions",
    summary="Say what a recording holds",
    response_model=None,
    openapi_extra={"requestBody": _BODY},
)
async def create_transcription(request: Request) -> Response:
    """Recordings of up to four hours; they are read window by window, beside live talk.

    With `stream=true` the words come as server-sent events while they are heard.
    """
    hub = ready_hub(request)
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        raise InputError(
            "send the recording as multipart/form-data with a field 'file'", code="invalid_body"
        )
    form = await request.form(max_files=1, max_fields=32)
    try:
        options, sound = _read_form(hub, form)
        listening = _Listening(hub, options, sound)
        if options.stream:
            pieces = listening.pieces()
            return await Stream.begin(request, pieces, media_type="text/event-stream")
        heard = await while_connected(request, listening.whole())
        return _response(heard, options)
    except BaseException:
        for value in form.values():
            if isinstance(value, UploadFile):
                value.file.close()
        raise


def _read_form(hub: Hub, form: FormData) -> tuple[TranscriptionForm, BinaryIO]:
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        name = name.removesuffix("[]")
        if name == "file":
            continue
        if not isinstance(value, str):
            raise InputError(f"{name!r} must not be a file", param=name)
        if name in _LISTS:
            fields.setdefault(name, []).append(value)
        else:
            fields[name] = value
    for name, neutral in _NEUTRAL.items():
        if name in fields and fields.pop(name) not in neutral:
            raise InputError(
                f"{name!r} is not supported here; leave it out", param=name, code="unsupported"
            )
    if fields.get("language") == "":
        del fields["language"]
    try:
        options = TranscriptionForm.model_validate(fields)
    except ValidationError as error:
        problems = [{**p, "loc": ("body", *p["loc"])} for p in error.errors()]
        raise validation_error(problems, {"body": fields}) from None
    check_model(hub, options.model)
    check_language(options.language, hub.config.defaults, "language")
    if options.stream and options.times:
        raise InputError(
            f"a stream has no {options.response_format!r}; send response_format 'json' or 'text'",
            param="response_format",
        )
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise InputError(
            "'file' is missing: send the recording as a file of the form",
            param="file",
            code="missing_field",
        )
    return options, upload.file


class _Listening:
    """One recording, heard window by window; ``sound`` is closed at the end."""

    def __init__(self, hub: Hub, options: TranscriptionForm, sound: BinaryIO) -> None:
        self._hub = hub
        self._options = options
        self._sound = sound
        self._seconds = 0.0

    def _chunks(self) -> Iterator[AudioChunk]:
        for chunk in audio_chunks(self._sound, EAR_RATE, MAX_SECONDS):
            self._seconds += chunk.seconds
            yield chunk

    async def _windows(self) -> AsyncGenerator[Transcript]:
        began, options = time.monotonic(), self._options
        try:
            with Slot(self._hub) as slot:
                windows = slot.engine.parts.hearing.transcribe_windows(
                    self._chunks(),
                    options.language,
                    times=options.times,
                    run=slot.engine.in_background,
                )
                async for window in slot.each(windows):
                    yield window
        except MediaError as error:
            raise MediaError(str(error), param=error.param or "file", code=error.code) from None
        finally:
            self._sound.close()
            self._hub.metrics.heard(self._seconds, time.monotonic() - began)

    async def whole(self) -> Transcript:
        """All of it."""
        windows = [window async for window in self._windows()]
        return joined(windows, self._seconds, self._options.language)

    async def pieces(self) -> AsyncGenerator[str]:
        """Server-sent events."""
        text = ""
        windows = self._windows()
        try:
            async for window in windows:
                if window.text:
                    delta = (space_before(window) if text else "") + window.text
                    text += delta
                    yield server_sent({"type": "transcript.text.delta", "delta": delta})
        finally:
            await windows.aclose()
        usage = {"type": "duration", "seconds": round(self._seconds, 2)}
        yield server_sent({"type": "transcript.text.done", "text": text, "usage": usage})


def _response(heard: Transcript, options: TranscriptionForm) -> Response:
    match options.response_format:
        case "text":
            return PlainTextResponse(heard.text + "\n")
        case "srt":
            return PlainTextResponse(srt(heard.segments), media_type="application/x-subrip")
        case "vtt":
            return PlainTextResponse(vtt(heard.segments), media_type="text/vtt")
        case "verbose_json":
            return JSONResponse(verbose(heard, options.timestamp_granularities))
    usage = {"type": "duration", "seconds": round(heard.seconds, 2)}
    return JSONResponse({"text": heard.text, "usage": usage})
