"""The one interface between an index and the models that make its vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from omni.types import ImageFrame

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Items as vectors: ``meaning`` (N, W), ``look`` (N, L).

    ``colours`` are those that each picture shows, ``seen`` names what it shows, "" when unsure.

    The dot product of an item's meaning with `ItemEncoder.words` of a request is the mean of how
    well its picture and its words fit, of those that it has. The dot product of two looks says how
    alike two pictures are; without a picture it is zeros.
    """

    meaning: Floats
    look: Floats
    colours: list[tuple[str, ...]]
    seen: list[str]


class ItemEncoder(Protocol):
    """Makes the vectors of items and of requests; threads may share it."""

    @property
    def models(self) -> Mapping[str, str]:
        """What makes the vectors: a role, and the model's name with its version.

        An index is only read with the models that it was made with.
        """
        ...

    @property
    def widths(self) -> tuple[int, int]:
        """Of "meaning" and of "look"."""
        ...

    def items(self, frames: Sequence[ImageFrame | None], words: Sequence[str]) -> Encoded:
        """Pictures and what is said about them ("" for nothing), at the same places."""
        ...

    def words(self, texts: Sequence[str]) -> Floats:
        """What is looked for, (N, W): unit vectors."""
        ...

    def look(self, frame: ImageFrame) -> Floats:
        """How a picture looks, (L,): a unit vector."""
        ...
