"""What a model is fed with, and the KV cache that remembers it.

Shape letters: T tokens in the cache, H heads of keys and values, D width of a head or of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor


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

    A negative id is a place for a row of ``embeds`` (E, D), in order; any negative numbers will do,
    and the same medium should get the same ones, as prefixes of prompts are compared by id.
    """

    cache: Cache
    tokens: Sequence[int]
    embeds: Tensor | None = None
    logits: bool = True
    """Whether logits after the last token are wanted; leave them out while a prompt goes on."""


@dataclass(slots=True)
class Output:
    """``logits`` (R, V) and, when asked for, final hidden states ``hidden`` (R, D).

    One row per feed that wants logits, in order; one per token of these with ``all_logits``.
    """

    logits: Tensor
    hidden: Tensor | None = None


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


class KVCache:
    """Keys and values of every layer, one tensor (2, H, capacity, D) each, grown by doubling."""

    def __init__(
        self, layers: int, heads: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._empty = partial(_empty, heads, width, dtype, device)
        self.layers = [self._empty(0) for _ in range(layers)]
        self.tokens: list[int] = []
        self.ahead: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of tokens in the cache."""
        return len(self.tokens)

    @property
    def bytes(self) -> int:
        """Memory that the cache takes, its spare room included."""
        return sum(layer.nbytes for layer in self.layers)

    def crop(self, length: int) -> None:
        """Forget everything from position ``length`` on; longer than the cache is no change."""
        if length < 0:
            raise ValueError(f"length is {length}; expected 0 or more")
        del self.tokens[length:]

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


def _empty(
    heads: int, width: int, dtype: torch.dtype, device: torch.device, capacity: int
) -> Tensor:
    return torch.empty(2, heads, capacity, width, dtype=dtype, device=device)
