"""``POST /v1/audio/speech``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from pydantic import Field

from decoders.clauses import ClauseSplitter
from encoders.media import AUDIO_FORMATS, AudioWriter
from omni.errors import InputError
from omni.types import AudioChunk, Clause
from runtime.api.chat_body import Strict, VoiceId
from runtime.api.examples import SPEECH
from runtime.api.models import check_model
from runtime.api.slot import Slot, Stream, ready_hub, server_sent
from runtime.checks import known_voice
from runtime.hub import Hub
from runtime.wire import encode_base64

router = APIRouter(tags=["audio"])


class SpeechRequest(Strict):
    """What to say, and how."""

    model: str = "omni"
    input: str = Field(max_length=4096)
    voice: str | VoiceId = "auto"
    instructions: str | None = Field(
        default=None, description="Not supported: the voices take none."
    )
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    speed: float = Field(default=1.0, ge=0.25, le=4.0)
    stream_format: Literal["audio", "sse"] = "audio"


@router.post(
    "/v1/audio/speech",
    summary="Say a text",
    response_class=Response,
    responses={200: {"content": {"audio/mpeg": {}}, "description": "The sound."}},
)
async def create_speech(
    request: Request, body: Annotated[SpeechRequest, Body(openapi_examples=SPEECH)]
) -> Response:
    """The sound comes as it is made, clause by clause; the language is found in the text.

    `pcm` is 16-bit little-endian mono at 24 kHz.
    """
    hub = ready_hub(request)
    check_model(hub, body.model)
    voice = check_voice(hub, body.voice, "voice")
    if body.instructions:
        raise InputError(
            "'instructions' are not supported: the voices take none; leave it out",
            param="instructions",
            code="unsupported",
        )
    # In a thread: finding the languages of a long text takes a while.
    clauses, unspoken = await asyncio.to_thread(_clauses, hub, body.input, voice)
    sound = _sound(hub, clauses, voice, body)
    headers = {"X-Omni-Unspoken-Languages": ",".join(unspoken)} if unspoken else None
    if body.stream_format == "sse":
        pieces = _server_sent(sound)
        return await Stream.begin(request, pieces, headers=headers, media_type="text/event-stream")
    media_type = AUDIO_FORMATS[body.response_format][3]
    return await Stream.begin(request, sound, headers=headers, media_type=media_type)


def check_voice(hub: Hub, given: str | VoiceId, param: str) -> str | None:
    """The voice to speak with, None for that of the language; `InputError` for an unknown one."""
    name = given.id if isinstance(given, VoiceId) else given
    return known_voice(name, hub.config.defaults, param)


def _clauses(hub: Hub, text: str, voice: str | None) -> tuple[list[Clause], list[str]]:
    """What is to be said, and the languages of what no voice can say."""
    assert hub.engine is not None
    splitter = ClauseSplitter()
    clauses = [clause for clause in (*splitter.feed(text), *splitter.flush()) if clause.text]
    if not clauses:
        raise InputError("the input has no words to say", param="input")
    speaks = hub.engine.parts.voice.speaks
    spoken = [clause for clause in clauses if speaks(clause.language, voice)]
    unspoken = sorted({clause.language for clause in clauses} - {c.language for c in spoken})
    if not spoken:
        raise InputError(
            f"no voice knows the language of the input ({', '.join(unspoken)}); "
            "pip install 'omni-assistant[languages]' adds some",
            param="input",
            code="unsupported_language",
        )
    return spoken, unspoken


async def _sound(
    hub: Hub, clauses: list[Clause], voice: str | None, body: SpeechRequest
) -> AsyncGenerator[bytes]:
    """The bytes of the file; the next clause is made when the one before it was sent."""
    with Slot(hub) as slot:
        mouth, speaker = slot.engine.on_mouth, slot.engine.parts.voice
        writer: AudioWriter | None = None

        def say(clause: Clause) -> tuple[list[AudioChunk], float]:
            began = time.monotonic()
            made = list(speaker.speak(clause, voice=voice, speed=body.speed))
            return made, time.monotonic() - began

        def make(clause: Clause) -> bytes:
            nonlocal writer
            made, took = mouth(partial(say, clause))
            hub.metrics.spoke(sum(chunk.seconds for chunk in made), took)
            data = b""
            for chunk in made:
                writer = writer or AudioWriter(body.response_format, chunk.sample_rate)
                data += writer.write(chunk.pcm)
            return data

        for clause in clauses:
            if data := await slot.run(partial(make, clause)):
                yield data
        if writer is None:
            raise InputError("the input has no words to say", param="input")
        yield writer.close()


async def _server_sent(sound: AsyncGenerator[bytes]) -> AsyncGenerator[str]:
    try:
        async for data in sound:
            audio: dict[str, Any] = {"type": "speech.audio.delta", "audio": encode_base64(data)}
            yield server_sent(audio)
        yield server_sent({"type": "speech.audio.done"})
    finally:
        await sound.aclose()
