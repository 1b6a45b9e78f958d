"""The SQLite database of the sessions: its tables, its version, and what its errors mean."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omni.errors import StoreError

SCHEMA = 1

_TABLES = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, conversation_id TEXT NOT NULL, owner TEXT, settings TEXT NOT NULL,
    created REAL NOT NULL, updated REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_updated ON sessions (updated);
CREATE TABLE items (
    session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
    id TEXT NOT NULL, position INTEGER NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (session_id, id)
);
CREATE INDEX items_position ON items (session_id, position);
CREATE TABLE media (
    session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
    item_id TEXT NOT NULL, name TEXT NOT NULL, file TEXT NOT NULL, type TEXT NOT NULL,
    bytes INTEGER NOT NULL, seconds REAL,
    PRIMARY KEY (session_id, name)
);
"""

_PRAGMAS = (
    "journal_mode = WAL",
    # A killed process loses nothing; waiting for the disk would delay every acknowledgement.
    "synchronous = NORMAL",
    "secure_delete = ON",
    "foreign_keys = ON",
    # VACUUM would write what was said into a file elsewhere.
    "temp_store = MEMORY",
)


class Database:
    """The database at ``path``, made when there is none; for one thread at a time.

    ``check`` reads all of it to find damage now. Raises `StoreError`.
    """

    def __init__(self, path: Path, *, check: bool = False) -> None:
        self.path = path
        with self.troubles():
            self._db = sqlite3.connect(
                path, timeout=5.0, isolation_level=None, check_same_thread=False
            )
        try:
            with self.troubles():
                self._open(check)
        except BaseException:
            self._db.close()
            raise

    def _open(self, check: bool) -> None:
        for pragma in _PRAGMAS:
            self.execute(f"PRAGMA {pragma}")
        with self.transaction():
            (version,) = self.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _TABLES.split(";"):
                    self.execute(statement)
                self.execute(f"PRAGMA user_version = {SCHEMA}")
        if version > SCHEMA:
            raise StoreError(
                f"{self.path} was written by a newer Omni (its format is {version}, this one "
                f"knows {SCHEMA}); upgrade Omni, or give another directory with --data-dir"
            )
        if check and (found := self.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """Run one statement; what it raises is for `troubles`."""
        return self._db.execute(statement, values)

    def close(self) -> None:
        """Close it; the write-ahead log is folded in."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def scrub(self) -> bool:
        """Rid the files of deleted words; False when that has to be tried again later."""
        with contextlib.suppress(sqlite3.Error):
            # secure_delete zeroes what is freed, but not what moved when a page was rebuilt.
            self.execute("VACUUM")
            busy, _, _ = self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy
        return False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block's statements, or none."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has rolled back already
                self.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def troubles(self) -> Iterator[None]:
        """Raise SQLite's errors as `StoreError` that says what they mean and what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"cannot use {self.path} ({error}); look whether the disk is full, the directory "
                "can be written, and no other program holds the file"
            ) from None
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
            raise
        except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
            raise StoreError(
                f"{self.path} is damaged ({error}); move the file away, or put a copy that works "
                "in its place (a new one is made where there is none)"
            ) from None
