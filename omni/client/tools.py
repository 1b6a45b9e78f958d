"""Plain Python functions as tools: the schema from the signature, the words from the docstring."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, get_type_hints, overload

from omni.errors import InputError
from omni.types import ToolCall

if TYPE_CHECKING:
    from pydantic import BaseModel

log = logging.getLogger(__name__)

_SECTION = re.compile(
    r"(Args|Arguments|Parameters|Returns?|Yields?|Raises|Examples?|Notes?|See Also)\s*:\s*"
)
_PARAMETER = re.compile(r"(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")


class FunctionTool:
    """A function that the assistant may call. Make one with :func:`tool`."""

    def __init__(
        self, function: Callable[..., Any], name: str | None = None, description: str | None = None
    ) -> None:
        self.function = function
        self.name: str = getattr(function, "__name__", "") if name is None else name
        if not re.fullmatch(r"[\w-]{1,64}", self.name, re.ASCII):
            raise InputError(
                f"{self.name!r} cannot be a tool's name; pass one of letters, digits, _ and -: "
                "tool(function, name=...)",
                param="name",
            )
        summary, said = _read_docstring(inspect.getdoc(function) or "")
        self.description = summary if description is None else description
        from pydantic.errors import PydanticUserError

        try:
            self._arguments, self._names = _arguments(function, self.name, said)
            self.parameters = _schema(self._arguments)
            """JSON schema of the arguments."""
        except PydanticUserError as error:
            raise InputError(
                f"tool {self.name!r}: a parameter has a type that JSON cannot fill "
                f"({error.message})",
                param="tools",
            ) from error

    def wire(self) -> dict[str, Any]:
        """As ``session.tools`` wants it."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    async def run(self, arguments: str) -> str:
        """Check ``arguments``, JSON text, call the function and give back what the LLM reads.

        A string goes as it is, anything else as JSON. A function that is not async runs in a
        thread; a cancel does not stop it there. Wrong arguments and errors of the function become
        an output that says what is wrong; nothing but a cancel is raised.
        """
        import pydantic
        from pydantic_core import to_json

        try:
            checked = self._arguments.model_validate_json(arguments or "{}")
        except pydantic.ValidationError as error:
            problems = [
                f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_context=False)
            ]
            return json.dumps({"error": "invalid arguments", "problems": problems})
        given = {self._names[key]: getattr(checked, key) for key in checked.model_fields_set}
        try:
            if inspect.iscoroutinefunction(self.function):
                result = await self.function(**given)
            else:
                result = await asyncio.to_thread(self.function, **given)
                if inspect.isawaitable(result):
                    result = await result
            return result if isinstance(result, str) else to_json(result, fallback=str).decode()
        except Exception as error:
            log.warning("the tool %s failed", self.name, exc_info=error)
            return json.dumps({"error": f"{type(error).__name__}: {error}"})


ToolLike: TypeAlias = "Callable[..., Any] | FunctionTool | Mapping[str, Any]"
"""A function, or a tool as the wire has it, whose calls the caller answers."""


@overload
def tool(
    function: Callable[..., Any], /, *, name: str = ..., description: str = ...
) -> FunctionTool: ...
@overload
def tool(
    *, name: str | None = ..., description: str | None = ...
) -> Callable[[Callable[..., Any]], FunctionTool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Make a tool of a function, with another name or description than its own; also a decorator.

    ``tools=[function]`` does it by itself. Every parameter needs a type hint that JSON can fill:
    str, int, float, bool, list, dict, Literal, Enum, Optional, dataclasses, pydantic models. The
    docstring's text is the description, its ``Args:`` section (Google style) describes parameters.

    >>> @tool(name="add")
    ... def plus(a: int, b: int = 1) -> int:
    ...     '''Add two numbers.'''
    ...     return a + b
    >>> plus.parameters["required"]
    ['a']

    Raises InputError for a function that cannot be a tool.
    """
    if function is None:
        return lambda function: FunctionTool(function, name, description)
    return FunctionTool(function, name, description)


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call that the assistant made, and what the function gave back.

    ``output`` is the text that the assistant read, None while there is none.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]
    output: str | None = None

    @classmethod
    def of(cls, call: ToolCall, output: str | None = None) -> FunctionCall:
        """Read the arguments of a call; what is no JSON object is none."""
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            arguments = None
        return cls(call.id, call.name, arguments if isinstance(arguments, dict) else {}, output)


class Toolbox:
    """The functions that a client knows, by name."""

    def __init__(self) -> None:
        self._tools: dict[str, FunctionTool] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    def __bool__(self) -> bool:
        return bool(self._tools)

    def wire(self, tools: Sequence[ToolLike]) -> list[dict[str, Any]]:
        """Learn the functions among ``tools`` and give back all as the wire wants them."""
        listed = []
        for one in tools:
            if isinstance(one, Mapping):
                listed.append(dict(one))
                continue
            known = one if isinstance(one, FunctionTool) else FunctionTool(one)
            self._tools[known.name] = known
            listed.append(known.wire())
        return listed

    async def run(self, calls: Sequence[ToolCall]) -> list[str]:
        """Run calls of known tools at the same time; their outputs in the order of the calls."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._tools[call.name].run(call.arguments)) for call in calls
            ]
        return [task.result() for task in tasks]


def _arguments(
    function: Callable[..., Any], name: str, said: Mapping[str, str]
) -> tuple[type[BaseModel], dict[str, str]]:
    """A model of the arguments, and the names of the parameters by those of its fields."""
    from pydantic import ConfigDict, Field, create_model

    try:
        target = function if inspect.isroutine(function) else type(function).__call__
        hints = get_type_hints(target, include_extras=True)
    except NameError as error:
        raise InputError(
            f"tool {name!r}: the type hint {error.name!r} is not known; define it at the top of "
            "the module",
            param="tools",
        ) from error
    fields: dict[str, Any] = {}
    names = {}
    for index, parameter in enumerate(inspect.signature(function).parameters.values()):
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise InputError(
                f"tool {name!r}: {parameter} cannot be given by name; use plain parameters",
                param="tools",
            )
        if parameter.name not in hints:
            raise InputError(
                f"tool {name!r}: parameter {parameter.name!r} has no type; write one, like "
                f"{parameter.name}: str",
                param="tools",
            )
        required = parameter.default is parameter.empty
        # Fields have names of their own, so that no parameter collides with what pydantic uses.
        names[f"a{index}"] = parameter.name
        fields[f"a{index}"] = (
            hints[parameter.name],
            Field(
                ... if required else parameter.default,
                alias=parameter.name,
                description=said.get(parameter.name),
            ),
        )
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields), names


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    from pydantic.json_schema import GenerateJsonSchema

    class Plain(GenerateJsonSchema):
        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False  # it repeats the name

    schema = model.model_json_schema(schema_generator=Plain)
    schema.pop("title", None)
    return schema


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The text before the first section, and what ``Args:`` says of each parameter."""
    summary: list[str] = []
    said: dict[str, str] = {}
    section, indent, current = "", None, ""
    for line in text.splitlines():
        if found := _SECTION.fullmatch(line):
            section = found[1]
        elif not section:
            summary.append(line)
        elif section in ("Args", "Arguments", "Parameters") and line.strip():
            found = _PARAMETER.fullmatch(line)
            if found and (indent is None or len(found[1]) <= indent):
                indent, current = len(found[1]), found[2]
                said[current] = found[3].strip()
            elif current:
                said[current] = f"{said[current]} {line.strip()}".strip()
    return "\n".join(summary).strip(), said
