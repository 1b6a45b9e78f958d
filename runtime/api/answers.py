"""``POST /v1/answers``: one file, heard or looked at and asked about, as `omni batch` does."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import FormData, UploadFile

from encoders.audio import joined
from encoders.media import audio_chunks
from omni import events as ev
from omni.batch.options import Options
from omni.batch.records import Medium
from omni.batch.schema import SCHEMA, make_result
from omni.errors import InputError, MediaError, OmniError
from omni.types import AudioChunk, Message, Sampling
from runtime.api.examples import ANSWERS
from runtime.api.models import check_model
from runtime.api.slot import Slot, ready_hub, while_connected
from runtime.batch.asking import Asking, ask, fits
from runtime.batch.perceive import Perceived, has_sound, kind_of_file, look
from runtime.checks import check_language
from runtime.hub import Hub
from runtime.states import EAR_RATE

router = APIRouter(tags=["batch"])

MAX_SECONDS = 4 * 3600.0
"""Of a recording or clip."""
MAX_QUESTIONS = 32

_FIELDS = ("model", "ask", "answer", "language", "words", "instructions", "max_tokens")
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "A recording, clip or picture, in any usual format.",
                    },
                    "model": {"type": "string", "default": "omni"},
                    "ask": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "Questions about it; none: it is only transcribed.",
                    },
                    "answer": {
                        "type": "boolean",
                        "default": False,
                        "description": "What is said in it is itself a question.",
                    },
                    "language": {"type": "string", "description": "ISO 639-1."},
                    "words": {"type": "boolean", "default": False},
                    "instructions": {"type": "string"},
                    "max_tokens": {"type": "integer", "minimum": 1, "default": 256},
                },
                "additionalProperties": False,
            },
            "examples": ANSWERS,
        }
    },
}


@router.post(
    "/v1/answers",
    summary="Transcribe or look at a file, and answer questions about it",
    response_model=None,
    openapi_extra={
        "requestBody": _BODY,
        "responses": {"200": {"content": {"application/json": {"schema": SCHEMA}}}},
    },
)
async def create_answers(request: Request) -> JSONResponse:
    """The answer is what `omni batch` writes about a file: transcript, what is seen, answers."""
    hub = ready_hub(request)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InputError(
            "send the file as multipart/form-data with a field 'file'", code="invalid_body"
        )
    form = await request.form(max_files=1, max_fields=64)
    try:
        options, asks = _options(hub, form)
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise InputError(
                "'file' is missing: send a recording, clip or picture as a file of the form",
                param="file",
                code="missing_field",
            )
        work = _Work(hub, options, asks, upload.file, upload.filename or "file")
        return JSONResponse(await while_connected(request, work.result()))
    finally:
        for value in form.values():
            if isinstance(value, UploadFile):
                value.file.close()


def _options(hub: Hub, form: FormData) -> tuple[Options, list[str]]:
    fields: dict[str, str] = {}
    asks: list[str] = []
    for given, value in form.multi_items():
        name = given.removesuffix("[]")
        if name == "file":
            continue
        if name not in _FIELDS or not isinstance(value, str):
            raise InputError(
                f"{given!r} is unknown; known are file, {', '.join(_FIELDS)}", param=given
            )
        if name == "ask":
            asks.append(value)
        else:
            fields[name] = value
    if len(asks) > MAX_QUESTIONS or not all(question.strip() for question in asks):
        raise InputError(f"send up to {MAX_QUESTIONS} questions with words in them", param="ask")
    check_model(hub, fields.get("model", "omni"))
    language = fields.get("language") or None
    check_language(language, hub.config.defaults, "language")
    limit = fields.get("max_tokens", "256")
    if not limit.isdecimal() or not 1 <= int(limit) <= 4096:
        raise InputError(f"max_tokens is {limit!r}; expected 1 to 4096", param="max_tokens")
    options = Options(
        model=hub.config.defaults.model,
        language=language,
        words=_flag(fields, "words"),
        answer=_flag(fields, "answer"),
        instructions=fields.get("instructions") or None,
        max_tokens=int(limit),
    )
    return options, asks


def _flag(fields: dict[str, str], name: str) -> bool:
    value = fields.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise InputError(f"{name} is {value!r}; expected true or false", param=name)
    return value in ("true", "1")


class _Work:
    """One file, heard, seen and asked about beside live talk."""

    def __init__(
        self, hub: Hub, options: Options, asks: Sequence[str], file: BinaryIO, name: str
    ) -> None:
        self._hub = hub
        self._options = options
        self._asks = asks
        self._file = file
        self._name = name
        self._id = f"answers_{secrets.token_hex(12)}"
        self._usage = [0, 0]
        self._count = 0

    async def result(self) -> dict[str, Any]:
        """The result; raises what is wrong with the file or a question."""
        timings: dict[str, float] = {}
        with Slot(self._hub) as slot:
            try:
                kind = await slot.run(partial(kind_of_file, self._file))
                perceived = Perceived(Medium(kind), kind)
                if await slot.run(partial(has_sound, self._file, kind)):
                    await self._hear(slot, perceived)
                if kind in ("image", "video"):
                    began = time.monotonic()
                    sight, run = slot.engine.parts.sight, slot.engine.in_background
                    looking = partial(look, self._file, kind, sight, run=run)
                    perceived.scenes = await slot.run(looking)
                    timings["see"] = time.monotonic() - began
            except MediaError as error:
                message = str(error).replace("the file", f"the file {self._name!r}", 1)
                raise MediaError(message, param="file", code=error.code) from None
            began = time.monotonic()
            heard = self._options.answer and perceived.transcript is not None
            questions = [*([None] if heard else []), *self._asks]
            answers = [
                {"ask": question, "answer": await self._answer(slot, perceived, question)}
                for question in questions
            ]
            if answers:
                timings["answer"] = time.monotonic() - began
        return make_result(
            self._id,
            [perceived.described()],
            answers,
            timings=timings,
            tokens=self._usage,
            settings=self._options.settings,
        )

    async def _hear(self, slot: Slot, perceived: Perceived) -> None:
        began, seconds = time.monotonic(), 0.0

        def chunks() -> Iterator[AudioChunk]:
            nonlocal seconds
            for chunk in audio_chunks(self._file, EAR_RATE, MAX_SECONDS):
                seconds += chunk.seconds
                yield chunk

        windows = slot.engine.parts.hearing.transcribe_windows(
            chunks(), self._options.language, times=True, run=slot.engine.in_background
        )
        try:
            parts = [part async for part in slot.each(windows)]
        finally:
            self._hub.metrics.heard(seconds, time.monotonic() - began)
        heard = joined(parts, seconds, self._options.language)
        perceived.transcript = heard if self._options.words else replace(heard, words=())
        perceived.seconds = seconds

    async def _answer(self, slot: Slot, perceived: Perceived, question: str | None) -> str:
        room = fits(slot.engine.parts.llm, self._options.max_tokens)
        asking = ask([perceived], question, room, self._options.instructions)
        try:
            prompt = await slot.run(partial(_next, asking))
            while True:
                text = await self._write(slot, prompt)
                prompt = await slot.run(partial(_next, asking, text))
        except _Answered as answered:
            return answered.text

    async def _write(self, slot: Slot, prompt: list[Message]) -> str:
        self._count += 1
        start = ev.Start(
            f"{self._id}_{self._count}",
            tuple(prompt),
            Sampling(temperature=0.0, max_tokens=self._options.max_tokens),
            speak=False,
        )
        text = ""
        async for event in slot.answer(start):
            if isinstance(event, ev.TextDelta):
                text += event.text
            elif isinstance(event, ev.ResponseDone):
                self._usage[0] += event.usage.input_tokens
                self._usage[1] += event.usage.output_tokens
                if event.reason == "failed":
                    raise OmniError(event.error or "the answer failed")
        return text.strip()


class _Answered(Exception):  # StopIteration cannot leave a thread's future
    def __init__(self, text: str) -> None:
        self.text = text


def _next(asking: Asking, text: str | None = None) -> list[Message]:
    """The next prompt; `_Answered` at the end."""
    try:
        prompt = next(asking) if text is None else asking.send(text)
    except StopIteration as end:
        raise _Answered(end.value) from None
    return prompt
