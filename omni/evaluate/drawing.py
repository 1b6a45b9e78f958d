"""How well wishes are drawn: judged by the nearest picture, and by the image adapter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni.errors import OmniError
from omni.evaluate.bridges import Bridge
from omni.evaluate.figures import quantile, share
from omni.evaluate.judging import is_right
from omni.evaluate.run import Row, Run

if TYPE_CHECKING:
    from omni.draw.pictures import Drawing
    from omni.draw.subjects import Subject


@dataclass(frozen=True, slots=True)
class Made:
    """A picture (H, W, 3), and how long it took."""

    pixels: NDArray[np.uint8] = field(repr=False)
    ms: float


def drawing(run: Run) -> None:
    """Wishes drawn: do pictures show what was asked for, and how long they take.

    The image adapter, which judges beside the nearest picture, was trained apart from what draws,
    on composed pictures of many more things. It names no colours of things.
    """
    from omni.draw.evaluate import Gallery
    from omni.draw.words import PromptReader

    bridge = run.bridges[-1]
    painters = bridge.parts.painters
    if painters is None:
        run.problems.append("drawing: nothing draws with this model")
        return
    try:
        painter: Any = painters.load(PromptReader(bridge.llm).read)
    except OmniError as error:
        run.problems.append(f"drawing: {error}")
        return
    if not hasattr(painter, "known"):
        run.problems.append(f"drawing: what {painter.name} has learnt is not known")
        return
    gallery = Gallery(painter.known)
    judge = next((b for b in run.bridges if b.name == "adapter" and "image" in b.covers), None)
    every: list[Made | Exception] = []
    for kind, wanted in gallery.prompts().items():
        if not wanted:
            continue
        some = run.some(wanted, 24, 2)
        made = run.each(f"drawing, {kind}", some, partial(_paint, painter, run.seed))
        every += made

        def shown(asked: Drawing, it: Made) -> bool:
            seen = gallery.nearest(it.pixels)
            return seen.subject is asked.subject and seen.colour == asked.colour

        row = Row("drawing", f"{kind}: thing and colour, by the nearest picture", bridge.name)
        run.add(row, some, made, shown, _share)
        pairs = [(a, m) for a, m in zip(some, made, strict=True) if _named(a.subject)]
        if judge is None or not pairs:
            continue
        row = Row("drawing", f"{kind}: thing, by the image adapter", bridge.name)
        run.add(
            row, [a for a, _ in pairs], [m for _, m in pairs], partial(_recognised, judge), _share
        )
    row = Row("drawing", "a picture, median", bridge.name, unit="ms", cost=True)
    fold = partial(quantile, q=0.5, seed=run.seed)
    run.add(row, every, every, lambda _, it: it.ms, fold)


def _paint(painter: Any, seed: int, asked: Drawing) -> Made:
    from omni.draw.evaluate import wish_of

    wish = wish_of(asked)
    began = time.perf_counter()
    pixels = painter.paint(wish, seed=Random(f"{seed} {wish.prompt}").getrandbits(31))
    return Made(pixels, (time.perf_counter() - began) * 1e3)


def _recognised(judge: Bridge, asked: Drawing, it: Made) -> bool:
    seen = judge.see(it.pixels)
    said = seen.text or "" if seen is not None else ""
    return any(is_right("", said, name) for name in _named(asked.subject))


@cache
def _named(subject: Subject) -> tuple[str, ...]:
    """The names by which the image adapter may know a subject; none where it never saw it."""
    from omni.data.things import things

    if subject.emoji is None:
        return () if subject.name in ("heart", "cross", "arrow") else subject.names
    for thing in things("fluent"):
        if thing.path.stem == subject.emoji and not thing.held_out:
            return (*subject.names, thing.name)
    return ()


def _share(marks: Sequence[bool]) -> Any:
    return share(sum(marks), len(marks))
