"""The colours and brightness of a picture in everyday words."""

from __future__ import annotations

from collections import Counter

import numpy as np
from PIL import Image

from omni.types import Pixels

_HUES = (  # upper bound of the hue in degrees, and its name
    (15, "red"),
    (40, "orange"),
    (68, "yellow"),
    (165, "green"),
    (195, "turquoise"),
    (255, "blue"),
    (290, "purple"),
    (345, "pink"),
    (361, "red"),
)


def colour_name(hue: float, saturation: float, value: float) -> str:
    """An everyday word for a colour: ``hue`` in degrees, the others in [0, 1]."""
    if value < 0.2:
        return "black"
    if saturation < 0.15:
        return "white" if value > 0.85 else "grey"
    name = next(name for bound, name in _HUES if hue < bound)
    if name in ("red", "orange", "yellow") and value < 0.7 and saturation < 0.75:
        return "brown"
    return name


def plain_colour(pixels: Pixels) -> str | None:
    """The colour of a picture that has one throughout, else None."""
    small = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BOX), np.float32)
    if float(small.std(axis=(0, 1)).max()) > 3.0:
        return None
    return Counter(_names(small)).most_common(1)[0][0]


def tones(pixels: Pixels) -> str:
    """A few words on the main colours, and on brightness where it is out of the ordinary."""
    small = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BOX), np.float32)
    counts = Counter(_names(small)).most_common(2)
    main = [name for name, count in counts if count >= 200]
    words = f"mostly {' and '.join(main)}" if main else "in many colours"
    light = float(small.mean())
    return words + (", very dark" if light < 30 else "")


def _names(small: Pixels | np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[str]:
    hsv = np.asarray(Image.fromarray(small.astype(np.uint8)).convert("HSV"), np.float32)
    return [colour_name(h * 360 / 256, s / 255, v / 255) for h, s, v in hsv.reshape(-1, 3).tolist()]
