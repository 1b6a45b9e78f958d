"""JSON schemas and tools as grammars of llguidance, checked before any model is asked.

llguidance (MIT, Rust) is the constrained decoding of llama.cpp, vLLM and Chromium: it takes a large
part of JSON Schema and computes a mask in well under a millisecond, without preparing a schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llguidance import LLMatcher

from omni.errors import InputError
from omni.llm.tools import ToolFormat
from omni.types import Tool

MAX_CALLS = 8
"""In one answer: small models may repeat themselves."""
_LAYOUT = {
    # As chat templates write JSON, and without room for endless blanks.
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
}
_COMBINING = ("anyOf", "oneOf", "allOf", "$ref", "patternProperties", "additionalProperties")


def check_schema(schema: Mapping[str, Any], param: str) -> None:
    """Raise `InputError` naming ``param`` for a schema that answers cannot be held to."""
    try:
        grammar = f"start: {json_rule(schema)}"
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{param} is not plain JSON ({error}); send a JSON schema", param=param
        ) from error
    failed, notes = LLMatcher.validate_grammar_with_warnings(grammar)
    if failed:
        raise InputError(
            f"{param} cannot be used as a JSON schema: {_reason(notes[0])}; leave that out or "
            "write it another way",
            param=param,
            code="invalid_schema",
        )


def arguments_schema(tool: Tool) -> dict[str, Any]:
    """What the arguments of a call have to follow: nothing that the tool does not name."""
    schema = {**tool.parameters, "type": "object"}
    if not any(key in schema for key in ("properties", *_COMBINING)):
        schema["properties"] = {}
    return schema


def json_rule(schema: Mapping[str, Any]) -> str:
    """A schema inside a grammar."""
    closed = _close(dict(schema)) if "allOf" not in json.dumps(schema) else dict(schema)
    return f"%json {json.dumps({**closed, 'x-guidance': _LAYOUT})}"


def calls_rules(
    tools: Sequence[Tool], format: ToolFormat, controls: Mapping[str, int], parallel: bool
) -> str:
    """Rules with ``calls``: one call after the other, or exactly one.

    ``controls`` are the texts that are one token of the model, which no other text may spell.
    """
    head = spelled(format.open, controls) + " " + spelled('{"name": "', controls)
    between = spelled(format.between, controls)
    # Only past a line break do small models show that they wanted no more than one call.
    more = f" ({between} call){{0,{MAX_CALLS - 1}}} {between}?"
    rules = [
        f"calls: call{more if parallel and format.marker else ''}",
        f"call: {head} body {spelled('}' + format.close, controls)}",
        "body: " + " | ".join(f"tool{i}" for i in range(len(tools))),
    ]
    for i, tool in enumerate(tools):
        before = spelled(f'{tool.name}", "{format.key}": ', {})
        rules.append(f"tool{i}: {before} {json_rule(arguments_schema(tool))}")
    return "\n".join(rules)


def words_rule(format: ToolFormat, lenient: bool) -> str:
    """A rule ``WORDS``: any text in which no call begins; see `Grammars` for ``lenient``."""
    rule = "WORDS: /(?s:.*)/"
    if lenient:
        rule += " & ~/\\s*([{<]|```)(?s:.*)/"
    elif not format.marker:
        rule += " & ~/\\s*\\{(?s:.*)/"
    return f"{rule} & ~/(?s:.*){re.escape(format.marker)}(?s:.*)/" if format.marker else rule


def spelled(text: str, controls: Mapping[str, int]) -> str:
    """Text inside a grammar, in which ``controls`` are tokens."""
    if not controls:
        return json.dumps(text, ensure_ascii=False) if text else ""
    pieces = re.split(f"({'|'.join(map(re.escape, controls))})", text)
    return " ".join(f"<[{controls[p]}]>" if p in controls else spelled(p, {}) for p in pieces if p)


def _close(schema: Any) -> Any:
    """Objects that name their properties, and do not say otherwise, hold no others.

    An answer that follows the closed schema follows the open one, and small models do not get
    lost in properties that they make up.
    """
    if not isinstance(schema, Mapping):
        return schema
    out = dict(schema)
    for key in ("properties", "$defs", "definitions"):
        if isinstance(out.get(key), Mapping):
            out[key] = {name: _close(value) for name, value in out[key].items()}
    if "items" in out:
        out["items"] = _close(out["items"])
    if "properties" not in out:
        for key in ("anyOf", "oneOf"):
            if isinstance(out.get(key), list):
                out[key] = [_close(value) for value in out[key]]
    elif not any(key in out for key in _COMBINING):
        out["additionalProperties"] = False
    return out


def _reason(note: str) -> str:
    """What llguidance says, without where in our grammar."""
    lines = note.split("\n   1 | ")[0]
    return re.sub(r"^(at \d+\(\d+\): )?(failed to compile JSON schema: )?", "", lines).strip()
