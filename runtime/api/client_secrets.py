"""``POST /v1/realtime/client_secrets``: short-lived keys for browsers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field

from omni.errors import InputError
from runtime.api.slot import ready_hub
from runtime.auth import Identity
from runtime.conversation import random_id
from runtime.settings import Settings

router = APIRouter(tags=["realtime"])


class ExpiresAfter(BaseModel):
    """How long the secret opens sessions; these may last longer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(default=600, ge=10, le=7200)


class ClientSecretRequest(BaseModel):
    """What to make."""

    model_config = ConfigDict(extra="forbid", strict=True)

    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] | None = Field(
        default=None,
        description="As in `session.update`; it applies to every session opened with it.",
    )


@router.post("/v1/realtime/client_secrets", summary="Make a key for a browser")
async def create_client_secret(
    request: Request,
    body: Annotated[
        ClientSecretRequest,
        Body(
            openapi_examples={
                "translator": {
                    "value": {
                        "expires_after": {"anchor": "created_at", "seconds": 600},
                        "session": {
                            "type": "realtime",
                            "instructions": "Say in French what the user says.",
                        },
                    }
                }
            }
        ),
    ] = ClientSecretRequest(),  # noqa: B008 - a model of defaults that nobody changes
) -> dict[str, Any]:
    """The value opens `/v1/realtime` in place of an API key, with the session's settings."""
    hub = ready_hub(request)
    identity: Identity = request.state.identity
    settings = Settings(random_id("sess"), hub.config.defaults)
    change = body.session or {}
    if change.get("type", "realtime") != "realtime":
        raise InputError(
            f"session.type must be 'realtime', not {change['type']!r}", param="session.type"
        )
    settings.update(change)
    value, expires_at = hub.keys.issue(change, body.expires_after.seconds, identity.owner)
    return {"value": value, "expires_at": expires_at, "session": settings.wire}
