"""The wire: JSON text -> checked client events, and the shapes of what is sent back.

The event types are those of ``openai.types.realtime``; the one client event of our own,
``input_image_buffer.append``, is declared here. Everything is checked strictly: an unknown event or
field is an error that names it, because a silently ignored option is a bug that nobody finds.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Mapping, Sequence
from reprlib import repr as short
from typing import Any, Literal, TypeVar

from openai.types import realtime as rt
from pydantic import BaseModel, ConfigDict, ValidationError

from omni.errors import InputError

Event = dict[str, Any]
M = TypeVar("M", bound=BaseModel)

WIRE_RATE = 24_000
"""Hertz of ``audio/pcm`` on the wire."""


class InputImageBufferAppendEvent(BaseModel):
    """A camera frame: base64 of a JPEG, PNG or WebP file. It joins the user's next turn."""

    model_config = ConfigDict(extra="allow")

    type: Literal["input_image_buffer.append"]
    image: str
    event_id: str | None = None


MAX_EVENT = 16 * 1024 * 1024
"""Characters of one client event: some 4 minutes of sound."""

_MAX_NAME = 200
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

CLIENT_EVENTS: dict[str, type[BaseModel]] = {
    "session.update": rt.SessionUpdateEvent,
    "input_audio_buffer.append": rt.InputAudioBufferAppendEvent,
    "input_audio_buffer.commit": rt.InputAudioBufferCommitEvent,
    "input_audio_buffer.clear": rt.InputAudioBufferClearEvent,
    "output_audio_buffer.clear": rt.OutputAudioBufferClearEvent,
    "input_image_buffer.append": InputImageBufferAppendEvent,
    "conversation.item.create": rt.ConversationItemCreateEvent,
    "conversation.item.delete": rt.ConversationItemDeleteEvent,
    "conversation.item.retrieve": rt.ConversationItemRetrieveEvent,
    "conversation.item.truncate": rt.ConversationItemTruncateEvent,
    "response.create": rt.ResponseCreateEvent,
    "response.cancel": rt.ResponseCancelEvent,
}

# Checked by the room that owns them, because the union types of the package give errors about every
# member of the union at once.
_CHECKED_ELSEWHERE = {"session", "item", "response"}


def load(text: str | bytes) -> Event:
    """The JSON object that a client sent; raises `InputError` for anything else."""
    if len(text) > MAX_EVENT:
        raise InputError(
            f"the event has {len(text)} characters; one may have {MAX_EVENT}: send sound and "
            "pictures in smaller pieces",
            code="event_too_large",
        )
    try:
        text = text if isinstance(text, str) else text.decode()
        event = json.loads(text)
        if _SURROGATE.search(text):
            # Half of a pair is no character: neither tokenizers nor the way back can take it.
            json.dumps(event, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the event is not valid JSON ({error}); send one JSON object per message",
            code="invalid_json",
        ) from None
    if not isinstance(event, dict):
        raise InputError(
            f"the event is a JSON {type(event).__name__}; send an object with a 'type'",
            code="invalid_event",
        )
    return event


def check_event(event: Event) -> None:
    """Raise `InputError` for anything but a known event with known fields of the right types."""
    kind = event.get("type")
    if not isinstance(kind, str) or kind not in CLIENT_EVENTS:
        raise InputError(
            f"unknown event type {short(kind)}; known are: {', '.join(sorted(CLIENT_EVENTS))}",
            param="type",
            code="unknown_event",
        )
    if kind == "response.create" and event.get("response") is None:
        event = {key: value for key, value in event.items() if key != "response"}
    own = {key: value for key, value in event.items() if key not in _CHECKED_ELSEWHERE}
    model = CLIENT_EVENTS[kind]
    for key in _CHECKED_ELSEWHERE & event.keys():
        if key not in model.model_fields:
            raise InputError(f"{kind} has no field {key!r}", param=key, code="unknown_field")
        if not isinstance(event[key], dict):
            raise InputError(f"{key!r} must be an object", param=key)
    required = {key for key, field in model.model_fields.items() if field.is_required()}
    for key in required & _CHECKED_ELSEWHERE - event.keys():
        raise InputError(f"{kind} needs the field {key!r}", param=key, code="missing_field")
    check(model, own, skip=_CHECKED_ELSEWHERE)


def check(
    model: type[M], data: Mapping[str, Any], path: str = "", skip: set[str] | None = None
) -> None:
    """Check ``data`` against ``model`` and refuse fields that the model does not have.

    ``path`` goes before the names of fields in messages; errors below ``skip`` are left out.
    """
    skip = skip or set()
    try:
        # Strictly: "5" and true must not pass for 5, because what was sent is what is used.
        model.model_validate(dict(data), strict=True)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            where = _path(problem["loc"], data)
            if where and where[0] in skip:
                continue
            name = ".".join([*([path] if path else []), *where])
            code = "missing_field" if problem["type"] == "missing" else "invalid_value"
            raise InputError(f"{name}: {problem['msg']}", param=name, code=code) from None
    refuse_unknown(data, model.model_fields, path, "it")
    for key, value in data.items():
        inner = model.model_fields[key].annotation
        if isinstance(value, Mapping) and (sub := _only_model(inner)) is not None:
            check(sub, value, f"{path}.{key}" if path else key)


def refuse_unknown(data: Mapping[str, Any], known: Collection[str], path: str, what: str) -> None:
    """Raise `InputError` for a field of ``what`` that is not among the ``known``."""
    for key in data:
        if key not in known:
            name = (f"{path}.{key}" if path else key)[:_MAX_NAME]
            raise InputError(
                f"unknown field '{name}'; {what} has: {', '.join(sorted(known))}",
                param=name,
                code="unknown_field",
            )


def _path(location: Sequence[int | str], data: Any) -> list[str]:
    """Where in ``data`` a problem lies: pydantic also names the member of a union that it tried."""
    where: list[str] = []
    for step in location:
        inside = isinstance(data, Mapping) or (isinstance(data, list) and isinstance(step, int))
        if not inside:
            break
        where.append(str(step))
        found = isinstance(data, list) or step in data
        data = data[step] if found else None
    return where


def _only_model(annotation: Any) -> type[BaseModel] | None:
    """The model in ``Optional[Model]``; None where there is a choice of several."""
    members = getattr(annotation, "__args__", (annotation,))
    models = [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]
    return models[0] if len(models) == 1 else None


def decode_base64(data: str, param: str) -> bytes:
    """Strict base64; raises `InputError` that names ``param``."""
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(
            f"{param} is not valid base64 ({error}); it may have been cut short: send whole groups "
            "of four characters",
            param=param,
            code="invalid_base64",
        ) from None


def encode_base64(data: bytes) -> str:
    """Bytes -> the text that carries them on the wire."""
    return base64.b64encode(data).decode("ascii")


def decode_data_url(url: str, param: str) -> bytes:
    """``data:image/…;base64,…`` -> bytes. Other addresses are refused."""
    if not url.startswith("data:"):
        raise InputError(
            f"{param} must be a data URL (data:image/jpeg;base64,…); pictures at remote addresses "
            "are not fetched",
            param=param,
            code="unsupported_url",
        )
    head, comma, body = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise InputError(
            f"{param} must be base64: data:image/jpeg;base64,…", param=param, code="invalid_url"
        )
    return decode_base64(body, param)


def error_event(error: InputError, event_id: str | None) -> Event:
    """The ``error`` event for something that the client did wrong."""
    return {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "code": error.code,
            "message": str(error),
            "param": error.param,
            "event_id": event_id,
        },
    }
