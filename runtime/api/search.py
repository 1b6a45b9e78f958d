"""``/v1/search``: find things by description in the index that the server was started with."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import FileResponse
from pydantic import Field

from encoders.media import load_image
from omni.errors import InputError
from omni.search import Index
from runtime.api.chat_body import Strict
from runtime.api.examples import SEARCH as EXAMPLES
from runtime.api.media import MediaSource
from runtime.api.slot import ready_hub, while_connected
from runtime.hub import Hub
from runtime.search import shown_at

router = APIRouter(tags=["search"])


class SearchRequest(Strict):
    """What to find."""

    query: str | None = Field(
        default=None,
        description="In English or Chinese; prices, colours and what is not wanted are read from "
        "it: `red floral dress, long, under 50`.",
    )
    image: str | None = Field(
        default=None, description="A picture to find alike ones, as a data URL."
    )
    limit: int = Field(default=10, ge=1, le=100)


@router.post("/v1/search", summary="Find things by description, by a picture, or by both")
async def search(
    request: Request, body: Annotated[SearchRequest, Body(openapi_examples=EXAMPLES)]
) -> dict[str, Any]:
    """The best first. `score` is about 0 to 1; `picture_url` is where the picture lies here."""
    hub = ready_hub(request)
    found = await while_connected(request, _search(hub, _index(hub), body))
    data = [
        {"object": "search.result", **hit.wire(), "picture_url": shown_at(hit)}
        for hit in found.hits
    ]
    for result in data:
        del result["picture"]  # a path of the server's own
    wish = found.wish
    heeded = {
        "text": wish.text,
        "without": [*wish.not_colours, *wish.without],
        "min_price": wish.least,
        "max_price": wish.most,
        "currency": wish.currency,
    }
    return {"object": "list", "data": data, "query": heeded, "notes": list(found.notes)}


@router.get(
    "/v1/search/pictures", summary="The picture of something found", response_class=FileResponse
)
async def picture(
    request: Request, id: Annotated[str, Query(description="Of a result.")]
) -> FileResponse:
    """The file as it is; only pictures in the index are given."""
    hub = ready_hub(request)
    index = _index(hub)
    path = await asyncio.get_running_loop().run_in_executor(hub.pool, index.picture, id)
    if path is None:
        raise InputError(f"there is no picture of {id[:80]!r}", param="id", code="media_not_found")
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=3600"}
    return FileResponse(path, headers=headers)


async def _search(hub: Hub, index: Index, body: SearchRequest) -> Any:
    frame = None
    run = asyncio.get_running_loop().run_in_executor
    if body.image is not None:
        data = await MediaSource(hub.config.media_hosts).read(body.image, "image")
        frame = await run(hub.pool, partial(load_image, data, max_side=512))
    return await run(hub.pool, partial(index.search, body.query, frame, limit=body.limit))


def _index(hub: Hub) -> Index:
    if hub.index is None:
        raise InputError(
            "this server has no index; make one with `omni index build FOLDER`, and start the "
            "server with --index DIR",
            code="no_index",
        )
    return hub.index
