"""Read dialogues from YAML; errors name the file, the line and what was expected."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from omni.dialogues.format import Dialogue, fields_of
from omni.dialogues.results import Problem
from omni.errors import InputError, OmniError

SUFFIX = ".dialogue.yaml"
_MAX_BYTES = 2**20


class ScriptError(InputError):
    """A file that is no dialogue; ``problems`` are all that was found in it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Script:
    """A dialogue and where it was read from."""

    path: Path
    dialogue: Dialogue
    root: yaml.Node

    @property
    def name(self) -> str:
        """Its name, by default the file's."""
        return self.dialogue.name or self.path.name.removesuffix(SUFFIX)

    def line(self, *place: str | int) -> int:
        """Where the file says something: ``line("turns", 0, "say")``.

        Of what is not there, the line of what it would be in.
        """
        return _find(self.root, place)[1]

    def problem(self, message: str, *place: str | int) -> Problem:
        """The message as one about that place."""
        return Problem(message, self.path, self.line(*place))

    @contextlib.contextmanager
    def blamed(self, *place: str | int) -> Iterator[None]:
        """What goes wrong in the block is a Failure of that place."""
        try:
            yield
        except OmniError as error:
            raise Failure(self.problem(str(error), *place)) from error


class Failure(Exception):
    """A dialogue cannot go on; ``problem`` says why, and where the file asked for it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def read(path: Path) -> Script:
    """Read one dialogue; raises ScriptError, which lists every problem with its line."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ScriptError([Problem("is larger than 1 MiB; is it a dialogue?", path)])
        root, data = _parse(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError:
        raise ScriptError([Problem("is not UTF-8 text", path)]) from None
    except OSError as error:
        raise ScriptError([Problem(f"cannot be read: {error.strerror}", path)]) from None
    try:
        dialogue = Dialogue.model_validate(data, context={"folder": path.parent})
    except ValidationError as error:
        raise ScriptError(list(_explain(error.errors(), root, path))) from None
    return Script(path, dialogue, root)


def find(paths: Iterable[Path]) -> list[Path]:
    """The dialogues that the paths name: files of any name, and ``*.dialogue.yaml`` in folders.

    Raises InputError for a path that is not there and a folder without dialogues.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"there is no {path}; expected a dialogue or a folder of dialogues")
        inside = sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"there is no *{SUFFIX} in {path}")
        found |= dict.fromkeys(inside)
    return list(found)


def _parse(text: str, path: Path) -> tuple[yaml.Node, Any]:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise ScriptError([Problem("is empty; expected a dialogue with turns", path)])
        _check_keys(root, path, set())
        return root, loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        line = mark.line + 1 if mark is not None else None
        raise ScriptError([Problem(f"is not YAML: {what}", path, line)]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ScriptError([Problem(f"is not YAML: {error}", path)]) from None
    finally:
        loader.dispose()


def _check_keys(node: yaml.Node, path: Path, seen: set[int]) -> None:
    """PyYAML lets the last of two equal keys win."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check_keys(child, path, seen)
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if key.value in keys and isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise ScriptError([Problem(f"{key.value} is there twice", path, line)])
            if isinstance(key, yaml.ScalarNode):
                keys.add(key.value)
            _check_keys(value, path, seen)


def _find(node: yaml.Node, place: Iterable[str | int]) -> tuple[tuple[str | int, ...], int]:
    """How much of the place is there, and the line of that; what is not there is passed over.

    Pydantic puts the names of alternatives between the steps of a place.
    """
    line, found = node.start_mark.line + 1, []
    for step in place:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == step:
                    line, node = key.start_mark.line + 1, value
                    found.append(step)
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line + 1
            found.append(step)
    return tuple(found), line


Steps: TypeAlias = tuple[str | int, ...]
_KINDS = {
    "string_type": "a text",
    "path_type": "a path",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "float_type": "a number",
    "float_parsing": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}


def _explain(errors: Sequence[ErrorDetails], root: yaml.Node, path: Path) -> Iterator[Problem]:
    """One problem for each place, in the order of the file."""
    wrong: dict[Steps, list[str]] = {}
    kinds: dict[Steps, list[str]] = {}
    lines: dict[Steps, int] = {}
    meant = _meant(errors, root, 0)
    misspelt = {_find(root, e["loc"])[0][:-1] for e in meant if e["type"] == "extra_forbidden"}
    for error in meant:
        place, line = _find(root, error["loc"])
        if error["type"] == "missing" and place in misspelt:
            continue
        lines[place] = line
        wrong.setdefault(place, [])
        match error["type"]:
            case "missing":
                wrong[place].append(f"{error['loc'][-1]} is missing")
            case "extra_forbidden":
                inside = next((step for step in place[-2::-1] if isinstance(step, str)), None)
                wrong[place].append(f"unknown field; expected {', '.join(fields_of(inside))}")
            case kind if kind in _KINDS:
                kinds.setdefault(place, []).append(_KINDS[kind])
            case _:
                wrong[place].append(error["msg"].replace("Input should", "it should"))
    for place in sorted(lines, key=lambda place: lines[place]):
        expected = "expected " + " or ".join(dict.fromkeys(kinds.get(place, ())))
        said = "; or ".join(dict.fromkeys(wrong[place])) or expected
        name = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
        yield Problem(f"{name}: {said}" if name else said, path, lines[place])


def _meant(errors: Iterable[ErrorDetails], root: yaml.Node, decided: int) -> list[ErrorDetails]:
    """Where a value may be one of several things, only the errors of what was meant.

    That is, of those of the right kind, the one with the fewest errors. Pydantic names it in
    ``loc``, between the steps into the file; the first ``decided`` steps have been looked at.
    """
    kept: list[ErrorDetails] = []
    undecided: dict[Steps, dict[str | int, list[ErrorDetails]]] = {}
    for error in errors:
        steps = error["loc"][:-1] if error["type"] == "missing" else error["loc"]
        named = (i for i in range(decided, len(steps)) if not _is_there(root, steps[: i + 1]))
        if (at := next(named, None)) is None:
            kept.append(error)
        else:
            undecided.setdefault(steps[:at], {}).setdefault(steps[at], []).append(error)
    for before, alternatives in undecided.items():
        place = _find(root, before)[0]
        meant = [_meant(those, root, len(before) + 1) for those in alternatives.values()]
        fitting = [those for those in meant if not any(_other_kind(e, root, place) for e in those)]
        fitting.sort(key=len)
        for those in fitting[:1] or meant:
            kept += those
    return kept


def _is_there(root: yaml.Node, steps: Steps) -> bool:
    """Whether the last step leads into the file."""
    return len(_find(root, steps)[0]) > len(_find(root, steps[:-1])[0])


def _other_kind(error: ErrorDetails, root: yaml.Node, place: Steps) -> bool:
    return error["type"] in _KINDS and _find(root, error["loc"])[0] == place
