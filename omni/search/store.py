"""Where the items of an index lie: a LanceDB table of fields, filters and vectors.

LanceDB because one wheel brings what an index needs: commits that a killed process cannot halve,
readers that see a whole version while another process writes, filters before the search, vectors
that stay on the disk, and updates without a rebuild. (sqlite-vec needs loadable extensions, which
many Pythons are built without; usearch and faiss keep vectors alone, in one file that is rewritten
as a whole.)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni.errors import MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float32]

INDEX_FROM = 20_000
"""Items from which vectors are clustered; fewer are compared one by one, which is exact."""
_TABLE = "items"
_TEXTS = ("id", "stamp", "picture", "title", "text", "seen", "currency", "attributes")
_LISTS = ("tags", "colours")
_VECTORS = ("meaning", "look")
_PROBES = 12
_CLUSTERS_KEPT, _TABLES_KEPT = 512 << 20, 128 << 20
"""Bytes of vectors, and of what describes the files, that stay in memory."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What an item must be. ``any_of`` is of tags and colours, ``none_of`` as well."""

    least: float | None = None
    most: float | None = None
    currency: str | None = None
    any_of: tuple[str, ...] = ()
    not_tags: tuple[str, ...] = ()
    not_colours: tuple[str, ...] = ()

    def sql(self) -> str:
        """As LanceDB reads it; empty when it keeps all."""
        parts = []
        if self.least is not None:
            parts.append(f"price >= {self.least!r}")
        if self.most is not None:
            parts.append(f"price <= {self.most!r}")
        if self.currency is not None:
            parts.append(f"(currency = {_quote(self.currency)} OR currency IS NULL)")
        if self.any_of:
            words = _list(self.any_of)
            parts.append(f"(array_has_any(tags, {words}) OR array_has_any(colours, {words}))")
        if self.not_tags:
            parts.append(f"NOT array_has_any(tags, {_list(self.not_tags)})")
        if self.not_colours:
            parts.append(f"NOT array_has_any(colours, {_list(self.not_colours)})")
        return " AND ".join(parts)


class Store:
    """One table; one process writes. Others see what it has committed after `refresh`.

    A row is a mapping of `_TEXTS`, "price" (float or None), `_LISTS` and the vectors "meaning"
    and "look" (float32 arrays, kept in 16 bits; their dot product is their likeness).
    """

    def __init__(self, directory: Path, widths: tuple[int, int], *, create: bool = False) -> None:
        """Open the table in ``directory``; ``widths`` are of "meaning" and "look".

        Raises `MissingExtraError` without LanceDB.
        """
        self.widths = widths
        lancedb = _lancedb()
        caches = lancedb.Session(_CLUSTERS_KEPT, _TABLES_KEPT)
        db = lancedb.connect(directory, session=caches)
        if create:
            self._table = db.create_table(_TABLE, schema=self.schema, exist_ok=True)
        else:
            self._table = db.open_table(_TABLE)

    @property
    def schema(self) -> pa.Schema:
        """Of a row."""
        import pyarrow as pa

        fields = [(name, pa.string()) for name in _TEXTS]
        fields += [("price", pa.float64())]
        fields += [(name, pa.list_(pa.string())) for name in _LISTS]
        fields += [
            (name, pa.list_(pa.float16(), width))
            for name, width in zip(_VECTORS, self.widths, strict=True)
        ]
        return pa.schema(fields)

    def refresh(self) -> int:
        """See what other processes have committed; gives the version, which every commit changes.

        What is read after it is read from one version, until it is called again.
        """
        self._table.checkout_latest()
        return int(self._table.version)

    def __len__(self) -> int:
        return int(self._table.count_rows())

    def count(self, where: str) -> int:
        """How many items fulfil an SQL condition."""
        return int(self._table.count_rows(where))

    @property
    def has_prices(self) -> bool:
        """Whether any item has one."""
        return (
            len(self._table.search().where("price IS NOT NULL").select(["id"]).limit(1).to_list())
            > 0
        )

    # Writing

    def put(self, rows: Sequence[Mapping[str, Any]], *, fresh: bool) -> None:
        """Commit rows; those of the same id are replaced, which ``fresh`` says there are none of.

        When this returns, they survive a crash.
        """
        batch = self._batch(rows)
        if fresh:
            self._table.add(batch)
        else:
            merge = self._table.merge_insert("id")
            merge.when_matched_update_all().when_not_matched_insert_all().execute(batch)

    def delete(self, ids: Sequence[str]) -> int:
        """Commit that these ids are gone; gives how many there were."""
        where = f"id IN ({', '.join(map(_quote, ids))})"
        found = self.count(where)
        if found:
            self._table.delete(where)
        return found

    def tidy(self, *, cluster: bool) -> None:
        """Join small pieces on the disk and keep the indices up with the rows.

        ``cluster`` groups the vectors anew, which is due when their number has doubled. Pieces of
        older versions are deleted after ten minutes: no reader needs them by then.
        """
        import pyarrow as pa
        from lancedb.index import BTree, IvfFlat, LabelList

        if cluster:
            filters = {"id": BTree, "price": BTree, **dict.fromkeys(_LISTS, LabelList)}
            for name, kind in filters.items():
                self._table.create_index(name, config=kind(), replace=True)
            for name in _VECTORS:
                self._table.create_index(name, config=IvfFlat(distance_type="dot"), replace=True)
        try:
            self._table.optimize(cleanup_older_than=timedelta(minutes=10))
        except (OSError, RuntimeError, pa.ArrowException) as error:
            raise OSError(f"the index could not be made smaller ({error})") from error

    # Reading

    def stamps(self, ids: Sequence[str]) -> dict[str, str]:
        """The stamps of those of ``ids`` that are there."""
        where = f"id IN ({', '.join(map(_quote, ids))})"
        table = self._table.search().where(where).select(["id", "stamp"]).limit(len(ids)).to_arrow()
        return dict(zip(table["id"].to_pylist(), table["stamp"].to_pylist(), strict=True))

    def ids(self) -> Iterator[list[str]]:
        """All ids, some thousands at a time."""
        for batch in self._table.search().select(["id"]).to_batches(8192):
            yield batch.column("id").to_pylist()

    def nearest(self, column: str, query: Floats, where: str, count: int) -> pa.Table:
        """The rows, without the condition's others, whose vectors are most like ``query``."""
        search = self._table.search(query, vector_column_name=column).distance_type("dot")
        search = search.nprobes(_PROBES).limit(count).select([*_COLUMNS, "_distance"])
        if where:
            search = search.where(where, prefilter=True)
        return search.to_arrow().drop_columns(["_distance"])

    def some(self, where: str, count: int) -> pa.Table:
        """Any rows that fulfil a condition."""
        search = self._table.search().select(list(_COLUMNS)).limit(count)
        return (search.where(where) if where else search).to_arrow()

    def get(self, id: str) -> dict[str, Any] | None:
        """One row without its vectors; None when there is no such id."""
        columns = [name for name in _COLUMNS if name not in _VECTORS]
        found = self._table.search().where(f"id = {_quote(id)}").select(columns).limit(1).to_list()
        return found[0] if found else None

    def _batch(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        import pyarrow as pa

        schema = self.schema
        arrays: list[Any] = [
            pa.array([row[field.name] for row in rows], field.type)
            for field in schema
            if field.name not in _VECTORS
        ]
        for name, width in zip(_VECTORS, self.widths, strict=True):
            values = np.stack([row[name] for row in rows]).astype(np.float16)
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width))
        return pa.Table.from_arrays(arrays, schema=schema)


_COLUMNS = tuple(name for name in (*_TEXTS, "price", *_LISTS, *_VECTORS) if name != "stamp")


def vectors(table: pa.Table, column: str) -> Floats:
    """The vectors (N, W) of a table's column."""
    width = table.schema.field(column).type.list_size
    flat = table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(table), width)


def unite(tables: Iterable[pa.Table]) -> pa.Table:
    """All rows, each id once."""
    import pyarrow as pa

    joined = pa.concat_tables(tables)
    ids = joined["id"].to_pylist()
    first = {id: row for row, id in reversed(list(enumerate(ids)))}
    return joined.take(pa.array(sorted(first.values()), pa.int64()))


def _lancedb() -> Any:
    os.environ.setdefault("LANCE_LOG", "error")  # its warnings are for its developers
    try:
        import lancedb
    except ImportError:
        raise MissingExtraError(
            "searching needs LanceDB; install it with: pip install 'omni-assistant[search]'"
        ) from None
    return lancedb


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _list(words: Sequence[str]) -> str:
    return "[" + ", ".join(map(_quote, words)) + "]"
