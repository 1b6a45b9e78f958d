"""Named pictures out of the sets: emoji and clip art as cut-outs with a name and a kind, photos."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omni.data.phrases import words
from omni.data.sets import require
from omni.data.texts import is_held_out

_KINDS = {
    "animal-mammal": "animal", "animal-bird": "bird", "animal-amphibian": "animal",
    "animal-reptile": "reptile", "animal-marine": "sea animal", "animal-bug": "insect",
    "plant-flower": "flower", "plant-other": "plant", "food-fruit": "fruit",
    "food-vegetable": "vegetable", "food-prepared": "food", "food-asian": "food",
    "food-sweet": "sweet", "drink": "drink", "dishware": "dish", "place-building": "building",
    "transport-ground": "vehicle", "transport-water": "boat", "transport-air": "aircraft",
    "clothing": "piece of clothing", "musical-instrument": "musical instrument", "tool": "tool",
    "sport": "piece of sports equipment", "household": "household thing", "computer": "device",
    "phone": "device", "book-paper": "paper", "writing": "writing tool", "mail": "piece of mail",
    "light-video": "device", "office": "office thing", "science": "scientific instrument",
    "game": "game", "lock": "lock", "money": "money",
}  # fmt: skip
"""What the groups of Unicode's emoji are called, where their members are things."""
_ODD = re.compile(
    r"\b(button|symbol|face|with|person|mark|sign|selector|tone|place of|tilted|oncoming|hotel)\b"
)
_CLIPART = {
    "animals": "animal", "food": "food", "transportation": "vehicle", "tools": "tool",
    "plants": "plant", "clothing": "piece of clothing", "buildings": "building",
    "electronics": "device", "containers": "container",
}  # fmt: skip
_PHOTOGRAPHS = (
    "categorization", "details", "erase", "explore_farm_animals", "explore_monuments",
    "explore_world_animals", "explore_world_music", "lang", "solar_system",
)  # fmt: skip
"""Activities of GCompris with photographs; others have paintings and drawings."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A cut-out on a transparent ground: ``path`` is a file that Pillow reads, or an SVG."""

    name: str
    kind: str
    path: Path
    source: str
    licence: str

    @property
    def held_out(self) -> bool:
        """Whether training never shows it, by its name: one in fifteen."""
        return is_held_out(self.name, 15)


@cache
def things(*sources: str) -> list[Thing]:
    """The things of some of "fluent", "openmoji" and "clipart", in a fixed order."""
    read = {"fluent": _fluent, "openmoji": _openmoji, "clipart": _clipart}
    return [thing for name in sources for thing in read[name](require([name])[name])]


def _fluent(folder: Path) -> Iterator[Thing]:
    names = folder / "emojibase-data" / "package"
    groups = json.loads((names / "meta" / "groups.json").read_text("utf-8"))["subgroups"]
    for emoji in json.loads((names / "en" / "data.json").read_text("utf-8")):
        kind = _KINDS.get(groups.get(str(emoji.get("subgroup")), ""))
        path = folder / f"fluent-emoji-3d/package/assets/{emoji['hexcode'].lower()}.webp"
        if kind and not _ODD.search(emoji["label"]) and path.exists():
            yield Thing(emoji["label"].lower(), kind, path, "fluent", "MIT")


def _openmoji(folder: Path) -> Iterator[Thing]:
    package = folder / "openmoji" / "package"
    for emoji in json.loads((package / "data" / "openmoji.json").read_text("utf-8")):
        kind = _KINDS.get(emoji["subgroups"])
        path = package / "color" / "svg" / f"{emoji['hexcode']}.svg"
        name = emoji["annotation"].lower()
        if kind and not emoji["skintone"] and not _ODD.search(name) and path.exists():
            yield Thing(name, kind, path, "openmoji", "CC-BY-SA-4.0")


def _clipart(folder: Path) -> Iterator[Thing]:
    """Those whose title is a plain English noun: many are in Italian, or name their author."""
    nouns, others = set(words()["common noun"]), set(words()["common adjective"])
    root = folder / "usr/share/openclipart"
    for path in sorted((root / "png").rglob("*.png")):
        place = path.relative_to(root / "png")
        drawing = (root / "svg" / place).with_suffix(".svg")
        kind = _CLIPART.get(place.parts[0])
        # Some are as large as a poster, for a drawing of an apple.
        if kind is None or not drawing.is_file() or path.stat().st_size > 400_000:
            continue
        title = re.search(r"<dc:title>([^<]+)</dc:title>", drawing.read_text("utf-8", "replace"))
        name = re.sub(r"[\d_#.-]+", " ", title[1] if title else "").strip().lower()
        *before, last = name.split() or [""]
        if last in nouns - others and len(before) < 2 and nouns | others >= {*before}:
            yield Thing(" ".join([*before, last]), kind, path, "clipart", "public domain")


def photographs() -> Iterator[tuple[str, bytes, str]]:
    """Photographs as (name, file, source): GCompris' with their names, foolbox' ImageNet."""
    folder = require(["gcompris"])["gcompris"] / "usr/share/gcompris-qt/rcc"
    for activity in _PHOTOGRAPHS:
        path = folder / f"{activity}.rcc"
        for name, data in resources(path.read_bytes()):
            stem = Path(name).stem
            plain = re.sub(r"[_\d-]+", " ", stem).strip().lower()
            if name.endswith((".jpg", ".jpeg", ".webp", ".png")) and len(data) > 8000:
                yield plain, data, f"gcompris:{path.stem}/{name}"
    folder = require(["foolbox"])["foolbox"]
    for path in sorted((folder / "foolbox" / "data").glob("imagenet_*")):
        yield "", path.read_bytes(), f"foolbox:{path.name}"


def resources(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The files in one of Qt's binary resource files (``.rcc``), by path; those that it packs too.

    Source: the format as qtbase's ``qresource.cpp`` reads it (versions 1 to 3).
    """
    magic, version, tree, content, names = struct.unpack_from(">4sIIII", data)
    if magic != b"qres" or not 1 <= version <= 3:
        return
    size = 14 if version == 1 else 22

    def name(offset: int) -> str:
        length = struct.unpack_from(">H", data, names + offset)[0]
        begin = names + offset + 6
        return data[begin : begin + 2 * length].decode("utf-16-be")

    def walk(node: int, path: str) -> Iterator[tuple[str, bytes]]:
        at, flags = struct.unpack_from(">IH", data, tree + node * size)
        path = f"{path}/{name(at)}" if node else ""
        if flags & 2:
            count, first = struct.unpack_from(">II", data, tree + node * size + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
        elif not flags & 4:  # 4: packed by zstd, which pictures never are
            offset = struct.unpack_from(">I", data, tree + node * size + 10)[0]
            length = struct.unpack_from(">I", data, content + offset)[0]
            raw = data[content + offset + 4 : content + offset + 4 + length]
            # Packed ones begin with their unpacked size.
            yield path.lstrip("/"), zlib.decompress(raw[4:]) if flags & 1 else raw

    yield from walk(0, "")
