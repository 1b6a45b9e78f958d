"""Results as files that other programs read: subtitles, text, tables."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from omni.captions import srt, vtt
from omni.errors import InputError, MissingExtraError, OmniError
from omni.types import Segment

COLUMNS = (
    *("id", "status", "kinds", "paths", "seconds", "language", "transcript", "seen"),
    *("ask", "answer", "speech", "picture", "error_code", "error"),
)
"""Of a table: a row for every question, one at least for every record."""

_UNSAFE = re.compile(r'[<>:"|?*\x00-\x1f\\]')


def beside(directory: Path, identity: str, suffix: str) -> Path:
    """The file in ``directory`` that belongs to a record; it is never outside of it."""
    parts = [_UNSAFE.sub("_", part) for part in identity.split("/")]
    parts = [part for part in parts if part not in ("", ".", "..")]
    return directory.joinpath(*parts[:-1], (parts[-1] if parts else "_") + suffix)


def write_captions(result: dict[str, Any], directories: dict[str, Path]) -> list[Path]:
    """Write the transcripts of a result as "srt", "vtt" or "txt" files into ``directories``.

    A file for each recording of the record, numbered from the second on.
    """
    written = []
    heard = [one["transcript"] for one in result["media"] if "transcript" in one]
    for number, transcript in enumerate(heard, 1):
        again = f".{number}" if number > 1 else ""
        for kind, directory in directories.items():
            path = beside(directory, result["id"], f"{again}.{kind}")
            _replace(path, _WRITERS[kind](transcript))
            written.append(path)
    return written


def _segments(transcript: dict[str, Any]) -> Iterator[Segment]:
    for part in transcript["segments"]:
        who = f"[{part['speaker']}] " if "speaker" in part else ""
        yield Segment(who + part["text"], part["start"], part["end"])


def _text(transcript: dict[str, Any]) -> str:
    if any("speaker" in part for part in transcript["segments"]):
        return "".join(f"{segment.text}\n" for segment in _segments(transcript))
    return f"{transcript['text']}\n"


_WRITERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "srt": lambda transcript: srt(_segments(transcript)),
    "vtt": lambda transcript: vtt(_segments(transcript)),
    "txt": _text,
}


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, "utf-8")
        os.replace(fresh, path)
    except OSError as error:
        raise _unwritable(path, error) from None


def rows(results: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of a table, with `COLUMNS`."""
    for result in results:
        media, error = result["media"], result["error"] or {}
        heard = [one["transcript"] for one in media if "transcript" in one]
        seconds = [one["seconds"] for one in media if "seconds" in one]
        row = {
            "id": result["id"],
            "status": "error" if error else "ok",
            "kinds": " ".join(one["kind"] for one in media),
            "paths": " ".join(one["path"] for one in media if one["path"]),
            "seconds": round(sum(seconds), 2) if seconds else None,
            "language": " ".join(dict.fromkeys(one["language"] for one in heard)),
            "transcript": "\n".join(one["text"] for one in heard),
            "seen": "\n".join(part["text"] for one in media for part in one.get("seen", ())),
            "error_code": error.get("code"),
            "error": error.get("message"),
        }
        empty = {"ask": None, "answer": None, "speech": None, "picture": None}
        for answer in result["answers"] or [{}]:
            yield {name: {**row, **empty, **answer}[name] for name in COLUMNS}


def write_csv(path: Path, results: Iterable[dict[str, Any]]) -> None:
    """A table for spreadsheets: UTF-8 with its mark, which they want."""
    try:
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(rows(results))
    except OSError as error:
        raise _unwritable(path, error) from None


def write_parquet(path: Path, results: Iterable[dict[str, Any]]) -> None:
    """The same table for data tools. `MissingExtraError` without pyarrow."""
    check_parquet()
    import pyarrow
    from pyarrow import parquet

    types = {"seconds": pyarrow.float64()}
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in COLUMNS])
    table = pyarrow.Table.from_pylist(list(rows(results)), schema=schema)
    try:
        parquet.write_table(table, path)
    except OSError as error:
        raise _unwritable(path, error) from None


def check_parquet() -> None:
    """Raise `MissingExtraError` without pyarrow."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "Parquet needs pyarrow; install it with: pip install 'omni-assistant[data]'"
        ) from None


def check_directory(path: Path, param: str) -> None:
    """Make ``path`` a directory. Raises `InputError` when it cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be a directory: {error.strerror or error}; choose another for {param}",
            param=param,
        ) from None


def _unwritable(path: Path, error: OSError) -> OmniError:
    return OmniError(f"cannot write {path}: {error.strerror or error}; make room or choose another")
