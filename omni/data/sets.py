"""The sets that others published: by registry, with digest and licence, fetched once and unpacked.

A set is what a few packages of Debian, npm or PyPI hold. The packages are archives to Omni: they
are downloaded by the registries' own clients, compared by sha256, unpacked and never installed.
They lie in ``data/sets/NAME`` under Omni's home, each with its copyright file where it has one.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from filelock import FileLock

from omni.errors import InputError, OmniError
from omni.weights.progress import Progress, default_progress
from omni.weights.sources import SourceError, pip_download
from omni.weights.store import home, sha256_of


@dataclass(frozen=True, slots=True)
class Package:
    """One archive: ``size`` in bytes and ``sha256`` are those of the file that is downloaded."""

    registry: Literal["apt", "npm", "pypi"]
    name: str
    version: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class DataSet:
    """A set: ``licence`` is an SPDX id where there is one, ``attribution`` what NOTICE says.

    What is made of a set with ``ships`` False may be trained on by choice, but is not shipped.
    """

    name: str
    holds: str
    licence: str
    attribution: str
    packages: tuple[Package, ...]
    ships: bool = True

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(package.size for package in self.packages)

    @property
    def path(self) -> Path:
        """Where it is unpacked."""
        return home() / "data" / "sets" / self.name


_SETS = (
    DataSet(
        "wordnet",
        "117,000 definitions and 48,000 example sentences of English",
        "WordNet-3.0",
        "WordNet 3.0, copyright 2006 by Princeton University. All rights reserved.",
        (
            Package(
                "apt", "wordnet-base", "1:3.0-37", 6_467_132,
                "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
            ),
        ),
    ),
    DataSet(
        "fortunes",
        "sayings, quotations and verse",
        "BSD-4-Clause-UC",
        "fortune-mod, copyright (c) 1991 The Regents of the University of California.",
        (
            Package(
                "apt", "fortunes", "1:1.99.1-7.3", 848_988,
                "41d0551dc0ff52f875a2ecef7c39da2f672ab468c37e170119f7e0245a9d63c5",
            ),
            Package(
                "apt", "fortunes-min", "1:1.99.1-7.3", 56_492,
                "9eed5b45064e41133dae0967cf3a17588ad77c014fcc7bf1527fa3ea48e44d07",
            ),
        ),
    ),
    DataSet(
        "devil",
        "The Devil's Dictionary (Ambrose Bierce, 1911)",
        "public domain",
        "The Devil's Dictionary by Ambrose Bierce, in the public domain.",
        (
            Package(
                "apt", "dict-devil", "1.0-13.1", 179_760,
                "6a535684def2a1f70cd42da16d12d43f0e9dc3e54e4a329178eebab3170e3154",
            ),
        ),
    ),
    DataSet(
        "jargon",
        "The Jargon File 4.4.7, prose about computers",
        "public domain",
        "The Jargon File, version 4.4.7, 29 Dec 2003, in the public domain.",
        (
            Package(
                "apt", "dict-jargon", "4.4.7-3.1", 621_608,
                "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1",
            ),
        ),
    ),
    DataSet(
        "web-bible",
        "the World English Bible, modern English prose and dialogue",
        "public domain",
        "World English Bible, in the public domain.",
        (
            Package(
                "apt", "sword-text-web", "426.0-1", 3_956_428,
                "930b23670b352f0829a306501de4bebb5e654a2df02cde2cbe86b802177868e1",
            ),
        ),
    ),
    DataSet(
        "kokoro-voices",
        "54 voices of Kokoro-82M, 28 of them English",
        "Apache-2.0",
        "Voices of Kokoro-82M by hexgrad (Apache-2.0), packed by kokoro-js (Apache-2.0).",
        (
            Package(
                "npm", "kokoro-js", "1.2.1", 26_887_218,
                "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
            ),
        ),
    ),
    DataSet(
        "clipart",
        "6,900 drawings with titles and keywords",
        "public domain",
        "Open Clip Art Library 0.18, in the public domain.",
        (
            Package(
                "apt", "openclipart-png", "1:0.18+dfsg-19", 130_910_028,
                "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
            ),
            Package(
                "apt", "openclipart-svg", "1:0.18+dfsg-19", 24_919_068,
                "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
            ),
        ),
    ),
    DataSet(
        "fluent",
        "3,391 rendered emoji, 1,646 of them with names and tags",
        "MIT",
        "Fluent Emoji, copyright (c) Microsoft Corporation (MIT), packed by LobeHub (MIT); names "
        "of emojibase, copyright (c) 2017-2019 Miles Johnson (MIT).",
        (
            Package(
                "npm", "@lobehub/fluent-emoji-3d", "1.1.0", 15_792_027,
                "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
            ),
            Package(
                "npm", "emojibase-data", "17.0.0", 6_711_091,
                "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
            ),
        ),
    ),
    DataSet(
        "openmoji",
        "4,495 drawn emoji with names and tags",
        "CC-BY-SA-4.0",
        "OpenMoji, the open-source emoji and icon project. License: CC BY-SA 4.0.",
        (
            Package(
                "npm", "openmoji", "17.0.0", 4_339_458,
                "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
            ),
        ),
        ships=False,
    ),
    DataSet(
        "easy-vqa",
        "5,000 pictures of shapes with 48,000 questions",
        "MIT",
        "easy-VQA, copyright (c) 2019 Victor Zhou (MIT).",
        (
            Package(
                "pypi", "easy-vqa", "1.0", 3_215_672,
                "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
            ),
        ),
    ),
    DataSet(
        "foolbox",
        "20 labelled photographs each of ImageNet and CIFAR",
        "MIT",
        "Samples of foolbox, copyright (c) 2020 Jonas Rauber et al. (MIT).",
        (
            Package(
                "pypi", "foolbox", "3.3.4", 1_677_112,
                "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
            ),
        ),
        ships=False,
    ),
    DataSet(
        "gcompris",
        "322 named photographs of things and animals",
        "CC-BY-SA, CC-BY, public domain (by file)",
        "GCompris, copyright by its authors; the licence of each picture is in its copyright file.",
        (
            Package(
                "apt", "gcompris-qt-data", "3.1-2", 44_196_292,
                "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
            ),
        ),
        ships=False,
    ),
)  # fmt: skip
SETS = {s.name: s for s in _SETS}


def set_of(name: str) -> DataSet:
    """Look up a set. Raises `InputError` for a name that none has."""
    try:
        return SETS[name]
    except KeyError:
        raise InputError(
            f"no set is called {name!r}; choose from: {', '.join(SETS)}", param="name"
        ) from None


def pull(name: str, progress: Progress | None = None) -> Path:
    """Give the directory of a set, fetched and unpacked if it is not here yet.

    It appears whole or not at all; while one process fetches it, others wait.

    Raises:
        InputError: no set has this name.
        OmniError: a package cannot be downloaded or is another file than it should be (the message
            says which and what to do), or the disk is full.

    """
    chosen = set_of(name)
    path = chosen.path
    if path.exists():
        return path
    progress = progress or default_progress()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_suffix(".lock")):
            if path.exists():
                return path
            # On the same disk, so that it can be moved into place.
            with TemporaryDirectory(prefix=f".{name}-", dir=path.parent) as scratch:
                room = Path(scratch)
                (room / "set").mkdir()
                for package in chosen.packages:
                    with _download(package, room, progress) as archive:
                        _unpack(package, archive, room / "set")
                (room / "set").replace(path)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise OmniError(
            f"cannot keep the set {name} in {path.parent}: {error}; "
            + ("free some space" if full else "make it writable")
            + " or set OMNI_HOME to another disk"
        ) from error
    return path


def require(names: Iterable[str]) -> dict[str, Path]:
    """Where the sets of these names are. Raises `InputError` naming those to pull first."""
    sets = [set_of(name) for name in names]
    missing = [s.name for s in sets if not s.path.exists()]
    if missing:
        raise InputError(
            f"the sets {', '.join(missing)} are not here; get them with "
            f"`omni data pull {' '.join(missing)}`"
        )
    return {s.name: s.path for s in sets}


@contextmanager
def _download(package: Package, room: Path, progress: Progress) -> Iterator[Path]:
    """The archive of ``package``, checked; removed afterwards."""
    label = f"{package.name} {package.version}"
    progress.start(label, package.size)
    try:
        if package.registry == "pypi":
            with pip_download(package.name, package.version, room, progress.update) as archive:
                _check(package, archive)
                progress.update(package.size)
                yield archive
        else:
            with TemporaryDirectory(dir=room) as folder:
                command = {
                    "apt": ["apt-get", "download", f"{package.name}={package.version}"],
                    "npm": ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
                }[package.registry]
                _run(command, Path(folder), package)
                archive = next(Path(folder).iterdir())
                _check(package, archive)
                progress.update(package.size)
                yield archive
    except SourceError as error:
        raise OmniError(f"{label} cannot be had: {error}") from error
    finally:
        progress.finish()


def _run(command: list[str], folder: Path, package: Package) -> None:
    if shutil.which(command[0]) is None:
        what = {"apt": "Debian or Ubuntu", "npm": "Node.js"}[package.registry]
        raise SourceError(
            f"it is fetched by {command[0]}, which is not here; install it ({what}), or copy the "
            "set's directory from a machine that has it"
        )
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode or not any(folder.iterdir()):
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise SourceError(f"`{' '.join(command)}` said: {lines[-1] if lines else 'nothing'}")


def _check(package: Package, archive: Path) -> None:
    size, digest = archive.stat().st_size, sha256_of(archive)
    if (size, digest) != (package.size, package.sha256):
        raise SourceError(
            f"the registry gave {size} bytes with sha256 {digest}, expected {package.size} bytes "
            f"with {package.sha256}"
        )


def _unpack(package: Package, archive: Path, target: Path) -> None:
    """Files only, below ``target``; archives that point elsewhere are refused by the readers."""
    if package.registry == "apt":
        _run(["dpkg-deb", "-x", str(archive), str(target)], target, package)
    elif package.registry == "npm":
        with tarfile.open(archive) as tar:
            tar.extractall(target / package.name.split("/")[-1], filter="data")
    else:
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(target)
