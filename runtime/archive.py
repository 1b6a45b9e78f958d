"""The directory in which conversations lie: one SQLite database, and their media as files.

::

    sessions.db            sessions, items, media (rows)
    media/SESSION/….flac   sound as FLAC, pictures as they came

`Archive` is synchronous, for one thread at a time. Several processes may use one directory at a
time: SQLite's write-ahead log keeps them apart.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni.errors import MediaError, StoreError
from omni.types import AudioChunk
from runtime.database import Database
from runtime.media_files import read_medium, unlink, write_medium
from runtime.records import DropItem, KeepItem, KeepMedia, KeepSettings, Saved

log = logging.getLogger(__name__)

DATABASE = "sessions.db"
TITLE = 60
"""Characters of a session's title."""
ABANDONED = 3600.0
"""Seconds after which a file that no row names is no longer being written."""
ANYONE = "*"
"""In place of an owner: sessions of all owners."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The first record of a session, which makes its row; without one, no other is taken.

    So nothing of a session that was deleted while someone talked in it comes back.
    """

    conversation_id: str
    owner: str | None
    settings: dict[str, Any]


Entry = Begin | KeepSettings | KeepItem | DropItem | KeepMedia


@dataclass(frozen=True, slots=True)
class Medium:
    """A medium of an item; ``type`` is its media type, ``seconds`` the duration of sound."""

    item_id: str
    name: str
    path: Path
    type: str
    bytes: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A session in a list; times are seconds since 1970, ``bytes`` those of its media."""

    id: str
    title: str
    model: str
    created: float
    updated: float
    items: int
    bytes: int


class Archive:
    """The sessions in ``directory``; ``clock`` gives seconds since 1970.

    Raises `StoreError` when the directory or its database cannot be used; with ``create`` False
    also when there is none. ``check`` reads all of the database to find damage now.
    """

    def __init__(
        self,
        directory: Path,
        *,
        create: bool = True,
        check: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self._path = directory / DATABASE
        self._media = directory / "media"
        self._clock = clock
        # Whoever was killed may have had no time to scrub.
        self._unscrubbed = check
        if not create and not self._path.exists():
            raise StoreError(f"no sessions are kept in {directory}; see --data-dir")
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot make the directory {directory} ({error.strerror or error}); give another "
                "with --data-dir"
            ) from None
        self._db = Database(self._path, check=check)

    def close(self) -> None:
        """Scrub and close the database."""
        self.scrub()
        self._db.close()

    # Writing

    def write(self, batch: Sequence[tuple[str, Entry]]) -> list[StoreError | None]:
        """Make entries of sessions durable, all in one transaction.

        Returns what went wrong with each, None where all is well: the others are kept. The words of
        an item that was dropped are gone from the files after the next `scrub`.
        """
        outcome: list[StoreError | None] = [None] * len(batch)
        prepared: list[Any] = [None] * len(batch)
        for index, (session_id, entry) in enumerate(batch):
            try:
                if isinstance(entry, KeepMedia):
                    prepared[index] = self._write_file(session_id, entry)
                elif isinstance(entry, KeepItem):
                    prepared[index] = _to_json(entry.record)
                elif isinstance(entry, KeepSettings | Begin):
                    prepared[index] = _to_json(entry.settings)
            except (OSError, ValueError, TypeError) as error:
                outcome[index] = StoreError(
                    f"cannot keep something of {session_id} in {self.directory} ({error}); look "
                    "whether the disk is full"
                )
        written = [medium.path for medium in prepared if isinstance(medium, Medium)]
        unneeded: list[Path] = []
        try:
            with self._db.troubles(), self._db.transaction():
                for (session_id, entry), value, wrong in zip(batch, prepared, outcome, strict=True):
                    if wrong is None:
                        unneeded += self._apply(session_id, entry, value)
        except StoreError as error:
            unlink(written)
            return [wrong or error for wrong in outcome]
        unlink(unneeded)
        self._unscrubbed |= any(isinstance(entry, DropItem) for _, entry in batch)
        return outcome

    def _apply(self, session_id: str, entry: Entry, value: Any) -> list[Path]:
        """Do ``entry``; gives the files that nothing needs any more."""
        db, now = self._db, self._clock()
        if isinstance(entry, Begin):
            db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (session_id, entry.conversation_id, entry.owner, value, now, now),
            )
            return []
        known = db.execute("UPDATE sessions SET updated = ? WHERE id = ?", (now, session_id))
        if not known.rowcount:  # deleted meanwhile
            return [value.path] if isinstance(value, Medium) else []
        match entry:
            case KeepSettings():
                db.execute("UPDATE sessions SET settings = ? WHERE id = ?", (value, session_id))
            case KeepItem(index, record):
                self._keep_item(session_id, record["id"], index, value)
            case DropItem(item_id):
                return self._drop_item(session_id, item_id)
            case KeepMedia(item_id, name):
                old = self._files("session_id = ? AND name = ?", (session_id, name))
                db.execute(
                    "INSERT OR REPLACE INTO media VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(session_id, item_id, name, value.path.name, value.type),
                        *(value.bytes, value.seconds),
                    ),
                )
                return old
        return []

    def _keep_item(self, session_id: str, item_id: str, index: int, record: str) -> None:
        changed = self._db.execute(
            "UPDATE items SET record = ? WHERE session_id = ? AND id = ?",
            (record, session_id, item_id),
        )
        if changed.rowcount:
            return
        self._db.execute(
            "UPDATE items SET position = position + 1 WHERE session_id = ? AND position >= ?",
            (session_id, index),
        )
        self._db.execute(
            "INSERT INTO items VALUES (?, ?, ?, ?)", (session_id, item_id, index, record)
        )

    def _drop_item(self, session_id: str, item_id: str) -> list[Path]:
        here = (session_id, item_id)
        files = self._files("session_id = ? AND item_id = ?", here)
        self._db.execute("DELETE FROM media WHERE session_id = ? AND item_id = ?", here)
        gone = self._db.execute(
            "DELETE FROM items WHERE session_id = ? AND id = ? RETURNING position", here
        ).fetchall()
        for (position,) in gone:
            self._db.execute(
                "UPDATE items SET position = position - 1 WHERE session_id = ? AND position > ?",
                (session_id, position),
            )
        return files

    def _files(self, where: str, values: tuple[str, ...]) -> list[Path]:
        rows = self._db.execute(f"SELECT session_id, file FROM media WHERE {where}", values)
        return [self._media / session / file for session, file in rows]

    def _write_file(self, session_id: str, entry: KeepMedia) -> Medium:
        content = entry.content
        path, kind = write_medium(self._media / session_id, content)
        seconds = content.seconds if isinstance(content, AudioChunk) else None
        return Medium(entry.item_id, entry.name, path, kind, path.stat().st_size, seconds)

    # Reading

    def load(self, session_id: str, owner: str | None = ANYONE) -> Saved | None:
        """The session as it was kept; None when ``owner`` has none of this id."""
        with self._db.troubles():
            row = self._db.execute(
                "SELECT conversation_id, settings, owner FROM sessions WHERE id = ?", (session_id,)
            ).fetchone()
            if row is None or owner not in (ANYONE, row[2]):
                return None
            items = tuple(self._records(session_id))
        unread = {
            part["media"] for item in items for part in item.get("parts", ()) if not part["ready"]
        }
        content = {}
        for medium in self.media(session_id) if unread else ():
            if medium.name in unread:
                try:
                    content[medium.name] = read_medium(medium.path)
                except (MediaError, OSError) as error:
                    log.warning("%s: %s cannot be read: %s", session_id, medium.path, error)
        return Saved(session_id, row[0], json.loads(row[1]), items, content)

    def sessions(
        self, owner: str | None = ANYONE, *, limit: int = -1, offset: int = 0
    ) -> list[Summary]:
        """Sessions in which something was said, the latest first; ``limit`` -1: all."""
        with self._db.troubles():
            rows = self._db.execute(
                "SELECT id, settings, created, updated,"
                " (SELECT count(*) FROM items WHERE session_id = sessions.id) AS items,"
                " (SELECT coalesce(sum(bytes), 0) FROM media WHERE session_id = sessions.id)"
                " FROM sessions WHERE (? = '*' OR owner IS ?) AND items > 0"
                " ORDER BY updated DESC LIMIT ? OFFSET ?",
                (owner, owner, limit, offset),
            ).fetchall()
            return [
                Summary(
                    *(session_id, self._title(session_id), json.loads(settings).get("model", "")),
                    *(created, updated, items, size),
                )
                for session_id, settings, created, updated, items, size in rows
            ]

    def media(self, session_id: str, owner: str | None = ANYONE) -> list[Medium]:
        """The media of a session, in the order in which they came."""
        with self._db.troubles():
            rows = self._db.execute(
                "SELECT item_id, name, file, type, bytes, seconds FROM media JOIN sessions"
                " ON sessions.id = session_id"
                " WHERE session_id = ? AND (? = '*' OR owner IS ?) ORDER BY media.rowid",
                (session_id, owner, owner),
            ).fetchall()
            folder = self._media / session_id
            return [
                Medium(item, name, folder / file, kind, size, seconds)
                for item, name, file, kind, size, seconds in rows
            ]

    def export(self, session_id: str, owner: str | None = ANYONE) -> dict[str, Any] | None:
        """All that is kept of a session, as JSON; None when ``owner`` has none of this id."""
        saved = self.load(session_id, owner)
        if saved is None:
            return None
        with self._db.troubles():
            created, updated = self._db.execute(
                "SELECT created, updated FROM sessions WHERE id = ?", (session_id,)
            ).fetchone()
            return {
                "id": session_id,
                "object": "session",
                "conversation_id": saved.conversation_id,
                "title": self._title(session_id),
                "created": created,
                "updated": updated,
                "settings": saved.settings,
                "items": list(saved.items),
                "media": [
                    {
                        "item_id": medium.item_id,
                        "name": medium.name,
                        "file": medium.path.name,
                        "type": medium.type,
                        "bytes": medium.bytes,
                        "seconds": medium.seconds,
                    }
                    for medium in self.media(session_id)
                ],
            }

    def _records(self, session_id: str) -> Iterator[dict[str, Any]]:
        rows = self._db.execute(
            "SELECT record FROM items WHERE session_id = ? ORDER BY position", (session_id,)
        )
        return (json.loads(record) for (record,) in rows)

    def _title(self, session_id: str) -> str:
        """The user's first words; not kept, so that they go with their item."""
        for record in self._records(session_id):
            if record.get("role") == "user":
                words = " ".join(p["text"] for p in record.get("parts", ()) if p.get("text"))
                if words := " ".join(words.split()):
                    cut = words[: TITLE + 1].rpartition(" ")[0] or words[:TITLE]
                    return words if len(words) <= TITLE else f"{cut} …"
        return ""

    # Deleting

    def delete(self, ids: Iterable[str], owner: str | None = ANYONE) -> list[str]:
        """Delete sessions with all that belongs to them; gives the ids that there were.

        Afterwards nothing of what was said is in any file of the directory, unless another process
        reads the database at this moment: then it goes with the next `scrub`.
        """
        with self._db.troubles(), self._db.transaction():
            gone = [
                session_id
                for session_id in ids
                if self._db.execute(
                    "DELETE FROM sessions WHERE id = ? AND (? = '*' OR owner IS ?)",
                    (session_id, owner, owner),
                ).rowcount
            ]
        for session_id in gone:
            shutil.rmtree(self._media / session_id, ignore_errors=True)
        self._unscrubbed |= bool(gone)
        self.scrub()
        return gone

    def tidy(self, before: float | None, spare: Collection[str] = ()) -> list[str]:
        """Delete sessions not updated since ``before`` (seconds since 1970; None: none).

        Empty sessions go too, and media that no row names; those in ``spare`` are in use.
        """
        with self._db.troubles():
            rows = self._db.execute(
                "SELECT id FROM sessions WHERE updated < ? OR updated < ? AND NOT EXISTS"
                " (SELECT 1 FROM items WHERE session_id = sessions.id)",
                (-1.0 if before is None else before, self._clock() - ABANDONED),
            ).fetchall()
            gone = self.delete(session_id for (session_id,) in rows if session_id not in spare)
            named = {
                (session, file)
                for session, file in self._db.execute("SELECT session_id, file FROM media")
            }
        for path in self._media.glob("*/*"):
            if (path.parent.name, path.name) not in named:
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < self._clock() - ABANDONED:
                        path.unlink()
        for folder in self._media.glob("*"):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        self.scrub()
        return gone

    def scrub(self) -> bool:
        """Rid the files of deleted words, if there may be any.

        False: not yet, because another process reads the database at this moment.
        """
        if self._unscrubbed:
            self._unscrubbed = not self._db.scrub()
        return not self._unscrubbed


def _to_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    text.encode()  # half a surrogate pair: an error here harms only this entry
    return text
