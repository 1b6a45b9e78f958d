"""Conversations in a directory: what is put is there afterwards, what is deleted is nowhere."""

import asyncio
import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import timedelta

import numpy as np
import pytest

from encoders.media import read_audio
from omni.errors import StoreError
from omni.types import AudioChunk
from runtime.archive import ABANDONED, DATABASE, Archive, Begin
from runtime.database import SCHEMA
from runtime.records import DropItem, KeepItem, KeepMedia, KeepSettings
from runtime.store import Keep, SessionStore

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"
SETTINGS = {"model": "omni", "instructions": "Be brief."}


def record(item_id, text, *, role="user", media=None, ready=True, **rest):
    kind = "input_text" if media is None else "input_audio"
    part = {"kind": kind, "text": text, "span": None, "media": media, "ready": ready}
    base = {"id": item_id, "type": "message", "role": role, "status": "completed"}
    return {**base, "parts": [part], **rest}


def said(archive, session_id) -> list[str]:
    return [r["parts"][0]["text"] for r in archive.load(session_id).items]


def keep(archive, session_id, *entries, owner=None):
    begin = Begin("conv_1", owner, SETTINGS)
    return archive.write([(session_id, entry) for entry in (begin, *entries)])


def sound(seconds=0.5, rate=24_000) -> AudioChunk:
    pcm = np.random.default_rng(1).integers(-32768, 32767, int(seconds * rate)) / 32768
    return AudioChunk(pcm.astype(np.float32), rate)


def files(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


def everything(directory) -> bytes:
    return b"".join(path.read_bytes() for path in files(directory))


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def archive(tmp_path):
    with contextlib.closing(Archive(tmp_path / "sessions")) as archive:
        yield archive


@pytest.fixture
def store(tmp_path):
    store = SessionStore(Keep(tmp_path / "sessions"))
    store.start()
    yield store
    store.close()


# Items and media


def test_items_come_back_in_their_order_with_the_settings(archive):
    assert (
        keep(archive, "s", KeepItem(0, record("b", "two")), KeepItem(1, record("d", "four")))
        == [None] * 3
    )
    archive.write(
        [
            ("s", KeepItem(1, record("c", "three"))),
            ("s", KeepItem(0, record("a", "one"))),
            ("s", KeepItem(3, record("d", "FOUR"))),
            ("s", KeepSettings({**SETTINGS, "temperature": 0.5})),
        ]
    )
    saved = archive.load("s")
    assert said(archive, "s") == ["one", "two", "three", "FOUR"]
    assert (saved.id, saved.conversation_id) == ("s", "conv_1")
    assert saved.settings == {**SETTINGS, "temperature": 0.5}
    archive.write([("s", DropItem("b")), ("s", KeepItem(1, record("e", "new")))])
    assert said(archive, "s") == ["one", "new", "three", "FOUR"]
    assert archive.load("other") is None


def test_any_order_of_insertions_and_deletions_is_that_of_a_list(archive):
    draw = random.Random(0)
    keep(archive, "s")
    archive._db.execute("PRAGMA synchronous = OFF")
    items: list[str] = []
    for number in range(300):
        if items and draw.random() < 0.3:
            name = items.pop(draw.randrange(len(items)))
            archive.write([("s", DropItem(name))])
        else:
            index = draw.randint(0, len(items))
            items.insert(index, str(number))
            archive.write([("s", KeepItem(index, record(str(number), str(number))))])
    assert said(archive, "s") == items


def test_media_are_files_of_their_kind_and_sound_loses_nothing(archive):
    heard = sound()
    keep(
        archive,
        "s",
        KeepMedia("../../a", "media_1", heard),
        KeepMedia("../../a", "media_2", PNG),
        KeepMedia("../../a", "media_3", b"\xff\xd8\xffjpeg"),
        KeepMedia("../../a", "media_4", b"RIFF\0\0\0\0WEBP"),
        KeepMedia("../../a", "media_5", b"<svg onload=...>"),
        KeepItem(0, record("../../a", "look")),
    )
    media = archive.media("s")
    assert [medium.name for medium in media] == [f"media_{i}" for i in range(1, 6)]
    assert [medium.path.suffix for medium in media] == [".flac", ".png", ".jpg", ".webp", ".bin"]
    assert media[4].type == "application/octet-stream"
    assert media[1].path.read_bytes() == PNG
    assert all(archive.directory / "media" / "s" == medium.path.parent for medium in media)
    again = read_audio(media[0].path, heard.sample_rate)
    assert np.array_equal(again.pcm, heard.pcm)
    assert media[0].seconds == heard.seconds


def test_what_nobody_had_heard_yet_comes_back_with_its_content(archive):
    keep(
        archive,
        "s",
        KeepMedia("a", "media_1", sound()),
        KeepItem(0, record("a", None, media="media_1", ready=False)),
        KeepMedia("b", "media_2", PNG),
        KeepItem(1, record("b", "seen", media="media_2")),
    )
    media = archive.load("s").media
    assert list(media) == ["media_1"]
    assert media["media_1"].seconds == pytest.approx(0.5)


def test_a_dropped_item_takes_its_media_along(archive):
    keep(archive, "s", KeepMedia("a", "m", PNG), KeepItem(0, record("a", "look at my passport")))
    archive.write([("s", DropItem("a"))])
    assert archive.media("s") == []
    assert archive.scrub()
    found = everything(archive.directory)
    assert b"passport" not in found
    assert PNG not in found


def test_what_is_put_survives_though_nobody_closes_anything(tmp_path):
    code = f"""
import os, pathlib
from test_store import *
archive = Archive(pathlib.Path({str(tmp_path)!r}))
keep(archive, "s", KeepMedia("a", "m", PNG), KeepItem(0, record("a", "hello")))
os.kill(os.getpid(), 9)
"""
    path = os.pathsep.join(filter(None, sys.path))
    ran = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    assert ran.returncode
    with contextlib.closing(Archive(tmp_path, check=True)) as archive:
        assert said(archive, "s") == ["hello"]
        assert archive.media("s")[0].path.read_bytes() == PNG


# Lists and export


def test_a_list_shows_the_latest_first_with_the_first_words_and_no_empty_session(tmp_path):
    clock = Clock()
    with contextlib.closing(Archive(tmp_path, clock=clock)) as archive:
        long = "What is the meaning of " + "very " * 30 + "long questions?"
        for name, text in (("one", "Hello there"), ("two", long), ("three", "Hi")):
            clock.now += 10
            keep(archive, name, KeepItem(0, record("a", text)), KeepMedia("a", "m", PNG))
        keep(archive, "empty")
        clock.now += 10
        archive.write([("one", KeepItem(1, record("b", "Hi.", role="assistant")))])
        listed = archive.sessions()
        assert [s.id for s in listed] == ["one", "three", "two"]
        assert (listed[0].title, listed[0].items, listed[0].bytes) == ("Hello there", 2, len(PNG))
        assert listed[0].model == "omni"
        assert listed[0].updated - listed[0].created == pytest.approx(30)
        assert listed[2].title.startswith("What is the meaning of very")
        assert listed[2].title.endswith("very …")
        assert len(listed[2].title) < 70
        assert [s.id for s in archive.sessions(limit=1, offset=1)] == ["three"]


def test_the_title_goes_with_the_item_that_gave_it(archive):
    keep(archive, "s", KeepItem(0, record("a", "my secret")), KeepItem(1, record("b", "hello")))
    archive.write([("s", DropItem("a"))])
    assert archive.sessions()[0].title == "hello"


def test_an_owner_sees_and_deletes_only_what_is_theirs(archive):
    for name, owner in (("a", "ann"), ("b", "bob"), ("n", None)):
        keep(archive, name, KeepItem(0, record("i", name)), KeepMedia("i", "m", PNG), owner=owner)
    assert [s.id for s in archive.sessions("ann")] == ["a"]
    assert [s.id for s in archive.sessions(None)] == ["n"]
    assert archive.load("b", "ann") is None
    assert archive.load("n", "ann") is None
    assert archive.load("a", None) is None
    assert archive.export("b", "ann") is None
    assert archive.media("b", "ann") == []
    assert archive.delete(["a", "b", "n"], "ann") == ["a"]
    assert {s.id for s in archive.sessions()} == {"b", "n"}


def test_an_export_holds_all_that_is_kept(archive):
    keep(archive, "s", KeepItem(0, record("a", "hello")), KeepMedia("a", "m", sound()))
    exported = archive.export("s")
    assert exported["items"] == [record("a", "hello")]
    assert exported["settings"] == SETTINGS
    (medium,) = exported["media"]
    assert (medium["item_id"], medium["type"], medium["seconds"]) == ("a", "audio/flac", 0.5)
    assert (archive.directory / "media" / "s" / medium["file"]).is_file()


# Deleting


def test_of_deleted_sessions_nothing_is_left_in_any_file(tmp_path):
    """Rows of all sizes come, change and go; of what went no word is in any byte afterwards."""
    draw = random.Random(1)
    alive: dict[str, list[str]] = {}
    gone: list[str] = []
    with contextlib.closing(Archive(tmp_path)) as archive:
        archive._db.execute("PRAGMA synchronous = OFF")
        for number in range(1000):
            name = f"sess_{number % 60}"
            if name not in alive:
                alive[name] = []
                keep(archive, name)
            word = f"secret-{number}-"
            text = word + "x" * draw.choice([5, 50, 500, 5000])
            index = draw.randint(0, len(alive[name]))
            alive[name].insert(index, word)
            archive.write([(name, KeepItem(index, record(word, text)))])
            if draw.random() < 0.3:  # grows in place, as answers do
                archive.write([(name, KeepItem(0, record(word, text * 2)))])
            if draw.random() < 0.1:
                archive.write([(name, KeepMedia(word, word, text.encode()))])
            if number % 7 == 0:
                chosen = draw.choice(list(alive))
                if draw.random() < 0.5 and alive[chosen]:
                    word = alive[chosen].pop()
                    archive.write([(chosen, DropItem(word))])
                    gone.append(word)
                else:
                    assert archive.delete([chosen]) == [chosen]
                    gone += alive.pop(chosen)
        assert archive.scrub()
        found = everything(tmp_path)
        assert len(gone) > 200
        assert not [word for word in gone if word.encode() in found]
        left = [word for words in alive.values() for word in words]
        assert all(word.encode() in found for word in left)
        archive.delete(list(alive))
        assert b"secret" not in everything(tmp_path)
        assert files(tmp_path / "media") == []


def test_what_is_said_in_a_session_that_was_deleted_meanwhile_is_not_kept(archive):
    keep(archive, "s", KeepItem(0, record("a", "hello")))
    other = Archive(archive.directory, create=False)
    assert other.delete(["s"]) == ["s"]
    other.close()
    entries = [KeepItem(1, record("b", "secret")), KeepMedia("b", "m", PNG), KeepSettings({})]
    assert archive.write([("s", entry) for entry in entries]) == [None] * 3
    assert archive.load("s") is None
    assert b"secret" not in everything(archive.directory)
    assert PNG not in everything(archive.directory)


def test_words_that_another_process_was_reading_go_from_the_log_later(archive):
    keep(archive, "s", KeepItem(0, record("a", "secret")))
    reader = sqlite3.connect(archive.directory / DATABASE, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM items").fetchall()
    archive._db.execute("PRAGMA busy_timeout = 1")
    archive.delete(["s"])
    assert not archive.scrub()
    reader.close()
    assert archive.scrub()
    assert b"secret" not in everything(archive.directory)


def test_sessions_go_when_their_time_is_over_and_abandoned_files_too(tmp_path):
    clock = Clock()
    store = SessionStore(Keep(tmp_path, timedelta(days=30)), clock=clock)
    store.start()
    with contextlib.closing(Archive(tmp_path, clock=clock)) as archive:
        keep(archive, "old", KeepItem(0, record("a", "secret")), KeepMedia("a", "m", PNG))
        keep(archive, "idle", KeepItem(0, record("a", "of someone who is still connected")))
        keep(archive, "empty")
        clock.now += 20 * 86_400
        keep(archive, "new", KeepItem(0, record("a", "hello")), KeepMedia("a", "m", PNG))
        (tmp_path / "media" / "new" / "1234.tmp").write_bytes(b"from a crash")
        store._holders["idle"] = None
        clock.now += 11 * 86_400
        store._tidy()
        assert {s.id for s in archive.sessions()} == {"idle", "new"}
        assert archive.load("empty") is None
        (left,) = files(tmp_path / "media")
        assert left == archive.media("new")[0].path
    store.close()
    assert b"secret" not in everything(tmp_path)


def test_without_retention_nothing_is_too_old(tmp_path):
    clock = Clock()
    with contextlib.closing(Archive(tmp_path, clock=clock)) as archive:
        keep(archive, "old", KeepItem(0, record("a", "hello")))
        clock.now += 10_000 * 86_400 + ABANDONED
        assert archive.tidy(None) == []


# What can go wrong


def test_a_database_of_a_newer_version_is_left_alone(tmp_path):
    with contextlib.closing(Archive(tmp_path)) as archive:
        keep(archive, "s", KeepItem(0, record("a", "hello")))
        archive._db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(StoreError, match=r"newer Omni.*--data-dir"):
        Archive(tmp_path)


@pytest.mark.parametrize("damage", ["no database at all", "pages"])
def test_a_damaged_database_is_named_with_what_to_do(tmp_path, damage):
    with contextlib.closing(Archive(tmp_path)) as archive:
        entries = [KeepItem(0, record(str(i), "hello " * 50)) for i in range(200)]
        keep(archive, "s", *entries)
    path = tmp_path / DATABASE
    data = bytearray(path.read_bytes())
    if damage == "pages":
        data[4096 : len(data) // 2] = os.urandom(len(data) // 2 - 4096)
    else:
        data[:] = b"x" * len(data)
    path.write_bytes(data)
    with pytest.raises(StoreError) as raised:
        Archive(tmp_path, check=True)
    assert str(path) in str(raised.value)
    assert "move the file away" in str(raised.value)


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot make the directory.*--data-dir"):
        Archive(tmp_path / "file" / "sessions")
    with pytest.raises(StoreError, match="no sessions are kept in"):
        Archive(tmp_path / "none", create=False)


async def test_a_full_disk_fails_tickets_until_there_is_room_and_spoils_nothing(store):
    begin = Begin("conv", None, SETTINGS)
    store.put("s", begin)
    assert await store.durable(store.put("s", KeepItem(0, record("a", "hello"))))
    pages = "PRAGMA max_page_count = "
    await store._ask(lambda archive: archive._db.execute(pages + "20").fetchall())
    ticket = store.put("s", KeepItem(1, record("b", "x" * 200_000)))
    assert not await store.durable(ticket)
    assert "disk is full" in str(ticket.exception())
    assert await store.durable(store.put("s", KeepItem(1, record("c", "small"))))
    await store._ask(lambda archive: archive._db.execute(pages + "100000").fetchall())
    assert await store.durable(store.put("s", KeepItem(2, record("d", "x" * 200_000))))
    saved = await store.load("s")
    assert [item["id"] for item in saved.items] == ["a", "c", "d"]


async def test_a_medium_that_cannot_be_written_harms_no_other_record(store, tmp_path):
    (tmp_path / "sessions" / "media").write_text("in the way of the folder")
    tickets = [
        store.put("s", entry)
        for entry in (
            Begin("conv", None, SETTINGS),
            KeepMedia("a", "m", PNG),
            KeepItem(0, record("a", "hello")),
            KeepItem(1, record("b", "half a pair: \ud83d")),
            KeepItem(2, record("c", "bye")),
        )
    ]
    assert [await store.durable(ticket) for ticket in tickets] == [True, False, True, False, True]
    assert [item["id"] for item in (await store.load("s")).items] == ["a", "c"]


# The store's thread


async def test_tickets_are_done_in_order_and_what_waits_is_written_together(store):
    writes = []
    begun, gate = threading.Event(), threading.Event()
    write = store._archive.write

    def slowly(batch):
        writes.append(len(batch))
        begun.set()
        gate.wait(10)
        return write(batch)

    store._archive.write = slowly
    tickets = [store.put("s", Begin("conv", None, SETTINGS))]
    assert await asyncio.to_thread(begun.wait, 10)
    done = []
    for number in range(50):
        ticket = store.put("s", KeepItem(number, record(str(number), "hello")))
        ticket.add_done_callback(lambda _, number=number: done.append(number))
        tickets.append(ticket)
    gate.set()
    assert await store.durable(tickets[-1])
    assert all(ticket.done() for ticket in tickets)
    assert writes == [1, 50]
    assert done == list(range(50))


async def test_who_stops_waiting_takes_nothing_back(store):
    store.put("s", Begin("conv", None, SETTINGS))
    waiting = asyncio.create_task(store.durable(store.put("s", KeepItem(0, record("a", "hi")))))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert len((await store.load("s")).items) == 1


async def test_closing_writes_all_that_was_put(tmp_path):
    store = SessionStore(Keep(tmp_path))
    store.start()
    store.put("s", Begin("conv", None, SETTINGS))
    for number in range(100):
        store.put("s", KeepItem(number, record(str(number), "hello")))
    await asyncio.to_thread(store.close)
    with contextlib.closing(Archive(tmp_path, create=False)) as archive:
        assert len(said(archive, "s")) == 100


async def test_two_servers_on_one_directory_harm_each_other_not(store, tmp_path):
    other = SessionStore(Keep(tmp_path / "sessions"))
    other.start()
    tickets = []
    for number in range(100):
        for name, one in (("a", store), ("b", other)):
            if number == 0:
                tickets.append(one.put(name, Begin("conv", None, SETTINGS)))
            tickets.append(one.put(name, KeepMedia(str(number), str(number), PNG)))
            tickets.append(one.put(name, KeepItem(number, record(str(number), "hello"))))
        await asyncio.sleep(0)
    assert all([await store.durable(ticket) for ticket in tickets])
    for one in (store, other):
        for name in ("a", "b"):
            assert len((await one.load(name)).items) == 100
            assert len(await one.media(name)) == 100
    await asyncio.to_thread(other.close)


class Connection:
    """A holder that takes a moment to let go of its session."""

    def __init__(self, store) -> None:
        self.store = store
        self.ended = None

    async def close(self, code, reason) -> None:
        self.ended = (code, reason)
        await asyncio.sleep(0.01)
        self.store.release("s", self)


async def test_the_last_who_claims_a_session_has_it_and_all_others_are_closed(store):
    connections = [Connection(store) for _ in range(5)]
    await asyncio.gather(*(store.claim("s", connection) for connection in connections))
    holder = store._holders["s"]
    assert holder.ended is None
    for connection in connections:
        if connection is not holder:
            assert connection.ended == (4001, "the session goes on over another connection")
    store.release("s", connections[0] if holder is not connections[0] else connections[1])
    assert store._holders["s"] is holder
