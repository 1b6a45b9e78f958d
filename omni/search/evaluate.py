"""How often the right picture comes first: retrieval of held-out pictures by their names.

Each gallery is ranked for each name in it, by the vectors alone; R@1 and R@5 are the shares of
names for which a picture of that name is first, and among the first five.

================ ===========================================================================
seen kinds       things of the emoji and clip art that training may show, as many as held out
held-out kinds   the things that no training picture shows
photographs      all photographs with names
held-out photos  the photographs that are not in the training part
scenes           composed pictures of the held-out part, by their captions
================ ===========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from omni.errors import InputError

if TYPE_CHECKING:
    from omni.search.encoder import ItemEncoder
    from omni.types import ImageFrame

_PLACE = re.compile(
    r" (?:at the [a-z]+(?: [a-z]+)?|on the (?:left|right)|in the middle)(?=[,. ]|$)"
)
_SCENES = 256


def run(seed: int = 0, encoder: ItemEncoder | None = None) -> dict[str, Any]:
    """The figures of ``encoder``, default: of this version's; the same seed, the same figures.

    Raises `InputError` when the data are not there.
    """
    from runtime.search import LabelEncoder

    used = encoder or LabelEncoder()
    sets = {name: _measure(used, *pairs) for name, pairs in _galleries(seed).items()}
    return {"seed": seed, "models": dict(used.models), "galleries": sets}


def render(result: dict[str, Any]) -> str:
    """As a table in words."""
    lines = [f"{'gallery':<16}{'pictures':>9}{'names':>7}{'R@1':>8}{'R@5':>8}{'chance R@1':>12}"]
    for name, row in result["galleries"].items():
        lines.append(
            f"{name:<16}{row['pictures']:>9}{row['names']:>7}{row['r1']:>8.3f}{row['r5']:>8.3f}"
            f"{row['chance']:>12.3f}"
        )
    return "\n".join(lines)


def recall(
    scores: np.ndarray[Any, Any], wanted: Sequence[str], names: Sequence[str]
) -> tuple[float, float]:
    """R@1 and R@5 of ``scores`` (len(wanted), len(names))."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    first = [names[row[0]] == name for row, name in zip(order, wanted, strict=True)]
    five = [name in {names[i] for i in row} for row, name in zip(order, wanted, strict=True)]
    return float(np.mean(first)), float(np.mean(five))


def _measure(
    encoder: ItemEncoder, frames: Sequence[ImageFrame], names: Sequence[str]
) -> dict[str, float | int]:
    wanted = list(dict.fromkeys(names))
    pictures = encoder.items(frames, [""] * len(frames)).meaning
    r1, r5 = recall(encoder.words(wanted) @ pictures.T, wanted, names)
    chance = float(np.mean([names.count(name) / len(names) for name in wanted]))
    counts = {"pictures": len(names), "names": len(wanted)}
    return {**counts, "r1": round(r1, 4), "r5": round(r5, 4), "chance": round(chance, 4)}


def _galleries(seed: int) -> dict[str, tuple[list[ImageFrame], list[str]]]:
    from encoders.media import load_image
    from omni.data.shards import read_shards
    from omni.data.texts import is_held_out
    from omni.data.things import photographs, things
    from omni.weights.store import home

    known = things("fluent", "clipart")
    held_out = [thing for thing in known if thing.held_out]
    seen = Random(seed).sample([thing for thing in known if not thing.held_out], len(held_out))
    photos = [photo for photo in photographs() if photo[0]]
    directory = home() / "data" / "pictures" / "held_out"
    if not directory.is_dir():
        raise InputError(
            "there are no held-out scenes; make them with: "
            "omni data make pictures --part held_out --count 512"
        )
    samples = sorted(read_shards(directory), key=lambda sample: sample.id)
    scenes = Random(seed).sample(samples, min(_SCENES, len(samples)))
    return {
        "seen kinds": ([load_image(t.path) for t in seen], [t.name for t in seen]),
        "held-out kinds": ([load_image(t.path) for t in held_out], [t.name for t in held_out]),
        "photographs": ([load_image(p[1]) for p in photos], [p[0] for p in photos]),
        "held-out photos": (
            [load_image(p[1]) for p in photos if is_held_out(p[2], 10)],
            [p[0] for p in photos if is_held_out(p[2], 10)],
        ),
        "scenes": (
            [load_image(s.media[0].data) for s in scenes],
            [_PLACE.sub("", s.meta["caption"]) for s in scenes],
        ),
    }
