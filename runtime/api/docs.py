"""``/docs``: the API on one page that loads nothing from elsewhere."""

from __future__ import annotations

import json
import shlex
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter()

DESCRIPTION = (
    "OpenAI-compatible HTTP beside the Realtime protocol at `/v1/realtime`. Errors are "
    '`{"error": {"message", "type", "param", "code"}}`. Where the server has API keys, send '
    "`Authorization: Bearer KEY`."
)

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8884; margin-top: 2rem; }
pre { padding: .8rem; overflow-x: auto; background: #8881; border-radius: .4rem; }
code, pre { font: .875rem/1.45 ui-monospace, monospace; }
table { border-collapse: collapse; } td { padding: .15rem 1rem .15rem 0; vertical-align: top; }
b { display: inline-block; min-width: 3.2rem; }
"""


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Every route with its fields and examples that can be copied."""
    spec = request.app.openapi()
    base = str(request.base_url).rstrip("/")
    routes = "".join(
        _route(spec, method, path, operation, base)
        for path, methods in spec["paths"].items()
        for method, operation in methods.items()
    )
    title = escape(f"{spec['info']['title']} {spec['info']['version']}")
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{_prose(spec['info']['description'])}</p>"
        f'<p><a href="openapi.json">openapi.json</a></p>{routes}</html>'
    )


def _route(
    spec: dict[str, Any], method: str, path: str, operation: dict[str, Any], base: str
) -> str:
    body: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
    kind = next(iter(body), "")
    content: dict[str, Any] = body.get(kind, {})
    shown = "".join(
        f"<p>{escape(e.get('summary', name))}</p>"
        f"<pre>{escape(_curl(method, base + path, kind, e['value']))}</pre>"
        for name, e in content.get("examples", {}).items()
    )
    if method == "get":
        shown = f"<pre>{escape(_curl(method, base + path.replace('{model}', 'omni')))}</pre>"
    return (
        f"<section><h2><b>{method.upper()}</b> <code>{escape(path)}</code></h2>"
        f"<p><strong>{escape(operation['summary'])}.</strong> "
        f"{_prose(operation.get('description', ''))}</p>{_fields(spec, content)}{shown}</section>"
    )


def _fields(spec: dict[str, Any], content: dict[str, Any]) -> str:
    schema = _resolved(spec, content.get("schema", {}))
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{escape(_type(spec, field))}"
        f"<td>{'required' if name in required else ''} {_prose(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table>{rows}</table>" if rows else ""


def _resolved(spec: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _type(spec: dict[str, Any], field: dict[str, Any]) -> str:
    if "$ref" in field:
        return _type(spec, _resolved(spec, field))
    if "enum" in field or "const" in field:
        return " | ".join(json.dumps(v) for v in field.get("enum", [field.get("const")]))
    for union in ("anyOf", "oneOf"):
        if union in field:
            return " | ".join(dict.fromkeys(_type(spec, member) for member in field[union]))
    if field.get("type") == "array":
        return f"list of {_type(spec, field.get('items', {}))}"
    low, high = field.get("minimum"), field.get("maximum")
    bounds = f" from {low:g} to {high:g}" if low is not None and high is not None else ""
    return f"{field.get('type', 'any')}{bounds}"


def _curl(method: str, url: str, kind: str = "", value: Any = None) -> str:
    if method == "get":
        return f"curl {url}"
    if kind.startswith("multipart"):
        fields = " ".join(f"-F {shlex.quote(f'{k}={v}')}" for k, v in value.items())
        return f"curl {url} \\\n  {fields}"
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return f"curl {url} \\\n  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(text)}"


def _prose(text: str) -> str:
    """Markdown of the little that our descriptions use."""
    pieces = escape(" ".join(text.split()), quote=False).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))
