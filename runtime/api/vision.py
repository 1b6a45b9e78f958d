"""``POST /v1/vision``: what pictures show, with probabilities."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import Field

from encoders.media import load_image
from omni.errors import InputError
from runtime.api.chat_body import Strict
from runtime.api.examples import VISION as EXAMPLES
from runtime.api.media import MediaSource
from runtime.api.slot import ready_hub, while_connected
from runtime.hub import Hub
from runtime.vision import Vision

router = APIRouter(tags=["vision"])
Words = Annotated[str, Field(min_length=1, max_length=1000)]


class VisionRequest(Strict):
    """Pictures, and what to say of each."""

    images: list[str] = Field(min_length=1, max_length=16, description="Data URLs.")
    questions: list[Words] = Field(default=[], max_length=16)
    sentences: list[Words] = Field(
        default=[], max_length=64, description="How probably is each true of each picture?"
    )


@router.post("/v1/vision", summary="Describe pictures, answer questions, match sentences")
async def look(
    request: Request, body: Annotated[VisionRequest, Body(openapi_examples=EXAMPLES)]
) -> dict[str, Any]:
    """A caption of each picture where neither questions nor sentences are given.

    `probability` is that of yes and not no, else that of exactly these words; a match is from 0 to
    1. Conversations go first.
    """
    hub = ready_hub(request)
    for sentence in (*body.questions, *body.sentences):
        if not sentence.strip():
            raise InputError("a question or sentence is empty", param="sentences")
    return await while_connected(request, _looked(hub, body))


async def _looked(hub: Hub, body: VisionRequest) -> dict[str, Any]:
    source = MediaSource(hub.config.media_hosts)
    run = asyncio.get_running_loop().run_in_executor
    assert hub.engine is not None
    vision = Vision(hub.engine.parts, run=hub.engine.in_background)
    data = []
    for index, url in enumerate(body.images):
        file = await source.read(url, f"images[{index}]")
        one = await run(hub.pool, partial(_one, vision, body, file))
        data.append({"object": "vision.result", "index": index, **one})
    return {"object": "list", "data": data}


def _one(vision: Vision, body: VisionRequest, file: bytes) -> dict[str, Any]:
    """Of one picture; blocks."""
    seen = vision.see(load_image(file))
    if not body.questions and not body.sentences:
        return {"caption": asdict(vision.caption(seen))}
    answers = [{"question": q, **asdict(vision.answer(seen, q))} for q in body.questions]
    found = vision.match(seen, body.sentences) if body.sentences else []
    matches = [
        {"sentence": sentence, "probability": probability}
        for sentence, probability in zip(body.sentences, found, strict=True)
    ]
    return {"answers": answers, "matches": matches}
