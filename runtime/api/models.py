"""``/health``, ``/metrics`` and ``/v1/models``."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

import omni
from omni.errors import InputError
from runtime.api.slot import ready_hub
from runtime.checks import is_openai_model
from runtime.hub import Hub
from runtime.metrics import CONTENT_TYPE

router = APIRouter(tags=["server"])
_STARTED = int(time.time())
_ANY = "omni"
_VOICE = "omni-voice"
EMBEDDINGS = "use-multilingual-v3"
"""The model of ``POST /v1/embeddings``."""


@router.get("/health", summary="Whether the server can hold a conversation")
async def health(request: Request) -> JSONResponse:
    """Status 503 until it can. No key is asked for."""
    hub: Hub = request.app.state.hub
    body: dict[str, Any] = {"status": hub.state, "version": omni.__version__}
    if hub.engine is not None:
        body |= {
            "model": hub.engine.parts.llm.name,
            "sessions": hub.engine.sessions,
            "max_sessions": hub.engine.config.max_sessions,
        }
    if hub.problem is not None:
        body["problem"] = hub.problem
    return JSONResponse(body, 200 if hub.state == "ready" else 503)


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Sessions, answers, tokens, latencies, errors and requests."""
    hub: Hub = request.app.state.hub
    return Response(hub.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


@router.get("/v1/models", summary="List the models")
async def list_models(request: Request) -> dict[str, Any]:
    """The model that answers (also named `omni`), those that hear, speak and embed."""
    hub = ready_hub(request)
    return {"object": "list", "data": [_model(hub, name) for name in _names(hub)]}


@router.get("/v1/models/{model}", summary="Describe a model")
async def retrieve_model(request: Request, model: str) -> dict[str, Any]:
    """Status 404 for a model that this server does not run."""
    hub = ready_hub(request)
    if model not in _names(hub):
        raise _unknown(model, _names(hub))
    return _model(hub, model)


def check_model(hub: Hub, given: str) -> None:
    """Raise `InputError` unless this server runs the model, or may stand in for it.

    Stock clients that ask for one of OpenAI's models get the server's own.
    """
    names = _names(hub)
    if given not in names and not is_openai_model(given):
        raise _unknown(given, names)


def _names(hub: Hub) -> tuple[str, ...]:
    defaults = hub.config.defaults
    return (_ANY, defaults.model, defaults.transcriber, _VOICE, EMBEDDINGS)


def _model(hub: Hub, name: str) -> dict[str, Any]:
    """As OpenAI shows it; of ours are ``languages`` (ISO 639-1) and ``voices``."""
    model: dict[str, Any] = {"id": name, "object": "model", "created": _STARTED}
    if name == hub.config.defaults.transcriber:
        model["languages"] = sorted(hub.config.defaults.languages)
    if name == _VOICE:
        model["voices"] = list(hub.config.defaults.voices)
    return model | {"owned_by": "omni"}


def _unknown(model: str, names: tuple[str, ...]) -> InputError:
    return InputError(
        f"there is no model {model!r} here; there are: {', '.join(names)}",
        param="model",
        code="model_not_found",
    )
