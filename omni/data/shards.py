"""Samples in shards of Parquet: written whole or not at all, read as a stream that can resume.

A directory holds ``00000.parquet``, ``00001.parquet``, … and ``index.json``, which says of every
shard how many samples and bytes it has and its sha256. Shards have small row groups with checksums,
so that reading takes little memory and sees what is damaged.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from filelock import FileLock, Timeout

from omni.data.rows import SCHEMA, from_row, to_row
from omni.data.sample import Sample
from omni.data.tables import pa, pq
from omni.errors import InputError, OmniError

INDEX = "index.json"
ROWS = 64
"""Samples in a row group: what one read brings into memory."""
POOL = 8
"""Row groups that are shuffled together."""


@dataclass(frozen=True, slots=True)
class Shard:
    """What the index says of one shard: ``groups`` are the sizes of its row groups."""

    name: str
    samples: int
    bytes: int
    sha256: str
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """What a directory holds; ``recipe`` says how its samples were made."""

    shards: tuple[Shard, ...]
    recipe: Mapping[str, Any]

    @property
    def samples(self) -> int:
        """In all shards."""
        return sum(shard.samples for shard in self.shards)


def read_index(directory: Path) -> Index:
    """What ``directory`` holds. Raises `InputError` where there is no index, or a damaged one."""
    path = directory / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        shards = tuple(Shard(**{**s, "groups": tuple(s["groups"])}) for s in index["shards"])
        return Index(shards, index["recipe"])
    except FileNotFoundError:
        raise InputError(
            f"there is no data in {directory} ({INDEX} is missing); make it with `omni data make` "
            "or name the directory that holds the index",
            param="data",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as an index of shards: {error}; make the data anew",
            param="data",
        ) from error


def write_shards(
    samples: Iterable[Sample],
    directory: Path,
    *,
    size: int = 1024,
    recipe: Mapping[str, Any] | None = None,
) -> Index:
    """Write ``samples``, ``size`` to a shard; resumed and raising as `make_shards` is."""
    recipe = recipe or {}
    rest = iter(samples)
    with _open(directory, recipe) as made:
        number = 0
        while part := list(islice(rest, size)):
            if _name(number) not in made:
                made[_name(number)] = _write(directory, number, part)
                _save(directory, made, recipe)
            number += 1
        _save(directory, made, recipe)
    return read_index(directory)


def make_shards(
    make: Callable[[int], Iterable[Sample]],
    directory: Path,
    count: int,
    *,
    recipe: Mapping[str, Any] | None = None,
    workers: int = 1,
    done: Callable[[Shard], None] = lambda shard: None,
) -> Index:
    """Write ``count`` shards, the samples of shard i being ``make(i)``.

    Shards that the index names and that are there are not made again, so a run that was interrupted
    is resumed by repeating it. With ``workers`` above 1, ``make`` is pickled into that many
    processes. ``done`` is told of every shard as it is added.

    Raises:
        InputError: the directory holds data of another ``recipe``, or another process is at it.
        OmniError: the disk is full; the shards before are whole and in the index.

    """
    recipe = recipe or {}
    with _open(directory, recipe) as made:
        due = [n for n in range(count) if _name(n) not in made]

        def add(shard: Shard) -> None:
            made[shard.name] = shard
            _save(directory, made, recipe)
            done(shard)

        job = partial(_make, make, directory)
        if workers == 1 or len(due) < 2:
            for number in due:
                add(job(number))
        else:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                try:
                    for future in as_completed([pool.submit(job, n) for n in due]):
                        add(future.result())
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
        _save(directory, made, recipe)
    return read_index(directory)


def verify_shards(directory: Path) -> None:
    """Hash every shard. Raises `InputError` naming the first that is missing or damaged."""
    for shard in read_index(directory).shards:
        _require(directory, shard)
        if _sha256(directory / shard.name) != shard.sha256:
            raise _damaged(directory, shard, "its sha256 is not the index's")


def read_shards(
    directory: Path,
    *,
    seed: int = 0,
    epoch: int = 0,
    skip: int = 0,
    rank: int = 0,
    world: int = 1,
    bad: int = 0,
) -> Reader:
    """Read the samples of one epoch in the order that ``seed`` and ``epoch`` give.

    ``rank`` of ``world`` readers gets its own part: row groups are dealt out in turn. ``skip`` is
    the `Reader.position` to go on from. Up to ``bad`` samples that make no sense are left out and
    counted. Missing shards are found here, before the first sample.

    Raises:
        InputError: there is no data, or a shard is missing (here) or damaged (while reading); more
            than ``bad`` samples were bad.

    """
    return Reader(directory, seed=seed, epoch=epoch, skip=skip, rank=rank, world=world, bad=bad)


class Reader(Iterator[Sample]):
    """The samples of one epoch; see `read_shards`.

    ``position`` counts the rows that were taken, good and bad; ``bad`` those that were bad.
    """

    def __init__(
        self,
        directory: Path,
        *,
        seed: int,
        epoch: int,
        skip: int,
        rank: int,
        world: int,
        bad: int,
    ) -> None:
        if not 0 <= rank < world:
            raise InputError(f"rank {rank} is not below world {world}", param="rank")
        self._directory = directory
        shards = read_index(directory).shards
        for shard in shards:
            _require(directory, shard)
        groups = [(s, g) for s in shards for g in range(len(s.groups))]
        random = Random(f"{seed} {epoch}")
        random.shuffle(groups)
        self._random = Random(f"{seed} {epoch} {rank}")
        self._groups = groups[rank::world]
        self._limit = bad
        self._skip = skip
        self.position = self.bad = 0
        self._rows = self._read()

    def __next__(self) -> Sample:
        while True:
            row = next(self._rows)
            self.position += 1
            try:
                return from_row(row)
            except (InputError, KeyError, TypeError, ValueError) as error:
                self.bad += 1
                if self.bad > self._limit:
                    raise InputError(
                        f"more than {self._limit} bad samples in {self._directory}, the last one: "
                        f"{error}; make the data anew, or allow more",
                        param="bad",
                    ) from error

    def _read(self) -> Iterator[Mapping[str, Any]]:
        for begin in range(0, len(self._groups), POOL):
            pool = self._groups[begin : begin + POOL]
            places = [
                (g, row) for g, (shard, n) in enumerate(pool) for row in range(shard.groups[n])
            ]
            self._random.shuffle(places)
            fresh = self._skip - self.position
            if fresh >= len(places):
                self.position += len(places)
                continue
            if fresh > 0:
                self.position += fresh
                places = places[fresh:]
            tables = [self._group(shard, n) for shard, n in pool]
            for group, row in places:
                yield tables[group].slice(row, 1).to_pylist()[0]

    def _group(self, shard: Shard, number: int) -> pa.Table:
        path = self._directory / shard.name
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                table = file.read_row_group(number)
            if table.num_rows != shard.groups[number] or table.schema != SCHEMA:
                raise ValueError("it holds other rows or columns than the index says")
            return table
        except (OSError, ValueError, IndexError) as error:
            raise _damaged(self._directory, shard, str(error)) from error


def _make(make: Callable[[int], Iterable[Sample]], directory: Path, number: int) -> Shard:
    return _write(directory, number, make(number))


def _write(directory: Path, number: int, samples: Iterable[Sample]) -> Shard:
    """Write a shard beside its place and move it there when it is whole and on the disk."""
    path = directory / _name(number)
    scratch = path.with_suffix(".new")
    groups = []
    try:
        with scratch.open("wb") as out:
            # Media are compressed already.
            with pq.ParquetWriter(
                out,
                SCHEMA,
                compression={"meta": "zstd"},
                write_page_checksum=True,
                use_dictionary=False,
                write_statistics=False,
            ) as writer:
                rest = iter(samples)
                while rows := [to_row(sample) for sample in islice(rest, ROWS)]:
                    writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                    groups.append(len(rows))
            out.flush()
            os.fsync(out.fileno())
        shard = Shard(
            path.name, sum(groups), scratch.stat().st_size, _sha256(scratch), tuple(groups)
        )
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return shard


@contextmanager
def _open(directory: Path, recipe: Mapping[str, Any]) -> Iterator[dict[str, Shard]]:
    """The shards of a directory that are there, by name, while no other process may add to them."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / ".lock", timeout=0):
            index = read_index(directory) if (directory / INDEX).exists() else Index((), recipe)
            if index.recipe != json.loads(json.dumps(recipe)):
                raise InputError(
                    f"{directory} holds data that was made with {json.dumps(index.recipe)}, not "
                    f"with {json.dumps(recipe)}; choose another directory or remove this one",
                    param="directory",
                )
            yield {s.name: s for s in index.shards if _size(directory / s.name) == s.bytes}
    except Timeout:
        raise InputError(
            f"another process is making data in {directory}; wait for it", param="directory"
        ) from None
    except OSError as error:
        hint = "free some space and repeat" if error.errno == errno.ENOSPC else "repeat"
        raise OmniError(
            f"making data in {directory} failed: {error}; the shards before are whole: {hint} the "
            "command to go on"
        ) from error


def _save(directory: Path, made: Mapping[str, Shard], recipe: Mapping[str, Any]) -> None:
    shards = [asdict(made[name]) for name in sorted(made)]
    scratch = directory / f"{INDEX}.new"
    text = json.dumps({"recipe": recipe, "shards": shards}, indent=1, ensure_ascii=False)
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(directory / INDEX)


def _name(number: int) -> str:
    return f"{number:05}.parquet"


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _require(directory: Path, shard: Shard) -> None:
    size = _size(directory / shard.name)
    if size is None:
        raise InputError(
            f"the shard {directory / shard.name} is missing; copy it there, or repeat the command "
            "that made the data, which makes it anew",
            param="data",
        )
    if size != shard.bytes:
        raise _damaged(directory, shard, f"it has {size} bytes, the index says {shard.bytes}")


def _damaged(directory: Path, shard: Shard, why: str) -> InputError:
    return InputError(
        f"the shard {directory / shard.name} is damaged: {why}; copy it again, or remove "
        "it and repeat the command that made the data",
        param="data",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
