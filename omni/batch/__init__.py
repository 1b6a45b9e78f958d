"""Many recordings, clips, pictures and texts: transcribed, looked at and asked about.

>>> from omni.batch import run
>>> for result in run(["talks/"], ask=["What was decided?"]):    # doctest: +SKIP
...     print(result["id"], result["answers"][0]["answer"])

Importing this loads no model; ``docs/batch.md`` describes what a result holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omni.batch.options import Options
from omni.batch.records import Medium, Record, Unusable, read_records

__all__ = ["Medium", "Options", "Record", "Unusable", "read_records", "run"]


def run(
    inputs: Sequence[str | Path | Record],
    *,
    ask: str | Sequence[str] = (),
    options: Options | None = None,
) -> Iterator[dict[str, Any]]:
    """The result of every record, as it is finished; a record that fails has an ``error``.

    ``inputs`` are files, folders, patterns, manifests (``.jsonl``) or records. Closing the iterator
    ends the work. Raises `InputError` for options that cannot be, `WeightsError` when a model
    cannot be had.
    """
    from runtime.batch import make_batch

    asks = (ask,) if isinstance(ask, str) else tuple(ask)

    def records(spool: Path) -> Iterator[Record | Unusable]:
        files = []
        for one in inputs:
            if isinstance(one, Record):
                yield one
            else:
                files.append(str(one))
        yield from read_records(files, asks, spool=spool)

    with (
        TemporaryDirectory(prefix="omni-batch-") as spool,
        make_batch(options or Options()) as batch,
    ):
        yield from batch.run(records(Path(spool)))
