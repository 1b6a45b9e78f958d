"""The file of results: appended line by line, whole after a kill, and known to the next run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from omni.errors import InputError, OmniError

_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0)


class Journal:
    """One JSON object a line in ``path``. One run at a time writes it; a context manager.

    A line is written whole or not at all, and is on the disk when `write` returns. A last line that
    a killed run left unfinished is dropped. Nothing is taken away before there is something newer:
    the last line of a record counts, until `compact`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        self._file = -1
        self._digests: dict[str, str] = {}
        self._failed: set[str] = set()
        self._repeated = False

    def __enter__(self) -> Self:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"another run writes {self.path}; wait for it, or choose another --out",
                param="out",
            ) from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            self._file = os.open(self.path, _FLAGS | os.O_CREAT, 0o666)
            self._repair()
            for result in _results(self.path):
                self._note(result)
        except OSError as error:
            self.close()
            raise self._unwritable(error) from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._lock.release()

    def state(self, identity: str, digest: str) -> str:
        """``done``, ``failed``, ``changed`` (its media, questions or settings) or ``new``."""
        if identity not in self._digests:
            return "new"
        if self._digests[identity] != digest:
            return "changed"
        return "failed" if identity in self._failed else "done"

    def compact(self) -> None:
        """Keep the last line of each record only: a record that is done again has more than one.

        The file is replaced as a whole.
        """
        if not self._repeated:
            return
        last = {result["id"]: number for number, result in enumerate(_results(self.path))}
        fresh = self.path.with_name(f"{self.path.name}.new")
        try:
            with self.path.open("rb") as old, fresh.open("wb") as file:
                for number, line in enumerate(old):
                    if last[json.loads(line)["id"]] == number:
                        file.write(line)
                file.flush()
                os.fsync(file.fileno())
            # The lock is on a file of its own, so that this one can be replaced.
            os.close(self._file)
            self._file = -1
            fresh.replace(self.path)
            self._file = os.open(self.path, _FLAGS)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise self._unwritable(error) from None
        self._repeated = False

    def write(self, result: dict[str, Any]) -> None:
        """Append a result. `OmniError` when the disk is full: the file is then as before."""
        line = json.dumps(result, ensure_ascii=False).encode() + b"\n"
        begin = os.lseek(self._file, 0, os.SEEK_END)
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, begin)
            raise self._unwritable(error) from None
        self._note(result)

    def _note(self, result: dict[str, Any]) -> None:
        identity = result["id"]
        self._repeated = self._repeated or identity in self._digests
        self._digests[identity] = result.get("digest", "")
        (self._failed.add if result.get("error") else self._failed.discard)(identity)

    def _repair(self) -> None:
        """Drop what follows the last line end."""
        size = os.lseek(self._file, 0, os.SEEK_END)
        end = size
        while end:
            begin = max(0, end - 65536)
            os.lseek(self._file, begin, os.SEEK_SET)
            at = os.read(self._file, end - begin).rfind(b"\n")
            if at >= 0:
                end = begin + at + 1
                break
            end = begin
        if end == 0 and size:
            # One line without an end: torn, if it is one of ours at all.
            os.lseek(self._file, 0, os.SEEK_SET)
            if os.read(self._file, 1) != b"{":
                raise _foreign(self.path, 1)
        if end < size:
            os.ftruncate(self._file, end)

    def _unwritable(self, error: OSError) -> OmniError:
        return OmniError(
            f"cannot write {self.path}: {error.strerror or error}; what was written before is "
            "whole. Make room or choose another --out, and run the same command again: it goes on "
            "where this one stopped"
        )


def read_results(path: Path) -> Iterator[dict[str, Any]]:
    """The results in a file of `Journal`, of each record the last.

    Raises `InputError` for another kind of file.
    """
    last = {result["id"]: number for number, result in enumerate(_results(path))}
    for number, result in enumerate(_results(path)):
        if last[result["id"]] == number:
            yield result


def _results(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                result = json.loads(line)
                if not isinstance(result, dict) or not result.keys() >= {"id", "digest", "media"}:
                    raise ValueError
            except ValueError:
                raise _foreign(path, number) from None
            yield result


def _foreign(path: Path, line: int) -> InputError:
    return InputError(
        f"line {line} of {path} is no result of `omni batch`; choose another file with --out",
        param="out",
    )
