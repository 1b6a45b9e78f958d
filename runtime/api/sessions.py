"""``/v1/sessions``: the conversations that are kept."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse

from omni.errors import InputError
from runtime.api.slot import ready_hub
from runtime.store import SessionStore

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


@router.get("", summary="List the conversations that are kept")
async def list_sessions(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> dict[str, Any]:
    """Those of the key that asks, the latest first."""
    store, owner = _store(request)
    found = await store.sessions(owner, limit=limit + 1, offset=offset)
    data = [{"object": "session", **dataclasses.asdict(summary)} for summary in found[:limit]]
    return {"object": "list", "data": data, "has_more": len(found) > limit}


@router.get("/{session_id}", summary="One conversation with all its items")
async def retrieve_session(request: Request, session_id: str) -> dict[str, Any]:
    """Its settings, its items in their order, and what media it has."""
    store, owner = _store(request)
    exported = await store.export(session_id, owner)
    if exported is None:
        raise _unknown(session_id)
    return exported


@router.get(
    "/{session_id}/media/{name}",
    summary="A picture or recording of a conversation",
    response_class=FileResponse,
)
async def retrieve_media(request: Request, session_id: str, name: str) -> FileResponse:
    """The file as it is kept: sound as FLAC, pictures as they came."""
    store, owner = _store(request)
    for medium in await store.media(session_id, owner):
        if medium.name == name:
            headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, no-store"}
            return FileResponse(medium.path, media_type=medium.type, headers=headers)
    raise InputError(
        f"session {session_id!r} has no medium {name!r}", param="name", code="media_not_found"
    )


@router.delete("/{session_id}", summary="Delete a conversation for good")
async def delete_session(request: Request, session_id: str) -> dict[str, Any]:
    """With its media; what is still being said in it is not kept any more."""
    store, owner = _store(request)
    if not await store.delete([session_id], owner):
        raise _unknown(session_id)
    return {"id": session_id, "object": "session.deleted", "deleted": True}


def _store(request: Request) -> tuple[SessionStore, str | None]:
    store = ready_hub(request).store
    if store is None:
        raise InputError(
            "this server keeps no conversations; start it without '--keep nothing'",
            code="session_not_found",
        )
    owner: str | None = request.state.identity.owner
    return store, owner


def _unknown(session_id: str) -> InputError:
    return InputError(
        f"there is no session {session_id!r} here", param="session_id", code="session_not_found"
    )
