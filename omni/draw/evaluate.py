"""How well pictures are drawn: whether the nearest of all that could be meant was asked for.

Nothing that was trained judges. A picture is compared, made small, with every subject in every
colour, those held out of training included; the nearest one, in pixels, is what it shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omni.draw.pictures import Drawing, drawings
from omni.draw.wishes import Wish

_SIDE = 32
Paint = Callable[[Wish, int], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one kind of prompts: shares that show the subject, the colour, and both."""

    prompts: int
    subject: float
    colour: float
    both: float
    seconds: float
    """Of one picture, in the median."""


class Gallery:
    """Every subject in every colour, small: what a picture may show."""

    def __init__(self, known: frozenset[str]) -> None:
        """``known`` are the names of the subjects."""
        self.drawings = [d for d in drawings() if d.count == 1 and d.subject.name in known]
        self._table = np.stack([_small(d.render()) for d in self.drawings])

    def prompts(self) -> dict[str, list[Drawing]]:
        """What can be asked for, by kind.

        Shapes, things as they are by nature, and in colours that were trained or held out.
        """
        kinds: dict[str, list[Drawing]] = {"shapes": [], "natural": [], "trained": []}
        kinds["held out"] = []
        for drawing in self.drawings:
            if not drawing.mirrored:
                kinds[_kind(drawing)].append(drawing)
        return kinds

    def nearest(self, pixels: NDArray[np.uint8]) -> Drawing:
        """What a picture shows."""
        return self.drawings[int(((self._table - _small(pixels)) ** 2).sum(1).argmin())]


def evaluate(
    paint: Paint, known: frozenset[str], count: int = 60, seed: int = 0
) -> dict[str, Figures]:
    """Draw up to ``count`` prompts of each kind of `Gallery.prompts`."""
    gallery = Gallery(known)
    random = Random(seed)
    figures = {}
    for kind, every in gallery.prompts().items():
        if not every:
            continue
        right, seconds = [], []
        for drawing in random.sample(every, min(count, len(every))):
            begin = time.perf_counter()
            made = paint(wish_of(drawing), random.getrandbits(31))
            seconds.append(time.perf_counter() - begin)
            seen = gallery.nearest(made)
            right.append((seen.subject is drawing.subject, seen.colour == drawing.colour))
        marks = np.array(right, float).reshape(-1, 2)
        subject, colour = marks.mean(0)
        both, median = float(marks.all(1).mean()), float(np.median(seconds))
        figures[kind] = Figures(len(marks), float(subject), float(colour), both, median)
    return figures


def wish_of(drawing: Drawing) -> Wish:
    """The wish that it grants."""
    return Wish(drawing.prompts[0], drawing.subject, drawing.colour, drawing.count)


def _kind(drawing: Drawing) -> str:
    if drawing.subject.emoji is None:
        return "shapes"
    if drawing.colour is None:
        return "natural"
    return "held out" if drawing.held_out else "trained"


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    image = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(image, np.float32).ravel() / np.float32(255)
