"""What a batch works on: files, folders, patterns, manifests and standard input -> records."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from omni.errors import InputError, MediaError, OmniError

Kind = Literal["audio", "video", "image", "text"]
KINDS: tuple[Kind, ...] = ("audio", "video", "image", "text")

SUFFIXES = frozenset(
    (
        *(".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma", ".amr"),
        *(".aiff", ".aif", ".caf", ".webm", ".mp4", ".m4v", ".mov", ".mkv", ".avi", ".mpg"),
        *(".mpeg", ".3gp", ".flv", ".wmv", ".ogv", ".png", ".jpg", ".jpeg", ".gif", ".webp"),
        *(".bmp", ".tif", ".tiff", ".avif", ".txt", ".md"),
    )
)
"""Of files that are taken from a folder."""

_MANIFEST_KEYS = {"id", "ask", "language", *KINDS}


@dataclass(frozen=True, slots=True)
class Medium:
    """A recording, clip, picture or text: a file, or words. ``kind`` None: its content tells."""

    kind: Kind | None
    path: Path | None = None
    text: str | None = None

    @property
    def name(self) -> str:
        """What it is called in messages and prompts."""
        return self.path.name if self.path else "the text"

    @property
    def stamp(self) -> tuple[object, ...]:
        """Changes when the content does."""
        if self.path is None:
            return ("text", self.text)
        try:
            found = self.path.stat()
        except OSError:
            return (self.kind, "missing")
        return (self.kind, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Record:
    """Media that belong together, and the questions about them."""

    id: str
    media: tuple[Medium, ...]
    asks: tuple[str, ...] = ()
    language: str | None = None
    """Of its recordings; None: as the batch has it."""

    def digest(self, settings: dict[str, Any]) -> str:
        """Of everything that its result depends on."""
        stamps = [medium.stamp for medium in self.media]
        text = json.dumps([stamps, self.asks, self.language, settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Unusable:
    """What should have been a record, and why it is none."""

    id: str
    error: OmniError


def read_records(
    inputs: Sequence[str],
    asks: Sequence[str] = (),
    *,
    spool: Path | None = None,
    stdin: BinaryIO | None = None,
) -> Iterator[Record | Unusable]:
    """The records of ``inputs``, in order; ``asks`` are asked of all that ask nothing themselves.

    A file's id is its path as given; a file that is given twice counts once. A line of a manifest
    that is no record, a file that is missing and an id that comes twice are `Unusable`, the rest
    goes on. A recording on standard input goes into the directory ``spool``.
    """
    ids: set[str] = set()
    files: set[Path] = set()
    for one, place in _read(inputs, tuple(asks), spool, stdin):
        if isinstance(one, Record) and place == one.id and one.media[0].path:
            path = one.media[0].path.resolve()
            if path in files:
                continue
            files.add(path)
        if one.id in ids:
            yield Unusable(
                f"{place} (again)",
                InputError(f"the id {one.id!r} came before; give every record its own", param="id"),
            )
        else:
            ids.add(one.id)
            yield one


def _read(
    inputs: Sequence[str],
    asks: tuple[str, ...],
    spool: Path | None,
    stdin: BinaryIO | None,
) -> Iterator[tuple[Record | Unusable, str]]:
    for given in inputs:
        path = Path(given).expanduser()
        if given == "-":
            yield from _standard_input(stdin or sys.stdin.buffer, spool, asks)
        elif path.is_dir():
            for name in _below(path):
                yield _file(path / name, (Path(given) / name).as_posix(), asks)
        elif path.suffix == ".jsonl" and path.is_file():
            with path.open("rb") as file:
                yield from _manifest(file, path.name, path.parent, asks)
        elif path.exists() or not glob.has_magic(given):
            yield _file(path, given, asks)
        else:
            found = sorted(glob.glob(str(path), recursive=True))
            if not found:
                problem = MediaError(f"{given!r} matches no file", code="not_found")
                yield Unusable(given, problem), given
            for name in found:
                if Path(name).is_file():
                    yield _file(Path(name), name, asks)


def _file(path: Path, name: str, asks: tuple[str, ...]) -> tuple[Record | Unusable, str]:
    if not path.is_file():
        return Unusable(name, MediaError(f"there is no file {name!r}", code="not_found")), name
    return Record(name, (Medium(None, path),), asks), name


def _below(folder: Path) -> list[str]:
    """Media files in ``folder``, as paths below it; hidden ones are left out."""
    found = []
    for directory, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                found.append((Path(directory) / name).relative_to(folder).as_posix())
    return sorted(found)


def _standard_input(
    stdin: BinaryIO, spool: Path | None, asks: tuple[str, ...]
) -> Iterator[tuple[Record | Unusable, str]]:
    """A manifest where it begins with ``{``; anything else is one file."""
    head = stdin.read(64)
    if head.lstrip()[:1] == b"{":
        lines = (head + stdin.read()).splitlines()
        yield from _manifest(lines, "stdin", Path(), asks)
        return
    if spool is None:
        raise InputError("standard input needs a directory for what comes; give `spool`")
    # Decoders look back and forth in a file.
    path = spool / "stdin"
    with path.open("wb") as file:
        file.write(head)
        shutil.copyfileobj(stdin, file)
    yield Record("stdin", (Medium(None, path),), asks), "stdin"


def _manifest(
    lines: Iterable[bytes], name: str, folder: Path, asks: tuple[str, ...]
) -> Iterator[tuple[Record | Unusable, str]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _line(line, f"{name}:{number}", folder, asks)


def _line(
    line: bytes, place: str, folder: Path, asks: tuple[str, ...]
) -> tuple[Record | Unusable, str]:
    try:
        return _parsed(line, place, folder, asks), place
    except InputError as error:
        return Unusable(place, error), place


def _parsed(line: bytes, place: str, folder: Path, asks: tuple[str, ...]) -> Record:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place} is no JSON: {error}", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise InputError(f"{place} is no JSON object; expected one like {{'audio': 'a.wav'}}")
    unknown = sorted(fields.keys() - _MANIFEST_KEYS)
    if unknown:
        raise InputError(
            f"{place} has the unknown field {unknown[0]!r}; known are "
            f"{', '.join(sorted(_MANIFEST_KEYS))}",
            param=unknown[0],
        )
    identity = fields.get("id", place)
    if not isinstance(identity, str | int) or identity == "":
        raise InputError(f"{place}: 'id' is {identity!r}; expected a text", param="id")
    media = []
    for kind in fields:
        if kind in KINDS:
            for one in _strings(fields, kind, place):
                if kind == "text":
                    media.append(Medium("text", text=one))
                else:
                    media.append(Medium(kind, folder / Path(one).expanduser()))
    own = tuple(_strings(fields, "ask", place)) if "ask" in fields else asks
    if not media and "ask" not in fields:
        raise InputError(f"{place} names no medium; give one of {', '.join(KINDS)}, or 'ask'")
    language = fields.get("language")
    if language is not None and not isinstance(language, str):
        raise InputError(
            f"{place}: 'language' is {language!r}; expected a code like 'en'", param="language"
        )
    return Record(str(identity), tuple(media), own, language)


def _strings(fields: dict[str, Any], name: str, place: str) -> list[str]:
    value = fields[name]
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) and one.strip() for one in values):
        raise InputError(
            f"{place}: {name!r} is {value!r}; expected a text or a list of texts", param=name
        )
    return values
