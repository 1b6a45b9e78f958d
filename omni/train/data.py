"""What training reads: examples made of tokens and media, in micro-batches that can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from torch import Tensor

from omni.errors import InputError, OmniError
from omni.sequence import Text
from omni.types import Modality


@dataclass(frozen=True, slots=True)
class Media:
    """What a frozen encoder saw or heard: ``features`` (T, E), in the encoder's own width.

    ``words`` are the tokens of its transcript or caption, and ``facts`` the ``meta`` of its sample,
    for the losses of the bridges; ``times`` (begin, end) in seconds, needed within a clip.
    """

    modality: Modality
    features: Tensor
    words: tuple[int, ...] = ()
    times: tuple[float, float] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def media(self) -> tuple[Media, ...]:
        """Itself."""
        return (self,)


@dataclass(frozen=True, slots=True)
class Clip:
    """A video: its frames and its sound, all with times."""

    frames: tuple[Media, ...]
    sound: tuple[Media, ...] = ()

    @property
    def media(self) -> tuple[Media, ...]:
        """Frames, then sound."""
        return self.frames + self.sound


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence in the order in which the LLM reads it."""

    pieces: tuple[Text | Media | Clip, ...]

    @property
    def media(self) -> tuple[Media, ...]:
        """All media, those of clips too."""
        return tuple(m for p in self.pieces if not isinstance(p, Text) for m in p.media)

    @property
    def cost(self) -> int:
        """About how long it is: tokens and feature positions."""
        tokens = sum(len(p.ids) for p in self.pieces if isinstance(p, Text))
        return tokens + sum(len(m.features) for m in self.media)

    @property
    def units(self) -> int:
        """Tokens that the language loss counts: the learned ones, but for a first in the row."""
        first = self.pieces[0]
        early = isinstance(first, Text) and first.learn and bool(first.ids)
        return sum(len(p.ids) for p in self.pieces if isinstance(p, Text) and p.learn) - early


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, of which the first is preferred."""

    chosen: Example
    rejected: Example

    @property
    def cost(self) -> int:
        """Of both."""
        return self.chosen.cost + self.rejected.cost

    @property
    def units(self) -> int:
        """A pair counts as one."""
        return 1


Item = Example | Pair
Position = dict[str, Any]
"""Where a reader is in its data, as JSON types."""


class Source(Protocol):
    """The data of one modality. Reading is a function of the position alone."""

    size: int
    """Samples in it, at least about: plain mixing draws in this proportion."""

    def read(self, position: Position | None) -> Iterator[tuple[Item | OmniError, Position]]:
        """Items from a position on (None: the beginning), each with the position after it.

        Never ends: it begins again, in another order. A bad sample comes as its error.
        """
        ...

    def held_out(self, count: int) -> Sequence[Item]:
        """``count`` items, or all there are, that `read` never gives; always the same."""
        ...


class Counter:
    """Counts bad samples. Past ``limit`` the next one is an error."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bad: dict[str, int] = {}

    def add(self, modality: str, error: OmniError) -> None:
        """Count one. Raises `InputError` when there are too many."""
        self.bad[modality] = self.bad.get(modality, 0) + 1
        if sum(self.bad.values()) > self.limit:
            raise InputError(
                f"more than {self.limit} bad samples ({self.bad}), the last one: {error}; repair "
                "the data, or allow more with bad_samples",
                param="bad_samples",
            ) from error


class Batches:
    """Micro-batches of one modality: a pool of items, bucketed by length, in random order.

    Resuming reads the pool in progress again and goes on after the batches that were taken.
    """

    def __init__(
        self, modality: str, source: Source, *, tokens: int, pool: int, seed: int, counter: Counter
    ) -> None:
        """``tokens`` bounds the cost of a micro-batch, ``pool`` is a number of items."""
        self._modality, self._source, self._counter = modality, source, counter
        self._tokens, self._pool, self._seed = tokens, pool, seed
        self._begin: Position | None = None
        self._end: Position | None = None
        self._round = self._taken = 0
        self._ready: list[list[Item]] | None = None
        self._items: Iterator[tuple[Item | OmniError, Position]] | None = None

    def next(self) -> list[Item]:
        """The next micro-batch. Raises what reading raises."""
        if self._ready is None:
            self._ready = self._fill()[self._taken :]
        if not self._ready:
            self._begin, self._round, self._taken = self._end, self._round + 1, 0
            self._ready = self._fill()
        self._taken += 1
        return self._ready.pop(0)

    def _fill(self) -> list[list[Item]]:
        if self._items is None:
            self._items = self._source.read(self._begin)
        pool: list[Item] = []
        for item, position in self._items:
            self._end = position
            if isinstance(item, OmniError):
                self._counter.add(self._modality, item)
            elif item.cost > self._tokens:
                problem = f"a sample of {item.cost} positions does not fit into {self._tokens}"
                self._counter.add(self._modality, InputError(problem))
            else:
                pool.append(item)
            if len(pool) == self._pool:
                break
        if not pool:
            raise InputError(f"the data of {self._modality} is empty", param="data")
        batches = bucket(pool, self._tokens)
        Random(f"{self._seed} {self._modality} {self._round}").shuffle(batches)
        return batches

    def state(self) -> dict[str, Any]:
        """Where to go on, as JSON types."""
        return {"begin": self._begin, "round": self._round, "taken": self._taken}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self._begin, self._round, self._taken = state["begin"], state["round"], state["taken"]
        self._ready = self._items = None


def bucket(items: Sequence[Item], tokens: int) -> list[list[Item]]:
    """Items of like length together, each group at most ``tokens`` long."""
    groups: list[list[Item]] = []
    room = 0
    for item in sorted(items, key=lambda i: i.cost, reverse=True):
        if not groups or item.cost > room:
            groups.append([])
            room = tokens
        groups[-1].append(item)
        room -= item.cost
    return groups
