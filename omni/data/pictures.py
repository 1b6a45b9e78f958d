"""Pictures with questions whose answers are known because we put everything in its place.

A composed picture shows one to four things, or several of one kind, on a plain ground: cut-outs of
emoji and clip art, and shapes of exact colours. Photographs get the labels of EfficientNet, with
their probabilities: what an adapter can learn from them is what that network sees.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from omni.data.describe import COLOURS, SHAPES, Asked, Placed, article, caption, other, questions
from omni.data.sample import Medium, Message, Sample
from omni.data.sets import require
from omni.data.texts import is_held_out
from omni.data.things import Thing, photographs, things
from omni.errors import MediaError, MissingExtraError
from omni.types import Pixels

SIDE = 224
_EASY_SHAPES = ("circle", "rectangle", "triangle")
_EASY_COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")


@dataclass(frozen=True, slots=True)
class Pictures:
    """Makes shards of composed pictures; in the part "train" no held-out thing appears."""

    part: str = "train"
    seed: int = 0
    size: int = 512
    sources: tuple[str, ...] = ("fluent", "clipart")

    def __call__(self, shard: int) -> Iterator[Sample]:
        """The samples of a shard."""
        for number in range(shard * self.size, (shard + 1) * self.size):
            yield self.sample(number)

    def recipe(self) -> dict[str, object]:
        """What decides the samples, for the index."""
        own = {"data": "pictures", "part": self.part, "seed": self.seed, "size": self.size}
        return {**own, "sources": list(self.sources)}

    def sample(self, number: int) -> Sample:
        """Picture ``number`` of the part with three or four questions."""
        random = Random(f"pictures {self.seed} {self.part} {number}")
        ground = random.choice(list(COLOURS))
        pixels, placed = self._compose(random, ground)
        asked = questions(placed, ground, random)
        licences = sorted({p.licence for p in placed})
        return Sample(
            id=f"pictures-{self.part}-{self.seed}-{number}",
            modality="image",
            messages=_turns(asked),
            media=(Medium.image(pixels),),
            meta={
                "source": "+".join(sorted({p.source for p in placed})),
                "licence": " AND ".join(licences),
                "about": [a.about for a in asked],
                "caption": caption(placed, ground),
                "things": [[p.name, p.kind, p.colour, list(p.cell)] for p in placed],
                "ground": ground,
                "split": self.part,
                "seed": self.seed,
            },
            rejected=asked[-1].wrong,
        )

    def _compose(self, random: Random, ground: str) -> tuple[np.ndarray[Any, Any], list[Placed]]:
        picture = _ground(ground, random)
        pool = _pool(self.sources, self.part != "train")
        cells = [(r, c) for r in range(3) for c in range(3)]
        placed = []
        if random.random() < 0.25:  # several of one thing, to count
            chosen, count = random.choice(pool), random.randint(2, 6)
            look = [_look(chosen, ground, random)] * count
            side = 70
        elif random.random() < 0.3:  # one, large
            look = [_look(random.choice(pool) if random.random() < 0.8 else None, ground, random)]
            cells, side = [(1, 1)], random.randint(110, 200)
        else:
            count = random.randint(2, 4)
            chosen_ones = random.sample(pool, count)
            look = [
                _look(None if random.random() < 0.35 else t, ground, random) for t in chosen_ones
            ]
            side = 78
        for (image, item), cell in zip(look, random.sample(cells, len(look)), strict=True):
            size = round(side * random.uniform(0.85, 1.1)) if side < 100 else side
            fitted = image.copy()
            fitted.thumbnail((size, size), Image.Resampling.LANCZOS)
            middle = [SIDE * (2 * i + 1) // 6 for i in cell]
            shake = 4 if side < 100 else 0
            at = [
                m - s // 2 + random.randint(-shake, shake)
                for m, s in zip(reversed(middle), fitted.size, strict=True)
            ]
            picture.alpha_composite(fitted, (max(at[0], 0), max(at[1], 0)))
            name, kind, colour, source, licence = item
            placed.append(Placed(name, kind, cell, colour, source, licence))
        return np.asarray(picture.convert("RGB")), placed


def easy_vqa(part: str) -> Iterator[Sample]:
    """easy-VQA's own split as conversations of up to six questions about one picture."""
    folder = require(["easy-vqa"])["easy-vqa"] / "easy_vqa" / "data"
    split = folder / ("train" if part == "train" else "test")
    answers = (folder / "answers.txt").read_text("utf-8").split()
    rows: dict[int, list[tuple[str, str]]] = {}
    for question, answer, number in json.loads((split / "questions.json").read_text("utf-8")):
        rows.setdefault(number, []).append((question, answer))
    for number, pairs in rows.items():
        random = Random(f"easy-vqa {number}")
        random.shuffle(pairs)
        data = (split / "images" / f"{number}.png").read_bytes()
        thing = _shown(pairs, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        for begin in range(0, len(pairs), 6):
            asked = [
                Asked(q[0].upper() + q[1:], a, other(answers, a, random), "easy-vqa")
                for q, a in pairs[begin : begin + 6]
            ]
            yield Sample(
                id=f"easy-vqa-{part}-{number}-{begin}",
                modality="image",
                messages=_turns(asked),
                media=(Medium("image", data, "png"),),
                meta={
                    "source": "easy-vqa",
                    "licence": "MIT",
                    "about": [a.about for a in asked],
                    "things": [thing],
                    "split": part,
                },
                rejected=asked[-1].wrong,
            )


def _shown(pairs: Sequence[tuple[str, str]], pixels: Pixels) -> list[Any]:
    """The shape in a picture of easy-VQA, as in ``meta["things"]``: by its questions and pixels.

    What no question tells is None.
    """
    known: dict[bool, str] = {}
    for question, answer in pairs:
        words = question.lower().rstrip("?").split()
        denied = "not" in words or "no" in words
        if answer in ("yes", "no") and (answer == "yes") == denied:
            continue
        for word in (*words, answer):
            if word in _EASY_SHAPES or word in _EASY_COLOURS:
                known[word in _EASY_SHAPES] = word
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    inside = np.abs(pixels.astype(int) - np.median(border, axis=0)).sum(axis=2) > 60
    cell = [int(3 * at.mean() / len(pixels)) for at in np.nonzero(inside)]
    return [known.get(True), "shape", known.get(False), cell]


def photos(part: str, extra: Path | None = None) -> Iterator[Sample]:
    """Photographs with EfficientNet's labels: ``meta["labels"]`` are (label, probability).

    Besides those of the sets, all pictures below the folder ``extra``; a tenth, by name, is held
    out. Pictures that cannot be read, or in which the network is sure of nothing, are left out.
    """
    from encoders.image import EfficientNetEncoder
    from encoders.media import load_image
    from omni.weights import ensure

    table = json.loads((files("encoders") / "data" / "imagenet_labels.json").read_text("utf-8"))
    encoder = EfficientNetEncoder(ensure("efficientnet-lite2"))
    paths = [p for p in sorted(extra.rglob("*")) if p.is_file()] if extra else []
    own = ((p.stem, p.read_bytes(), str(p)) for p in paths)
    for name, data, source in chain(photographs(), own):
        if is_held_out(source, 10) == (part == "train"):
            continue
        try:
            frame = load_image(data, max_side=480)
        except MediaError:
            continue
        probabilities = encoder.probabilities([frame])[0]
        best = probabilities.argsort()[::-1][:5]
        if probabilities[best[0]] < 0.4:
            continue
        labels = [[table["labels"][i], round(float(probabilities[i]), 4)] for i in best]
        answer = article(labels[0][0])
        asked = Asked("What is this?", f"{answer[0].upper()}{answer[1:]}.", "", "name")
        yield Sample(
            id=f"photos-{source}",
            modality="image",
            messages=_turns([asked]),
            media=(Medium.image(frame.pixels),),
            meta={
                "source": source,
                "licence": "see the set's copyright file",
                "about": ["name"],
                "name": name,
                "labels": labels,
            },
        )


def _turns(asked: list[Asked]) -> tuple[Message, ...]:
    messages = []
    for i, one in enumerate(asked):
        messages.append(Message("user", (0, one.text) if i == 0 else (one.text,)))
        messages.append(Message("assistant", (one.answer,)))
    return tuple(messages)


_Item = tuple[str, str, str | None, str, str]


def _look(thing: Thing | None, ground: str, random: Random) -> tuple[Image.Image, _Item]:
    if thing is not None:
        return _load(thing), (thing.name, thing.kind, None, thing.source, thing.licence)
    shape = random.choice(SHAPES)
    colour = other(list(COLOURS), ground, random)
    item = (shape, "shape", colour, "shapes", "Apache-2.0")
    return draw(shape, COLOURS[colour], random), item


def draw(shape: str, colour: tuple[int, int, int], random: Random) -> Image.Image:
    """A shape of one colour, turned a little, on a transparent ground."""
    size = 360
    image = Image.new("RGBA", (size, size))
    pen = ImageDraw.Draw(image)
    box = (30, 30, size - 30, size - 30)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "ring":
        pen.ellipse(box, outline=colour, width=60)
    elif shape == "square":
        pen.rectangle((50, 50, size - 50, size - 50), fill=colour)
    else:
        radii = {"triangle": (1,) * 3, "diamond": (1, 0.65, 1, 0.65), "star": (1, 0.42) * 5}[shape]
        corners = []
        for i, radius in enumerate(radii):
            angle = 2 * np.pi * i / len(radii) - np.pi / 2
            reach = radius * (size / 2 - 20)
            corners.append((size / 2 + reach * np.cos(angle), size / 2 + reach * np.sin(angle)))
        pen.polygon(corners, fill=colour)
    return image.rotate(random.uniform(-12, 12), Image.Resampling.BICUBIC)


def _ground(name: str, random: Random) -> Image.Image:
    """A plain ground that gets a little darker to one side."""
    ramp = np.linspace(1, random.uniform(0.8, 1.0), SIDE)
    shade = np.tile(ramp, (SIDE, 1))
    shade = np.rot90(shade, random.randrange(4))[..., None]
    pixels = (np.array(COLOURS[name]) * shade).astype(np.uint8)
    return Image.fromarray(pixels).convert("RGBA")


@cache
def _load(thing: Thing) -> Image.Image:
    if thing.path.suffix == ".svg":
        image = Image.open(io.BytesIO(_render(thing.path)))
    else:
        image = Image.open(thing.path)
    image.thumbnail((200, 200))
    whole = image.convert("RGBA")
    return whole.crop(whole.getchannel("A").getbbox())


def _render(path: Path) -> bytes:
    try:
        import resvg_py
    except ImportError:
        raise MissingExtraError(
            "drawings in SVG need resvg; run: pip install resvg-py, or leave openmoji out"
        ) from None
    return bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=200))


@cache
def _pool(sources: tuple[str, ...], held_out: bool) -> list[Thing]:
    return [t for t in things(*sources) if held_out or not t.held_out]
