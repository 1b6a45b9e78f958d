"""What a search and a build give, and items as rows of the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omni.search.items import Item, Unusable
from omni.search.request import Wish, colours_in

_KNOWN_NAMES = 20
"""Unusable items whose names a report holds; all are counted."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Something that was found; ``score`` is about 0 to 1, and higher is better."""

    id: str
    score: float
    picture: str | None
    title: str
    text: str
    seen: str
    """What the picture shows, in a word or two; "" when it was not recognised."""
    price: float | None
    currency: str | None
    attributes: dict[str, str]
    colours: tuple[str, ...]

    def wire(self) -> dict[str, Any]:
        """As JSON."""
        own = {name: getattr(self, name) for name in self.__slots__}
        return {**own, "score": round(self.score, 4), "colours": list(self.colours)}


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gave: hits, the best first, and what was read from the request.

    ``notes`` say what could not be heeded.
    """

    hits: tuple[Hit, ...]
    wish: Wish
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """What became of the items of a source."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    left_out: int = 0
    """Known ones to `Index.add`, unknown ones to `Index.update`."""
    deleted: int = 0
    unusable: int = 0
    problems: list[Unusable] = field(default_factory=list)
    """The first of the unusable ones."""
    seconds: float = 0.0

    def refuse(self, problem: Unusable) -> None:
        """Count an item that cannot be used."""
        self.unusable += 1
        if len(self.problems) < _KNOWN_NAMES:
            self.problems.append(problem)


def row_of(item: Item, seen: str, colours: tuple[str, ...]) -> dict[str, Any]:
    """An item as a row of the store, without its vectors."""
    said = " ".join([item.title, *item.attributes.values()])
    tags = {value.lower() for text in item.attributes.values() for value in _values(text)}
    tags |= {
        f"{key} {value}".lower() for key, text in item.attributes.items() for value in _values(text)
    }
    return {
        "id": item.id,
        "stamp": item.stamp,
        "picture": None if item.picture is None else item.picture.as_posix(),
        "title": item.title,
        "text": item.text,
        "seen": seen,
        "price": item.price,
        "currency": item.currency,
        "attributes": json.dumps(dict(item.attributes), ensure_ascii=False),
        "tags": sorted(tags),
        # Who sells a thing knows its colour better than its picture does.
        "colours": list(colours_in(said) or colours),
    }


def _values(text: str) -> list[str]:
    return [text, *(part.strip() for part in text.split(",") if "," in text)]


def hit_of(row: Mapping[str, Any], score: float) -> Hit:
    """A row of the store as a result."""
    return Hit(
        row["id"],
        score,
        row["picture"],
        row["title"] or "",
        row["text"] or "",
        row["seen"] or "",
        row["price"],
        row["currency"],
        json.loads(row["attributes"] or "{}"),
        tuple(row["colours"]),
    )
