"""How a model writes tool calls, and conversations with tools as chat templates read them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omni.types import Message, Tool

Rendered = dict[str, Any]
"""One message as chat templates expect it."""


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """The text of one call: ``open``, ``{"name": "…", "<key>": {…}}``, ``close``.

    ``marker`` is what opens a call within an answer; without one a call is bare JSON, which only
    the beginning of an answer can be, and an answer holds no more than one.
    """

    marker: str = "<tool_call>"
    open: str = "<tool_call>\n"
    key: str = "arguments"
    close: str = "\n</tool_call>"
    between: str = "\n"
    """What parts two calls, and the words from the first."""
    native: bool = True
    """Whether the chat template knows tools itself."""


HERMES = ToolFormat(native=False)
"""For models whose template has no tools: what Qwen and the Hermes models were trained on."""
_OWN_TEXT = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{tools}\n"
    "</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n"
    '<tool_call>\n{{"name": <function-name>, "arguments": <args-json-object>}}\n</tool_call>'
)
_PROBE = re.compile(
    r'(?P<open>(?P<marker><tool_call>)\s*)?\{"name": "probe", '
    r'"(?P<key>arguments|parameters)": \{"x": 1\}\}(?P<close>\s*</tool_call>)?'
)


def detect_format(render: Callable[[list[Rendered], list[Rendered]], str]) -> ToolFormat:
    """See how a chat template writes a call; ``render`` takes messages and tools.

    A template that leaves tools out, or writes calls in another way than these, gets `HERMES`.
    """
    probe = Tool("probe", "a probing tool")
    call = {"name": "probe", "arguments": {"x": 1}}
    try:
        text = render(
            [
                {"role": "user", "content": "?"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"id": "probecall", "type": "function", "function": call}],
                },
                {"role": "tool", "content": "found", "tool_call_id": "probecall", "name": "probe"},
            ],
            [declaration(probe)],
        )
    except Exception:
        return HERMES  # whatever a template may raise: it does not take tools
    written = _PROBE.search(text, text.find(probe.description) + 1)
    if written is None or probe.description not in text or "found" not in text[written.end() :]:
        return HERMES
    if written["marker"] is None:
        return ToolFormat("", "", written["key"], "", "", native=True)
    return ToolFormat(written["marker"], written["open"], written["key"], written["close"] or "")


def declaration(tool: Tool, clean: Callable[[str], str] = str) -> Rendered:
    """A tool as chat templates expect it; ``clean`` goes over every string."""
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters) or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": _map(function, clean)}


def lay_out(
    messages: Sequence[Message],
    format: ToolFormat,
    write: Callable[[Message], str],
    clean: Callable[[Message, str], str],
) -> list[Rendered]:
    """Messages for the template, from what each says; ``clean`` makes harmless what it calls."""
    names = {call.id: call.name for m in messages for call in m.tool_calls}
    out: list[Rendered] = []
    for message in messages:
        content = write(message)
        calls = [_call(c.id, c.name, c.arguments, message, clean) for c in message.tool_calls]
        if message.role == "tool":
            if format.native:
                name = clean(message, names.get(message.call_id or "", ""))
                out.append(
                    {
                        "role": "tool",
                        "content": content,
                        "tool_call_id": message.call_id,
                        "name": name,
                    }
                )
            else:
                content = f"<tool_response>\n{content}\n</tool_response>"
                if out and out[-1]["role"] == "user":  # many templates want roles to alternate
                    out[-1]["content"] += "\n" + content
                else:
                    out.append({"role": "user", "content": content})
        elif not calls:
            out.append({"role": message.role, "content": content})
        elif not format.native:
            texts = [content, *(write_call(c["function"], format) for c in calls)]
            out.append({"role": "assistant", "content": "\n".join(filter(None, texts))})
        elif not format.marker and len(calls) > 1:
            out.append({"role": "assistant", "content": content, "tool_calls": calls[:1]})
            out.extend({"role": "assistant", "content": "", "tool_calls": [c]} for c in calls[1:])
        else:
            out.append({"role": "assistant", "content": content, "tool_calls": calls})
    return out


def add_own_text(messages: list[Rendered], tools: Sequence[Rendered]) -> list[Rendered]:
    """The tools as words of the system message, for a template that does not take them."""
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = _OWN_TEXT.format(tools=lines)
    if messages and messages[0]["role"] == "system":
        first = {"role": "system", "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def write_call(function: Mapping[str, Any], format: ToolFormat) -> str:
    """A call as the model would write it."""
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    body = f'{{"name": "{function["name"]}", "{format.key}": {arguments}}}'
    return format.open + body + format.close


def _call(
    id: str, name: str, arguments: str, message: Message, clean: Callable[[Message, str], str]
) -> Rendered:
    try:
        value = json.loads(arguments)
    except ValueError:
        value = arguments  # the client's own: shown as it is
    function = {"name": name, "arguments": value}
    return {
        "id": id,
        "type": "function",
        "function": _map(function, lambda text: clean(message, text)),
    }


def _map(value: Any, function: Callable[[str], str]) -> Any:
    """``function`` over every string of a JSON value."""
    match value:
        case str():
            return function(value)
        case Mapping():
            return {function(str(k)): _map(v, function) for k, v in value.items()}
        case list() | tuple():
            return [_map(v, function) for v in value]
        case _:
            return value
