"""Recipes as values: frozen dataclasses that know their fields, and changes to them by path."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, dataclass_transform, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from omni.errors import InputError

C = TypeVar("C")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def config(cls: type[C]) -> type[C]:
    """A frozen dataclass whose constructor answers an unknown field with those that exist."""
    made: Any = dataclass(frozen=True, slots=True, kw_only=True)(cls)
    init, names = made.__init__, [f.name for f in fields(made)]

    def checked(self: Any, **values: Any) -> None:
        for name in values.keys() - set(names):
            raise unknown(cls.__qualname__, name, names)
        try:
            init(self, **values)
        except TypeError as error:
            raise InputError(f"{cls.__qualname__}: {error}") from None

    made.__init__ = checked
    result: type[C] = made
    return result


def unknown(owner: str, name: str, names: Iterable[str]) -> InputError:
    """The error for a name that ``owner`` does not have."""
    known = sorted(names)
    near = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return InputError(
        f"{owner} has no {name!r}{hint}; it has: {', '.join(known) or 'nothing'}", param=name
    )


def positive(owner: object, *names: str) -> None:
    """Raise `InputError` unless these fields of a config are finite and above 0."""
    for name in names:
        value = getattr(owner, name)
        if not (math.isfinite(value) and value > 0):
            raise InputError(
                f"{type(owner).__qualname__}.{name} is {value}; expected a number above 0",
                param=name,
            )


def override(value: C, assignments: Iterable[str]) -> C:
    """``value`` with ``path=value`` assignments carried out, as in ``stages.pretrain.steps=100``.

    A step of a path is a field, the key of a mapping, or the index or the ``name`` of an element
    of a tuple. Raises `InputError` for a path that does not exist or a value of another type.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise InputError(f"{assignment!r} is no assignment; write PATH=VALUE", param="set")
        value = _set(value, path.split("."), text, path)
    return value


def _set(owner: Any, path: list[str], text: str, whole: str) -> Any:
    name, *rest = path
    if is_dataclass(owner) and not isinstance(owner, type):
        names = [f.name for f in fields(owner)]
        if name not in names:
            raise unknown(type(owner).__qualname__, name, names)
        if rest:
            return replace(owner, **{name: _set(getattr(owner, name), rest, text, whole)})
        return replace(owner, **{name: _parse(text, get_type_hints(type(owner))[name], whole)})
    if isinstance(owner, Mapping):
        if name not in owner:
            raise unknown(whole, name, map(str, owner))
        kind = type(owner[name])
        new = _set(owner[name], rest, text, whole) if rest else _parse(text, kind, whole)
        return {**owner, name: new}
    if isinstance(owner, tuple):
        names = [getattr(item, "name", str(i)) for i, item in enumerate(owner)]
        if name not in names and not (name.isdigit() and int(name) < len(owner)):
            raise unknown(whole, name, names)
        i = names.index(name) if name in names else int(name)
        kind = type(owner[i])
        new = _set(owner[i], rest, text, whole) if rest else _parse(text, kind, whole)
        return (*owner[:i], new, *owner[i + 1 :])
    raise InputError(f"{whole}: there is nothing below a {type(owner).__name__}", param="set")


def _parse(text: str, kind: Any, path: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    # A name such as 1.5 may be meant as words.
    for candidate in (value, text):
        try:
            adapter = TypeAdapter[Any](kind, config=ConfigDict(arbitrary_types_allowed=True))
        except Exception:
            adapter = TypeAdapter[Any](kind)
        try:
            return adapter.validate_python(candidate)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
    raise InputError(f"{path}={text}: {problem[0].lower()}{problem[1:]}", param="set")


def plain(value: object) -> Any:
    """A config as JSON types, with the class of every part, so that two can be compared."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"": type(value).__qualname__, **parts}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list, frozenset)):
        return [plain(v) for v in (sorted(value) if isinstance(value, frozenset) else value)]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two results of `plain` differ, as ``path was A, is B``."""
    if isinstance(a, dict) and isinstance(b, dict):
        found = []
        for key in [*a, *(k for k in b if k not in a)]:
            found += differences(a.get(key), b.get(key), f"{path}.{key}".strip("."))
        return found
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{path}.{i}")]
    return [] if a == b else [f"{path} was {json.dumps(a)}, is {json.dumps(b)}"]
