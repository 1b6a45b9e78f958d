"""``POST /v1/images/generations``."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from decoders.pictures import Pixels, Progress
from omni.draw.wishes import Wish, described
from omni.errors import InputError
from runtime.api.chat_body import Strict
from runtime.api.examples import IMAGES as EXAMPLES
from runtime.api.models import check_model
from runtime.api.slot import Stream, ready_hub, server_sent, while_connected
from runtime.drawing import encoded
from runtime.hub import Hub
from runtime.wire import encode_base64

router = APIRouter(tags=["images"])
MAX_PROMPT = 32_000
SIDES = (64, 1024)
"""The least and the most pixels along a side."""


class ImagesRequest(Strict):
    """What to draw, and how many."""

    prompt: str = Field(description="What to draw, in English or Chinese.")
    model: str | None = None
    n: int | None = Field(default=1, ge=1, le=10)
    size: str | None = Field(default="auto", description="`256x256`; square, 64 to 1024 pixels.")
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**63,
        description="Of our own: the same seed gives the same picture.",
    )
    response_format: Literal["b64_json", "url"] | None = Field(
        default="b64_json", description="`url` is not supported."
    )
    output_format: Literal["png", "jpeg", "webp"] | None = "png"
    output_compression: int | None = Field(default=90, ge=0, le=100)
    background: Literal["opaque", "auto"] | None = Field(default="auto", description="White.")
    quality: Literal["low", "medium", "high", "auto", "standard", "hd"] | None = Field(
        default="auto", description="There is one quality."
    )
    moderation: Literal["low", "auto"] | None = Field(default="auto", description="Ignored.")
    style: Literal["vivid", "natural"] | None = Field(default=None, description="Ignored.")
    stream: bool | None = False
    partial_images: int | None = Field(default=0, ge=0, le=3)
    user: str | None = Field(default=None, description="Ignored.")


@router.post("/v1/images/generations", summary="Draw pictures")
async def create_images(
    request: Request, body: Annotated[ImagesRequest, Body(openapi_examples=EXAMPLES)]
) -> Response:
    """Draw a simple thing, such as "a red apple" or "两只蓝色的猫".

    With `stream` coarse versions come first. What a prompt asks for beyond the thing, its colour
    and a count up to three is left out; `revised_prompt` says what was drawn, and `known` of our
    own whether that was learnt.
    """
    hub = ready_hub(request)
    if body.model is not None:
        check_model(hub, body.model)
    wish, side = _wish(body.prompt), _side(body.size or "auto")
    if body.response_format == "url":
        raise InputError(
            "'response_format' \"url\" is not supported: nothing is kept; use b64_json",
            param="response_format",
            code="unsupported",
        )
    seed = secrets.randbits(31) if body.seed is None else body.seed
    if body.stream:
        pieces = _streamed(hub, wish, seed, side, body)
        return await Stream.begin(request, pieces, media_type="text/event-stream")
    return JSONResponse(await while_connected(request, _drawn(hub, wish, seed, side, body)))


async def _drawn(
    hub: Hub, wish: Wish, seed: int, side: int | None, body: ImagesRequest
) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    about = {}
    for number in range(body.n or 1):
        pixels, known = await _paint(hub, wish, seed + number)
        about = _about(side or pixels.shape[0], body)
        file = await _in_pool(hub, partial(_file, pixels, side, body))
        one = {"b64_json": file, "revised_prompt": wish.prompt}
        data.append(one | {"known": known, "seed": seed + number})
    return {"created": int(time.time()), "data": data, **about}


async def _paint(hub: Hub, wish: Wish, seed: int, report: Any = None) -> tuple[Pixels, bool]:
    """Paint; no more once nobody waits for it."""
    assert hub.engine is not None
    gone = False
    painting = hub.engine.easel.paint(
        wish, seed=seed, report=report or (lambda progress: None), cancelled=lambda: gone
    )
    try:
        return await asyncio.wrap_future(painting)
    finally:
        gone = True


async def _streamed(
    hub: Hub, wish: Wish, seed: int, side: int | None, body: ImagesRequest
) -> AsyncGenerator[str]:
    loop = asyncio.get_running_loop()
    for number in range(body.n or 1):
        steps: asyncio.Queue[Progress | None] = asyncio.Queue()
        report = partial(_hand_over, loop, steps)
        painting = asyncio.create_task(_paint(hub, wish, seed + number, report))
        painting.add_done_callback(partial(_end, steps))
        wanted, sent = body.partial_images or 0, 0
        try:
            while (step := await steps.get()) is not None:
                # Evenly over the steps, the last of which is the picture itself.
                due = (sent + 1) * step.steps / (wanted + 1)
                if sent < wanted and step.pixels is not None and due <= step.step < step.steps:
                    event = partial(_event, "partial_image", step.pixels, side, body, index=sent)
                    yield await _in_pool(hub, event)
                    sent += 1
            pixels, _ = await painting
            yield await _in_pool(hub, partial(_event, "completed", pixels, side, body))
        finally:
            painting.cancel()


async def _in_pool(hub: Hub, make: Callable[[], str]) -> str:
    """Files are made beside the event loop: a large one takes a tenth of a second."""
    return await asyncio.get_running_loop().run_in_executor(hub.pool, make)


def _end(steps: asyncio.Queue[Progress | None], painting: object) -> None:
    steps.put_nowait(None)


def _hand_over(
    loop: asyncio.AbstractEventLoop, steps: asyncio.Queue[Progress | None], progress: Progress
) -> None:
    loop.call_soon_threadsafe(steps.put_nowait, progress)


def _event(
    kind: str, pixels: Pixels, side: int | None, body: ImagesRequest, index: int | None = None
) -> str:
    event: dict[str, Any] = {
        "type": f"image_generation.{kind}",
        "b64_json": _file(pixels, side, body),
        "created_at": int(time.time()),
        **_about(side or pixels.shape[0], body),
    }
    if index is not None:
        event["partial_image_index"] = index
    else:
        event["usage"] = {
            "input_tokens": 0,
            "output_tokens": 0,
            "total_tokens": 0,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        }
    return server_sent(event)


def _file(pixels: Pixels, side: int | None, body: ImagesRequest) -> str:
    quality = 90 if body.output_compression is None else body.output_compression
    return encode_base64(encoded(pixels, side, body.output_format or "png", quality))


def _about(side: int, body: ImagesRequest) -> dict[str, str]:
    return {
        "background": "opaque",
        "output_format": body.output_format or "png",
        "quality": "auto",
        "size": f"{side}x{side}",
    }


def _wish(prompt: str) -> Wish:
    if not prompt.strip():
        raise InputError("the prompt is empty; say what to draw", param="prompt")
    if len(prompt) > MAX_PROMPT:
        raise InputError(
            f"the prompt has {len(prompt)} characters; send at most {MAX_PROMPT}", param="prompt"
        )
    return described(prompt)


def _side(size: str) -> int | None:
    """The side of the picture; None leaves it to the painter."""
    if size == "auto":
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    least, most = SIDES
    if found is None or found[1] != found[2] or not least <= int(found[1]) <= most:
        raise InputError(
            f"size is {size!r}; pictures are square, {least} to {most} pixels, such as 256x256",
            param="size",
        )
    return int(found[1])
