"""What a model is fed with, and the KV cache that remembers it.

Shape letters: T tokens in the cache, H heads of keys and values, D width of a head or of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from typing import Protocol

import torch
from torch import Tensor

from omni.errors import InputError
from omni.sequence import MODALITIES


class Cache(Protocol):
    """The memory of one sequence. Belongs to one session, is used by one request at a time."""

    tokens: list[int]
    """The ids in the cache; negative ids stand for embeddings that were fed."""
    ahead: Tensor | None
    """Logits (V,) after the last token, where a prefill has left them for the next request."""

    @property
    def length(self) -> int:
        """Number of tokens in the cache."""
        ...

    @property
    def bytes(self) -> int:
        """Memory that the cache takes."""
        ...

    def crop(self, length: int) -> None:
        """Forget everything from position ``length`` on; longer than the cache is no change."""
        ...


@dataclass(slots=True)
class Feed:
    """New tokens of one sequence: they are appended to ``cache``.

    A negative id is a place for a row of ``embeds`` (E, D), in order. The same medium should get
    the same ids, as prefixes of prompts are compared by id; the last two bits are the modality (see
    `omni.sequence`).

    ``positions`` of the tokens are consecutive by default, from one after the highest in the cache
    on. Given ones may repeat and go back.
    """

    cache: Cache
    tokens: Sequence[int]
    embeds: Tensor | None = None
    positions: Sequence[int] | None = None
    logits: bool = True
    """Whether logits after the last token are wanted; leave them out while a prompt goes on."""


@dataclass(slots=True)
class Output:
    """``logits`` (R, V) and, when asked for, final hidden states ``hidden`` (R, D).

    One row per feed that wants logits, in order; one per token of these with ``all_logits``.
    """

    logits: Tensor
    hidden: Tensor | None = None


def is_picture(token: int) -> bool:
    """Whether an id stands for a row of a picture's embeddings."""
    return token < 0 and MODALITIES[-token & 3] == "image"


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


class Ids:
    """The ids in a cache, and the position that comes after them."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ahead: Tensor | None = None
        self.first_picture: int | None = None
        """Index of the first token that stands for a picture."""
        self._ends: list[int] = []
        """After each token, one more than the highest position so far."""

    @property
    def length(self) -> int:
        """Number of tokens in the cache."""
        return len(self.tokens)

    @property
    def end(self) -> int:
        """The position of the next token."""
        return self._ends[-1] if self._ends else 0

    def positions(self, feed: Feed) -> Sequence[int]:
        """Where the tokens of ``feed`` go."""
        if feed.positions is not None:
            return feed.positions
        return range(self.end, self.end + len(feed.tokens))

    def pictures_from(self, feed: Feed) -> int | None:
        """Index of the first token of a picture when ``feed`` is in the cache, if there is one."""
        if self.first_picture is not None:
            return self.first_picture
        return next((self.length + i for i, t in enumerate(feed.tokens) if is_picture(t)), None)

    def append(self, feed: Feed) -> None:
        """Note that the tokens of ``feed`` are in the cache."""
        positions = self.positions(feed)
        self.first_picture = self.pictures_from(feed)
        self.tokens.extend(feed.tokens)
        ends = accumulate((p + 1 for p in positions), max, initial=self.end)
        self._ends.extend(islice(ends, 1, None))

    def forget(self, length: int) -> None:
        """Keep the first ``length`` tokens."""
        del self.tokens[length:], self._ends[length:]
        if self.first_picture is not None and self.first_picture >= length:
            self.first_picture = None


class KVCache(Ids):
    """Keys and values of every layer, one tensor (2, H, capacity, D) each, grown by doubling."""

    def __init__(
        self, layers: int, heads: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        self._empty = partial(_empty, heads, width, dtype, device)
        self.layers = [self._empty(0) for _ in range(layers)]

    @property
    def bytes(self) -> int:
        """Memory that the cache takes, its spare room included."""
        return sum(layer.nbytes for layer in self.layers)

    def crop(self, length: int) -> None:
        """Forget everything from position ``length`` on; longer than the cache is no change."""
        if length < 0:
            raise ValueError(f"length is {length}; expected 0 or more")
        self.forget(length)

    def reserve(self, length: int) -> None:
        """Make room for ``length`` tokens."""
        capacity = self.layers[0].shape[2]
        if length <= capacity:
            return
        capacity = max(length, 2 * capacity, 256)
        kept = len(self.tokens)
        for i, old in enumerate(self.layers):
            new = self._empty(capacity)
            new[:, :, :kept] = old[:, :, :kept]
            self.layers[i] = new


def check_feed(feed: Feed, cache: Ids, max_context: int, vocabulary: int, width: int) -> None:
    """Raise `InputError` for a feed that a model of these sizes cannot take."""
    if not feed.tokens:
        raise InputError("a feed has no tokens; expected at least one", param="tokens")
    positions = cache.positions(feed)
    if len(positions) != len(feed.tokens) or min(positions) < 0:
        raise InputError(
            f"a feed of {len(feed.tokens)} tokens has {len(positions)} positions, from "
            f"{min(positions, default=0)} on; expected one each, none negative",
            param="positions",
        )
    end = max(cache.length + len(feed.tokens), max(positions) + 1)
    if end > max_context:
        raise InputError(
            f"{end} tokens do not fit into the context of {max_context}; "
            "shorten the prompt or load the model with a larger max_context",
            param="tokens",
            code="context_length_exceeded",
        )
    if max(feed.tokens) >= vocabulary:
        raise InputError(
            f"token {max(feed.tokens)} is outside of the vocabulary of {vocabulary}",
            param="tokens",
        )
    places = sum(t < 0 for t in feed.tokens)
    expected = (places, width)
    shape = (0, width) if feed.embeds is None else tuple(feed.embeds.shape)
    if shape != expected:
        raise InputError(
            f"embeds have shape {shape}; expected {expected}, a row per negative token",
            param="embeds",
        )


def _empty(
    heads: int, width: int, dtype: torch.dtype, device: torch.device, capacity: int
) -> Tensor:
    return torch.empty(2, heads, capacity, width, dtype=dtype, device=device)
