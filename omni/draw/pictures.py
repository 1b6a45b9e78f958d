"""Pictures to learn drawing from.

Each subject alone on white, in every colour, mirrored, and in twos and threes. Shapes are drawn,
things are Fluent emoji (MIT), tinted where a colour is asked.

Everything stands where it always stands, so that as little as possible has to be learnt: what a
picture shows decides it, but for the side that it looks to.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from omni.data.describe import COLOURS
from omni.data.sets import require
from omni.draw.subjects import Subject, prompt, subjects

SIDE = 64
_LARGE = 4 * SIDE
_PLACES = {
    1: ((32, 32, 56),),
    2: ((17, 32, 30), (47, 32, 30)),
    3: ((32, 17, 29), (17, 47, 29), (47, 47, 29)),
}
"""By count: middle (x, y) and size of each, in pixels."""
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture to learn: ``colour`` None is a thing as it is by nature."""

    subject: Subject
    colour: str | None
    count: int = 1
    mirrored: bool = False

    @property
    def prompts(self) -> tuple[str, ...]:
        """The words that it is drawn from, one for each name of the subject."""
        return tuple(prompt(name, self.colour, self.count) for name in self.subject.names)

    @property
    def held_out(self) -> bool:
        """Whether training never shows it: one in twelve colours of a thing; never of shapes."""
        if self.colour is None or self.subject.emoji is None:
            return False
        key = f"{self.subject.name} {self.colour}".encode()
        return hashlib.sha256(key).digest()[0] % 12 == 0

    def render(self) -> Pixels:
        """(SIDE, SIDE, 3) on white."""
        whole = _cut_out(self.subject, self.colour)
        if self.mirrored:
            whole = ImageOps.mirror(whole)
        picture = Image.new("RGBA", (SIDE, SIDE), "white")
        for x, y, size in _PLACES[self.count]:
            scale = size / max(whole.size)
            width, height = (max(1, round(s * scale)) for s in whole.size)
            fitted = whole.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2)
            picture.alpha_composite(fitted, (x - width // 2, y - height // 2))
        return np.asarray(picture.convert("RGB"))


def drawings(most: int | None = None) -> Iterator[Drawing]:
    """All there are of the first ``most`` subjects (None: all), in a fixed order.

    In twos and threes things are only as by nature and in three colours.
    """
    for index, subject in enumerate(subjects()[:most]):
        names = list(COLOURS)
        colours = names if subject.emoji is None else [None, *names]
        several = {None, *(names[(index + i) % len(names)] for i in range(0, len(names), 4))}
        for colour in colours:
            for count in (1, 2, 3) if colour in several or subject.emoji is None else (1,):
                for mirrored in (False, True) if subject.emoji and count == 1 else (False,):
                    yield Drawing(subject, colour, count, mirrored)


@cache
def _cut_out(subject: Subject, colour: str | None) -> Image.Image:
    if subject.emoji is None:
        return _shape(subject.name, COLOURS[colour or "black"])
    image = _emoji(subject.emoji)
    return image if colour is None else tinted(image, COLOURS[colour])


@cache
def _emoji(code: str) -> Image.Image:
    folder = require(["fluent"])["fluent"] / "fluent-emoji-3d/package/assets"
    image = Image.open(folder / f"{code}.webp").convert("RGBA")
    image.thumbnail((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)
    return image.crop(image.getchannel("A").getbbox())


def tinted(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """What has the picture's main colour gets another one; light and shadow stay.

    A picture that is mostly grey is tinted whole.
    """
    pixels = np.asarray(image).astype(np.float32) / 255
    hsv = np.asarray(image.convert("RGB").convert("HSV")).astype(np.float32)
    hue, vivid = hsv[..., 0], (hsv[..., 1] / 255) * (hsv[..., 2] / 255)
    opaque = pixels[..., 3] > 0.5
    coloured = opaque & (vivid > 0.2)
    part = np.ones_like(hue)
    if coloured.sum() > 0.25 * opaque.sum():
        weights = np.bincount(hue[coloured].astype(int), vivid[coloured], 256)
        smooth = sum(np.roll(weights, shift) for shift in range(-14, 15))
        away = np.abs((hue - float(np.argmax(smooth)) + 128) % 256 - 128)
        part = np.clip((46 - away) / 12, 0, 1) * np.clip((vivid - 0.04) / 0.12, 0, 1)
    light = pixels[..., :3] @ np.array([0.3, 0.59, 0.11], np.float32)
    chosen = opaque & (part > 0.5)
    middle = float(np.median(light[chosen])) if chosen.any() else 0.5
    ratio = light / max(middle, 0.05)
    target = np.array(colour, np.float32) / 255
    _, _, value = colorsys.rgb_to_hsv(*target)
    dark = target * np.clip(ratio, 0.25 if value > 0.5 else 0.5, 1)[..., None]
    bright = np.clip((ratio - 1) * 0.45, 0, 0.6)[..., None]
    new = np.where(ratio[..., None] <= 1, dark, target + (1 - target) * bright)
    mixed = pixels[..., :3] * (1 - part[..., None]) + new * part[..., None]
    whole = np.concatenate([mixed, pixels[..., 3:]], -1)
    return Image.fromarray((whole.clip(0, 1) * 255).round().astype(np.uint8), "RGBA")


def _shape(name: str, colour: tuple[int, int, int]) -> Image.Image:
    """A shape of one colour that fills its square; white ones have a grey rim to be seen."""
    image = Image.new("RGBA", (_LARGE, _LARGE))
    pen = ImageDraw.Draw(image)
    rim, width = ((200, 200, 200, 255), 8) if min(colour) > 240 else (None, 1)
    box = (4, 4, _LARGE - 4, _LARGE - 4)
    if name == "circle":
        pen.ellipse(box, fill=colour, outline=rim, width=width)
    elif name == "ring":
        pen.ellipse(box, fill=colour, outline=rim, width=width)
        inner = _LARGE // 4
        hole = (inner, inner, _LARGE - inner, _LARGE - inner)
        pen.ellipse(hole, fill=(0, 0, 0, 0), outline=rim, width=width)
    else:
        pen.polygon(
            [tuple(corner) for corner in _corners(name)], fill=colour, outline=rim, width=width
        )
    return image


def _corners(name: str) -> NDArray[np.float64]:
    """Of a polygon within the square of `_LARGE`."""
    if name == "heart":
        t = np.linspace(0, 2 * np.pi, 90)
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        points = np.stack([16 * np.sin(t) ** 3, -y - 2.5], -1) / 17
    elif name in ("star", "diamond"):
        radii = (1, 0.45) * 5 if name == "star" else (1, 0.72, 1, 0.72)
        angles = 2 * np.pi * np.arange(len(radii)) / len(radii) - np.pi / 2
        points = np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)
    else:
        third = 1 / 3
        points = np.array({
            "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
            "triangle": [(0, -0.95), (1, 0.8), (-1, 0.8)],
            "cross": [
                (-third, -1), (third, -1), (third, -third), (1, -third), (1, third),
                (third, third), (third, 1), (-third, 1), (-third, third), (-1, third),
                (-1, -third), (-third, -third),
            ],
            "arrow": [
                (-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3),
            ],
        }[name])  # fmt: skip
    return np.asarray((points * 0.97 + 1) * _LARGE / 2)
