"""Tiny sets in the layouts of the real ones, so that making data needs no network."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from struct import pack

from PIL import Image, ImageDraw

from omni.data import conversations, describe, knowledge, phrases, pictures, speech, things

NOUNS = [
    "apple",
    "river",
    "stone",
    "garden",
    "window",
    "letter",
    "bridge",
    "winter",
    "mirror",
    "engine",
]
PAIRS = [("hot", "cold"), ("long", "short"), ("young", "old"), ("dark", "light"), ("wet", "dry")]
SAYINGS = [
    f"The {one} {noun} was {other} before the {last} came back"
    for one, other in PAIRS
    for noun in NOUNS
    for last in NOUNS[:5]
    if noun != last
]
CACHES = (
    phrases.words,
    knowledge._opposites,
    knowledge._glosses,
    conversations._examples,
    speech._sentences,
    things.things,
    pictures._pool,
    describe._names,
    describe._kinds,
    pictures._load,
)


def make(home: Path) -> None:
    """Write all of them below ``home``, and forget what was read of others."""
    for cache in CACHES:
        cache.cache_clear()
    sets = home / "data" / "sets"
    _wordnet(sets / "wordnet" / "usr/share/wordnet")
    sayings = sets / "fortunes" / "usr/share/games/fortunes" / "wisdom"
    sayings.parent.mkdir(parents=True)
    sayings.write_text("\n%\n".join(f"{s}.\n\t\t-- Somebody" for s in SAYINGS))
    for name in ("devil", "jargon"):
        path = sets / name / f"usr/share/dictd/{name}.dict.dz"
        path.parent.mkdir(parents=True)
        path.write_bytes(zlib.compress(("    " + ". ".join(SAYINGS[:40])).encode(), wbits=31))
    _bible(sets / "web-bible" / "usr/share/sword/modules/texts/ztext/web")
    _fluent(sets / "fluent")
    (sets / "clipart" / "usr/share/openclipart/png").mkdir(parents=True)


def _line(offset: int, file: int, kind: str, word: str, links: list[str], gloss: str) -> str:
    head = f"{offset:08} {file:02} {kind} 01 {word} 0 {len(links):03}"
    return " ".join([head, *links, "|", gloss])


def _wordnet(folder: Path) -> None:
    folder.mkdir(parents=True)
    nouns = []
    for i, word in enumerate(NOUNS):
        examples = "".join(f'; "{s}"' for s in SAYINGS[20 * i : 20 * i + 20])
        nouns.append(_line(i, 6, "n", word, [], f"a kind of {word} that is often met{examples}"))
    nouns += [_line(50, 18, "n", "Ada_Lovelace", ["@i 00000001 n 0000"], "a mathematician")]
    nouns += [_line(51, 15, "n", "Lisbon", ["@i 00000001 n 0000"], "a city")]
    nouns += [_line(52, 6, "n", "clod", [], "(offensive) an insult")]
    words = [w for pair in PAIRS for w in pair]
    adjectives = []
    for i, word in enumerate(words):
        other = i ^ 1
        link = f"! {other:08} a 0101"
        adjectives.append(_line(i, 0, "a", word, [link], f'being {word}; "it is {word} out there"'))
    tables = {
        "noun": (nouns, [*NOUNS, "clod"]),
        "adj": (adjectives, words),
        "verb": ([_line(1, 29, "v", "carry", [], "move while holding")], ["carry", "paint"]),
        "adv": ([_line(1, 2, "r", "slowly", [], "without speed")], ["slowly", "gladly"]),
    }
    for name, (lines, index) in tables.items():
        (folder / f"data.{name}").write_text("  licence\n" + "\n".join(lines) + "\n")
        rows = [f"{w} n 1 0 1 0 {i:08}" for i, w in enumerate(index)]
        (folder / f"index.{name}").write_text("  licence\n" + "\n".join(rows) + "\n")
    met = [*NOUNS, *words, "carry", "slowly"]
    (folder / "cntlist.rev").write_text("\n".join(f"{w}%1:06:00:: 1 3" for w in met))


def _bible(folder: Path) -> None:
    folder.mkdir(parents=True)
    osis = "".join(
        f'<div sID="x"/><w lemma="y">{s}</w>.<note>Not to be read.</note>' for s in SAYINGS[50:90]
    ).encode()
    packed = zlib.compress(osis)
    for part in ("ot", "nt"):
        (folder / f"{part}.bzs").write_bytes(pack("<III", 0, len(packed), len(osis)))
        (folder / f"{part}.bzz").write_bytes(packed)


def _fluent(folder: Path) -> None:
    names = folder / "emojibase-data" / "package"
    (names / "meta").mkdir(parents=True)
    (names / "en").mkdir()
    assets = folder / "fluent-emoji-3d/package/assets"
    assets.mkdir(parents=True)
    (names / "meta" / "groups.json").write_text(
        json.dumps({"subgroups": {"1": "animal-mammal", "2": "food-fruit", "3": "face-smiling"}})
    )
    kinds = {"cat": 1, "dog": 1, "fox": 1, "apple": 2, "plum": 2, "pear": 2, "grin": 3}
    emoji = [
        {"label": name, "hexcode": f"1F{i:03}", "subgroup": kind}
        for i, (name, kind) in enumerate(kinds.items())
    ]
    (names / "en" / "data.json").write_text(json.dumps(emoji))
    for one in emoji:
        image = Image.new("RGBA", (64, 64))
        pen = ImageDraw.Draw(image)  # in two colours, so that it is seen on every ground
        pen.pieslice((4, 4, 60, 60), 90, 270, fill=(0, 0, 0))
        pen.pieslice((4, 4, 60, 60), 270, 90, fill=(160, 255, 0))
        image.save(assets / f"{str(one['hexcode']).lower()}.webp", lossless=True)
