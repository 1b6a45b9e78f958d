"""An index of things with pictures and words, and the search in it.

with Index.open(directory, encoder) as index:
    index.build(read_items(Path("pictures")))
    found = index.search("red floral dress, long, under 50")
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from omni.errors import BusyError, InputError, MediaError
from omni.search.encoder import ItemEncoder
from omni.search.items import Item, Unusable
from omni.search.recent import Recent
from omni.search.request import Wish, read_request
from omni.search.results import Found, Hit, Report, hit_of, row_of
from omni.search.store import INDEX_FROM, Filter, Store, unite, vectors
from omni.types import ImageFrame

Floats = NDArray[np.float32]
T = TypeVar("T")

MAX_HITS = 100
_FORMAT = 1
_ABOUT = "index.json"


class Index:
    """An index in a directory; threads may search it while one process changes it."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        ``batch`` items are committed at once; ``candidates`` by each vector get the whole score.
        ``bonus`` is added for a colour or an attribute that the request names, up to three of
        them. ``look`` is the share of a given picture in the score, beside the words. The caches
        hold results of ``queries`` and ``vectors`` of texts (2 kB each).
        """

        batch: int = 128
        candidates: int = 64
        bonus: float = 0.08
        against: float = 0.5
        look: float = 0.5
        queries: int = 512
        vectors: int = 4096

    def __init__(
        self, directory: Path, encoder: ItemEncoder, store: Store, config: Config | None = None
    ) -> None:
        self.config = config or self.Config()
        self.directory = directory
        self.queries: Recent[Found] = Recent(self.config.queries)
        self.vectors: Recent[Floats] = Recent(self.config.vectors)
        self._encoder = encoder
        self.store = store

    @classmethod
    def open(
        cls,
        directory: Path,
        encoder: ItemEncoder,
        config: Config | None = None,
        *,
        create: bool = False,
        fresh: bool = False,
    ) -> Index:
        """Open an index, or ``create`` it where there is none; ``fresh`` deletes the one there.

        Raises `InputError` when there is none, when the directory holds something else, or when
        other models made its vectors; `MissingExtraError` without LanceDB.
        """
        about = directory / _ABOUT
        if fresh and about.is_file():
            with _writing(directory):
                shutil.rmtree(directory / "items.lance", ignore_errors=True)
                about.unlink()
        if about.is_file():
            _check_models(directory, _read(about), encoder)
        elif not create:
            raise InputError(
                f"there is no index in {directory}; make one with: "
                f"omni index build FOLDER --index {directory}",
                param="index",
                code="no_index",
            )
        elif directory.is_dir() and any(p.name != ".lock" for p in directory.iterdir()):
            raise InputError(
                f"{directory} holds other files; name an empty or new directory with --index",
                param="index",
            )
        else:
            directory.mkdir(parents=True, exist_ok=True)
            with _writing(directory):
                Store(directory, encoder.widths, create=True)
                _write(about, {"format": _FORMAT, "models": dict(encoder.models), "clustered": 0})
        return cls(directory, encoder, Store(directory, encoder.widths), config)

    def __len__(self) -> int:
        return len(self.store)

    def about(self) -> dict[str, Any]:
        """The models, and how much is in it."""
        size = sum(p.stat().st_size for p in self.directory.rglob("*") if p.is_file())
        return {
            "directory": str(self.directory),
            "items": len(self),
            "with_picture": self.store.count("picture IS NOT NULL"),
            "with_price": self.store.count("price IS NOT NULL"),
            "bytes": size,
            "models": _read(self.directory / _ABOUT)["models"],
        }

    # Changing it

    def build(self, items: Iterable[Item | Unusable], told: Callable[[Report], None]) -> Report:
        """Make the index hold just these items: new and changed ones are encoded, others stay.

        Every batch is committed when ``told`` hears of it; a build that was interrupted or killed
        goes on where it stopped when it is run again. Raises `BusyError` while another process
        changes the index.
        """
        return self._take(items, told, new=True, known=True, others=False)

    def add(self, items: Iterable[Item | Unusable], told: Callable[[Report], None]) -> Report:
        """Encode those that are not in it; see `build`."""
        return self._take(items, told, new=True, known=False, others=True)

    def update(self, items: Iterable[Item | Unusable], told: Callable[[Report], None]) -> Report:
        """Encode those again that are in it and have changed; see `build`."""
        return self._take(items, told, new=False, known=True, others=True)

    def delete(self, ids: Iterable[str]) -> int:
        """Take items out; gives how many there were."""
        with _writing(self.directory):
            self.store.refresh()
            count = sum(self.store.delete(part) for part in _parts(ids, 500))
            if count:
                self.tidy()
            return count

    def _take(
        self,
        items: Iterable[Item | Unusable],
        told: Callable[[Report], None],
        *,
        new: bool,
        known: bool,
        others: bool,
    ) -> Report:
        report, began = Report(), time.monotonic()
        seen: set[int] = set()  # hashes: a million ids of 100 letters would be 150 MB
        with _writing(self.directory):
            self.store.refresh()
            for part in _parts(items, self.config.batch):
                usable: dict[str, Item] = {}
                for item in part:
                    if isinstance(item, Unusable):
                        report.refuse(item)
                    elif item.id in usable or hash(item.id) in seen:
                        report.refuse(Unusable(item.id, "an item before it has the same id"))
                    else:
                        usable[item.id] = item
                        seen.add(hash(item.id))
                stamps = self.store.stamps(list(usable)) if usable else {}
                work = []
                for item in usable.values():
                    there = item.id in stamps
                    if there and stamps[item.id] == item.stamp:
                        report.unchanged += 1
                    elif known if there else new:
                        work.append(item)
                    else:
                        report.left_out += 1
                for fresh in (True, False):
                    wanted = [item for item in work if (item.id not in stamps) == fresh]
                    failed = self._encode(wanted, report, fresh=fresh)
                    # What cannot be read any more is not found any more, as when it is gone.
                    if not fresh and failed:
                        self.store.delete(failed)
                report.seconds = time.monotonic() - began
                told(report)
                if (report.added + report.updated) % INDEX_FROM < len(work):
                    self.tidy()
            if not others:
                gone = [id for ids in self.store.ids() for id in ids if hash(id) not in seen]
                report.deleted += sum(self.store.delete(part) for part in _parts(gone, 500))
            if report.added or report.updated or report.deleted:
                self.tidy()
        report.seconds = time.monotonic() - began
        return report

    def _encode(self, items: Sequence[Item], report: Report, *, fresh: bool) -> list[str]:
        """Commit items; gives the ids of those whose pictures cannot be read."""
        frames: list[ImageFrame | None] = []
        good, failed = [], []
        for item in items:
            try:
                frames.append(None if item.picture is None else _load(item.picture))
                good.append(item)
            except MediaError as error:
                report.refuse(Unusable(item.id, str(error)))
                failed.append(item.id)
        if good:
            encoded = self._encoder.items(frames, [item.words for item in good])
            rows = [
                row_of(item, encoded.seen[i], encoded.colours[i])
                | {"meaning": encoded.meaning[i], "look": encoded.look[i]}
                for i, item in enumerate(good)
            ]
            self.store.put(rows, fresh=fresh)
        if fresh:
            report.added += len(good)
        else:
            report.updated += len(good)
        return failed

    def tidy(self) -> None:
        """Keep the files of the index few and its clusters even; `build` and the others do so."""
        about = _read(self.directory / _ABOUT)
        count = len(self.store)
        cluster = count >= max(INDEX_FROM, 2 * about["clustered"])
        self.store.tidy(cluster=cluster)
        if cluster:
            _write(self.directory / _ABOUT, {**about, "clustered": count})

    # Searching it

    def search(
        self,
        request: str | None = None,
        picture: ImageFrame | None = None,
        *,
        limit: int = 10,
    ) -> Found:
        """What fits a request, a picture, or both best.

        The score is one sum: how well picture and words of an item mean what the request says
        (`ItemEncoder`), a bonus for each named colour and attribute that it has, and with a
        ``picture`` how alike they look. Prices and what is not wanted are conditions.

        Raises `InputError` for an empty or too long request, or a limit out of 1 to `MAX_HITS`.
        """
        if not 1 <= limit <= MAX_HITS:
            raise InputError(f"limit is {limit}; it can be 1 to {MAX_HITS}", param="limit")
        if request is None and picture is None:
            raise InputError("say what to find, or give a picture", param="query", code="empty")
        wish = read_request(request) if request is not None else Wish()
        look = None if picture is None else picture.pixels.tobytes()
        key = (wish, look, limit, self.store.refresh())
        return self.queries.get(key, lambda: self._search(wish, picture, limit))

    def get(self, id: str) -> Hit | None:
        """One item; None when there is no such id."""
        self.store.refresh()
        row = self.store.get(id)
        return None if row is None else hit_of(row, 0.0)

    def picture(self, id: str) -> Path | None:
        """The picture of an item, where it has one that is still there."""
        hit = self.get(id)
        path = Path(hit.picture) if hit is not None and hit.picture is not None else None
        return path if path is not None and path.is_file() else None

    def figures(self) -> dict[str, dict[str, float]]:
        """Of the caches: hits, misses, and the rate of hits."""
        caches: dict[str, Recent[Any]] = {"queries": self.queries, "vectors": self.vectors}
        return {
            name: {"hits": c.hits, "misses": c.misses, "rate": c.rate} for name, c in caches.items()
        }

    def _search(self, wish: Wish, picture: ImageFrame | None, limit: int) -> Found:
        notes = []
        if wish.priced and not self.store.has_prices:
            wish = replace(wish, least=None, most=None, currency=None)
            notes.append("no item has a price, so that the price was not heeded")
        keep = Filter(
            wish.least,
            wish.most,
            wish.currency,
            not_tags=wish.not_phrases,
            not_colours=wish.not_colours,
        )
        named = tuple(dict.fromkeys((*wish.colours, *wish.phrases)))
        count = max(self.config.candidates, limit)
        words = self._words(wish)
        look = None if picture is None else self._encoder.look(picture)
        tables = []
        if words is not None:
            tables.append(self.store.nearest("meaning", words, keep.sql(), count))
            if named:
                # Vectors hardly tell colours and attributes apart: those that have them, as well.
                having = replace(keep, any_of=named).sql()
                tables.append(self.store.nearest("meaning", words, having, count))
        if look is not None:
            tables.append(self.store.nearest("look", look, keep.sql(), count))
        if not tables:
            tables.append(self.store.some(keep.sql(), count))
        table = unite(tables)
        scores = np.zeros(len(table), np.float32)
        if words is not None:
            share = 1.0 if look is None else 1.0 - self.config.look
            scores += share * (vectors(table, "meaning") @ words)
        if look is not None:
            share = 1.0 if words is None else self.config.look
            scores += share * (vectors(table, "look") @ look)
        rows = table.drop_columns(["meaning", "look"]).to_pylist()
        for i, row in enumerate(rows):
            has = {*row["tags"], *row["colours"]}
            scores[i] += self.config.bonus * min(3, sum(name in has for name in named))
        best = np.argsort(-scores, kind="stable")[:limit]
        hits = tuple(hit_of(rows[i], float(scores[i])) for i in best)
        if not hits and wish.currency is not None:
            notes.append(f"nothing that fits has a price in {wish.currency}; say another currency")
        return Found(hits, wish, tuple(notes))

    def _words(self, wish: Wish) -> Floats | None:
        """What is looked for as one vector: what is wanted, less what is not."""
        if not wish.text and not wish.without:
            return None
        texts = (wish.text, *wish.without)
        wanted, *unwanted = [self._vector(text) for text in texts]
        total: Floats = wanted - self.config.against * sum(unwanted, np.zeros_like(wanted))
        return total

    def _vector(self, text: str) -> Floats:
        if not text:
            return np.zeros(self._encoder.widths[0], np.float32)
        return self.vectors.get(text, lambda: self._encoder.words([text])[0])


def _load(path: Path) -> ImageFrame:
    from encoders.media import load_image

    return load_image(path, max_side=512)


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        with FileLock(directory / ".lock", timeout=0):
            yield
    except Timeout:
        raise BusyError(
            f"another process is changing the index in {directory}; wait until it has ended"
        ) from None


def _check_models(directory: Path, about: Mapping[str, Any], encoder: ItemEncoder) -> None:
    if about.get("format") == _FORMAT and about.get("models") == dict(encoder.models):
        return
    made = ", ".join(f"{k}: {v}" for k, v in (about.get("models") or {}).items()) or "an older Omni"
    here = ", ".join(f"{k}: {v}" for k, v in encoder.models.items())
    raise InputError(
        f"the index in {directory} was made by other models ({made}) than those here ({here}), so "
        "that its vectors mean something else; make it anew with: "
        f"omni index build SOURCE --index {directory} --fresh",
        param="index",
        code="other_models",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); make the index anew with --fresh", param="index"
        ) from None
    return about if isinstance(about, dict) else {}


def _write(path: Path, about: Mapping[str, Any]) -> None:
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(about, indent=2), "utf-8")
    scratch.replace(path)


def _parts(things: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(things)
    while part := list(islice(iterator, size)):
        yield part
