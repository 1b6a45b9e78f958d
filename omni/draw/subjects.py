"""What can be drawn, and in which colours: names in English and Chinese."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from omni.data.describe import article, plural

COLOURS = {
    "red": ("红色", "红"), "green": ("绿色", "绿", "青色"), "blue": ("蓝色", "蓝"),
    "yellow": ("黄色", "黄"), "orange": ("橙色", "橘色", "橘黄色"), "purple": ("紫色", "紫"),
    "pink": ("粉色", "粉红色", "粉红"), "brown": ("棕色", "褐色", "咖啡色"),
    "black": ("黑色", "黑"), "white": ("白色", "白"), "gray": ("灰色", "灰"),
    "teal": ("青绿色", "蓝绿色"),
}  # fmt: skip
"""The colours that `omni.data.describe` gives exact values, with their Chinese names."""
COLOUR_ALIASES = {
    "grey": "gray", "violet": "purple", "turquoise": "teal", "cyan": "teal", "golden": "yellow",
    "gold": "yellow", "scarlet": "red", "crimson": "red", "lilac": "purple", "rosy": "pink",
    "silver": "gray", "navy": "blue", "magenta": "pink",
}  # fmt: skip
SHAPES = {
    "circle": ("圆", "圆形", "圆圈"), "square": ("正方形", "方块"), "triangle": ("三角形", "三角"),
    "star": ("星星", "五角星", "星"), "heart": ("心", "爱心", "心形", "红心"),
    "diamond": ("菱形",), "ring": ("圆环", "环"), "cross": ("十字", "十字架"),
    "arrow": ("箭头",),
}  # fmt: skip
_PLURALS = {
    "mouse": "mice", "fish": "fish", "tropical fish": "tropical fish", "sheep": "sheep",
    "leaf": "leaves", "maple leaf": "maple leaves", "wolf": "wolves", "knife": "knives",
}  # fmt: skip
COUNTS = ("one", "two", "three")


@dataclass(frozen=True, slots=True)
class Subject:
    """``name`` is what prompts call it, ``names`` are all its English names, it first.

    ``emoji`` is the code of its picture, None for a shape that is drawn.
    """

    names: tuple[str, ...]
    chinese: tuple[str, ...]
    emoji: str | None

    @property
    def name(self) -> str:
        """What prompts call it."""
        return self.names[0]


@cache
def subjects() -> tuple[Subject, ...]:
    """All that pictures are learnt of: shapes, then things, those most asked for first."""
    table = json.loads((files("omni.draw") / "subjects.json").read_text("utf-8"))
    shapes = [Subject((name,), chinese, None) for name, chinese in SHAPES.items()]
    things = [Subject(tuple(s["en"]), tuple(s["zh"]), emoji) for emoji, s in table.items()]
    return (*shapes, *things)


def prompt(name: str, colour: str | None = None, count: int = 1) -> str:
    """The words that a picture is drawn from: "a red apple", "three blue stars"."""
    words = f"{colour} " if colour else ""
    if count == 1:
        return article(words + name)
    return f"{COUNTS[count - 1]} {words}{_PLURALS.get(name) or plural(name)}"
