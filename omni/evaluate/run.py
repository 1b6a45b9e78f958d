"""What every part needs: its samples, outcomes that may fail, and rows of what came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from omni.data.sample import Sample
from omni.evaluate.bridges import Bridge
from omni.evaluate.figures import Figure
from omni.evaluate.samples import by_number, draw
from omni.types import Message, Modality

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
Show = Callable[[str, int], Callable[[], None]]
"""Begins a bar of so many steps, and gives what makes one of them."""
_BAD = 100
"""Samples of a set that may be unreadable; with more the set is broken."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of one bridge; ``bad`` samples could not be measured and do not count.

    ``unit`` is "%" for shares, whose figures are from 0 to 1, or "ms". More is better unless the
    row is a ``cost``: a word error rate, a time.
    """

    part: str
    measure: str
    bridge: str
    figure: Figure | None = None
    bad: int = 0
    unit: str = "%"
    cost: bool = False


@dataclass
class Run:
    """What is compared, on what. ``limit`` is the most samples of a measure."""

    bridges: Sequence[Bridge]
    data: Path
    seed: int = 0
    quick: bool = False
    limit: int | None = None
    show: Show = lambda what, total: lambda: None
    tell: Callable[[Row], None] = lambda row: None
    """Is told of every row when it is there."""
    log: Callable[[dict[str, Any]], None] = lambda entry: None
    """Takes every sample that was judged: what was asked, what came, and its mark."""
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What was wrong with bad samples."""

    def some(self, items: Sequence[T], usual: int, quick: int) -> list[T]:
        """The samples of a measure: so many as usual, or for a quick look."""
        count = quick if self.quick else usual
        return draw(items, count if self.limit is None else min(count, self.limit), self.seed)

    def held_out(self, kind: str, part: str = "held_out") -> list[Sample]:
        """All samples of a part by their numbers, whatever the order they were made in."""
        from omni.data.shards import read_shards

        reader = read_shards(self.data / kind / part, bad=_BAD)
        samples = sorted(reader, key=lambda sample: by_number(sample.id))
        if reader.bad:
            self.problems.append(f"{reader.bad} samples of {kind}/{part} cannot be read")
        return samples

    def of(self, modality: Modality) -> list[Bridge]:
        """The bridges that differ in ``modality``."""
        return [bridge for bridge in self.bridges if modality in bridge.covers]

    def each(self, what: str, items: Sequence[T], work: Callable[[T], U]) -> list[U | Exception]:
        """``work`` on every item; what it raises stands in the place of its result."""
        step = self.show(what, len(items))
        found: list[U | Exception] = []
        for item in items:
            try:
                found.append(work(item))
            except Exception as error:  # one bad sample must not end the run
                found.append(error)
            step()
        return found

    def ask(
        self,
        what: str,
        bridge: Bridge,
        items: Sequence[T],
        prompt: Callable[[T], Sequence[Message]],
        most: int,
    ) -> list[str | Exception]:
        """The bridge's answers, of up to ``most`` tokens."""
        step = self.show(f"{what}, {bridge.name}", len(items))
        return bridge.answer([partial(prompt, item) for item in items], most, step)

    def add(
        self,
        row: Row,
        items: Sequence[T],
        outcomes: Sequence[U | Exception],
        mark: Callable[[T, U], V],
        fold: Callable[[list[V]], Figure | None],
    ) -> None:
        """Fill ``row`` in: ``mark`` judges each outcome, ``fold`` makes one figure of the marks."""
        marks: list[V] = []
        bad = 0
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Exception):
                bad += 1
                self.problems.append(f"{row.measure}, {row.bridge}: {outcome}")
                continue
            marks.append(mark(item, outcome))
            entry = {"measure": row.measure, "bridge": row.bridge, "asked": str(item)}
            self.log({**entry, "came": str(outcome), "mark": marks[-1]})
        self.rows.append(replace(row, figure=fold(marks), bad=bad))
        self.tell(self.rows[-1])
