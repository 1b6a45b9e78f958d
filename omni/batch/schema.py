"""What one line of results holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import omni
from omni.errors import OmniError


def make_result(
    identity: str,
    media: Sequence[dict[str, Any]],
    answers: Sequence[dict[str, Any]],
    *,
    error: OmniError | None = None,
    timings: Mapping[str, float],
    tokens: Sequence[int],
    settings: Mapping[str, Any],
    digest: str = "",
) -> dict[str, Any]:
    """A result as `SCHEMA` has it; ``timings`` in seconds, ``tokens`` read and written."""
    described = {
        "code": getattr(error, "code", "failed"),
        "message": str(error),
        "param": getattr(error, "param", None),
    }
    return {
        "id": identity,
        "media": [] if error else list(media),
        "answers": [] if error else list(answers),
        "error": described if error else None,
        "timings": {name: round(seconds, 3) for name, seconds in timings.items()},
        "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]},
        "settings": dict(settings),
        "version": omni.__version__,
        "digest": digest,
    }


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


_TEXT: dict[str, Any] = {"type": "string"}
_SECONDS: dict[str, Any] = {"type": "number", "minimum": 0}
_SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


_TIMES = {"start": _SECONDS, "end": _SECONDS}
_SPEAKER = {"speaker": {**_TEXT, "description": "Who says it: 1, 2, … With --speakers."}}
_TRANSCRIPT = _object(
    {
        "text": _TEXT,
        "language": {**_TEXT, "description": "ISO 639-1."},
        "confidence": _SHARE,
        "segments": _list(
            _object({**_TIMES, "text": _TEXT, "confidence": _SHARE}, _SPEAKER),
        ),
    },
    {"words": _list(_object({"word": _TEXT, **_TIMES, "probability": _SHARE}, _SPEAKER))},
)

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A result of omni batch",
    **_object(
        {
            "id": {**_TEXT, "description": "The record's own, or its file's path."},
            "media": _list(
                _object(
                    {
                        "kind": {"enum": ["audio", "video", "image", "text"]},
                        "path": _or_null(_TEXT),
                    },
                    {
                        "seconds": _SECONDS,
                        "transcript": _TRANSCRIPT,
                        "seen": _list(_object({"text": _TEXT}, _TIMES)),
                    },
                )
            ),
            "answers": _list(
                _object(
                    {
                        "ask": {
                            **_or_null(_TEXT),
                            "description": "null: what was said was the question.",
                        },
                        "answer": _TEXT,
                    },
                    {
                        "speech": {**_TEXT, "description": "File of the spoken answer."},
                        "picture": {**_TEXT, "description": "File of what was drawn."},
                        "warning": {**_TEXT, "description": "Why it is not spoken."},
                    },
                )
            ),
            "error": _or_null(_object({"code": _TEXT, "message": _TEXT, "param": _or_null(_TEXT)})),
            "timings": {
                **_object({}, {"see": _SECONDS, "answer": _SECONDS, "speak": _SECONDS}),
                "description": "Seconds of work. Sound is transcribed together with that of "
                "other records and has none of its own; an answer's includes waiting for others.",
            },
            "usage": _object({"input_tokens": _COUNT, "output_tokens": _COUNT}),
            "settings": {"type": "object", "description": "Model and options that it depends on."},
            "version": {**_TEXT, "description": "Of Omni."},
            "digest": {**_TEXT, "description": "Of media, questions and settings."},
        }
    ),
}
