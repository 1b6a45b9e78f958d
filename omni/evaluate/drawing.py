"""How well wishes are drawn: judged by a classifier trained apart, and by the nearest picture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni.errors import OmniError
from omni.evaluate.figures import quantile, share
from omni.evaluate.run import Row, Run

if TYPE_CHECKING:
    from omni.draw.evaluate import Gallery
    from omni.draw.pictures import Drawing


@dataclass(frozen=True, slots=True)
class Made:
    """A picture (H, W, 3), and how long it took."""

    pixels: NDArray[np.uint8] = field(repr=False)
    ms: float


def drawing(run: Run) -> None:
    """Wishes drawn: do pictures show what was asked for, and how long they take."""
    from omni.draw.evaluate import Gallery
    from omni.draw.judge import Judge
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
    [judge] = run.each("drawing, the judge learns", [run.seed], partial(Judge, gallery.drawings))
    if isinstance(judge, Exception):
        raise judge
    every: list[Made | Exception] = []
    for kind, wanted in gallery.prompts().items():
        some = run.some(wanted, 24, 2)
        made = run.each(f"drawing, {kind}", some, partial(_paint, painter, run.seed))
        every += made
        for measure, mark in (
            ("thing, by the classifier", lambda asked, it: judge.sees(asked, it.pixels)[0]),
            ("colour, by the classifier", lambda asked, it: judge.sees(asked, it.pixels)[1]),
            ("both, by the nearest picture", partial(_nearest, gallery)),
        ):
            if wanted:
                row = Row("drawing", f"{kind}: {measure}", bridge.name)
                run.add(row, some, made, mark, _share)
    row = Row("drawing", "a picture, median", bridge.name, unit="ms", cost=True)
    fold = partial(quantile, q=0.5, seed=run.seed)
    run.add(row, every, every, lambda _, it: it.ms, fold)


def _paint(painter: Any, seed: int, asked: Drawing) -> Made:
    from omni.draw.evaluate import wish_of

    wish = wish_of(asked)
    began = time.perf_counter()
    pixels = painter.paint(wish, seed=Random(f"{seed} {wish.prompt}").getrandbits(31))
    return Made(pixels, (time.perf_counter() - began) * 1e3)


def _nearest(gallery: Gallery, asked: Drawing, it: Made) -> bool:
    seen = gallery.nearest(it.pixels)
    return seen.subject is asked.subject and seen.colour == asked.colour


def _share(marks: Sequence[bool]) -> Any:
    return share(sum(marks), len(marks))
