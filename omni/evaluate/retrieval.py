"""Whether pictures are found by their names and captions, by each way of reading them.

Each gallery is ranked for each name in it, by the vectors alone: is a picture of that name the
first, is one among the first five.

================ ===========================================================================
seen kinds       things of the emoji and clip art that training may show, as many as held out
held-out kinds   the things that no training picture shows
photographs      all photographs with names
held-out photos  the photographs that are not in the training part
scenes           composed pictures of the held-out part, by their captions
================ ===========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from omni.evaluate.figures import Figure, share
from omni.evaluate.run import Row, Run

if TYPE_CHECKING:
    from omni.search.encoder import Floats, ItemEncoder
    from omni.types import ImageFrame

_SCENES = 256


def search(run: Run) -> None:
    """Retrieval without the image adapter, which is training-free, and with it."""
    from runtime.search import PictureEncoder

    encoders = {
        bridge.name: PictureEncoder(PictureEncoder.Config(adapter=bridge.name == "adapter"))
        for bridge in run.of("image")
    }
    for name, (frames, names) in _galleries(run).items():
        for bridge, encoder in encoders.items():
            place = partial(places, encoder, frames)
            [found] = run.each(f"search, {name}, {bridge}", [names], place)
            ranks = [found] if isinstance(found, Exception) else found
            for measure, most in (("first", 1), ("among five", 5)):
                row = Row("search", f"{name}: {measure}", bridge)
                run.add(row, ranks, ranks, partial(_within, most), _share)


def places(encoder: ItemEncoder, frames: Sequence[ImageFrame], names: Sequence[str]) -> list[int]:
    """At which place, from 0, the first picture of each name comes; a name counts once."""
    wanted = list(dict.fromkeys(names))
    pictures = encoder.items(frames, [""] * len(frames)).meaning
    return first_places(encoder.words(wanted) @ pictures.T, wanted, names)


def first_places(scores: Floats, wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """The places, from 0, of the first right picture by ``scores`` (len(wanted), len(names))."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return [
        next(place for place, i in enumerate(row) if names[i] == name)
        for row, name in zip(order, wanted, strict=True)
    ]


def _within(most: int, _: int, place: int) -> bool:
    return place < most


def _share(marks: list[bool]) -> Figure | None:
    return share(sum(marks), len(marks))


def _galleries(run: Run) -> dict[str, tuple[list[ImageFrame], list[str]]]:
    """Pictures and their names; a quick look leaves the large ones out."""
    from encoders.media import load_image
    from omni.data.describe import without_places
    from omni.data.texts import is_held_out
    from omni.data.things import photographs, things

    known = things("fluent", "clipart")
    held_out = [thing for thing in known if thing.held_out]
    seen = Random(run.seed).sample([t for t in known if not t.held_out], len(held_out))
    found = {
        "seen kinds": ([load_image(t.path) for t in seen], [t.name for t in seen]),
        "held-out kinds": ([load_image(t.path) for t in held_out], [t.name for t in held_out]),
    }
    if run.quick:
        return found
    photos = [photo for photo in photographs() if photo[0]]
    samples = sorted(run.held_out("pictures"), key=lambda sample: sample.id)
    scenes = Random(run.seed).sample(samples, min(_SCENES, len(samples)))
    return {
        **found,
        "photographs": ([load_image(p[1]) for p in photos], [p[0] for p in photos]),
        "held-out photos": (
            [load_image(p[1]) for p in photos if is_held_out(p[2], 10)],
            [p[0] for p in photos if is_held_out(p[2], 10)],
        ),
        "scenes": (
            [load_image(s.media[0].data) for s in scenes],
            [without_places(s.meta["caption"]) for s in scenes],
        ),
    }
