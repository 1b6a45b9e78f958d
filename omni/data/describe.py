"""Words for composed pictures: captions, and questions about what was put where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from omni.data.numbers import cardinal
from omni.data.things import things

COLOURS = {
    "red": (214, 32, 32), "green": (36, 150, 54), "blue": (36, 78, 210), "yellow": (246, 214, 40),
    "orange": (245, 140, 30), "purple": (132, 48, 168), "pink": (248, 140, 184),
    "brown": (122, 76, 40), "black": (20, 20, 20), "white": (250, 250, 250),
    "gray": (136, 136, 136), "teal": (24, 146, 150),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "diamond", "ring")
_PLACE = re.compile(
    r" (?:at the [a-z]+(?: [a-z]+)?|on the (?:left|right)|in the middle)(?=[,. ]|$)"
)
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")


@dataclass(frozen=True, slots=True)
class Placed:
    """Something in a picture: ``cell`` is (row, column) of a grid of three by three."""

    name: str
    kind: str
    cell: tuple[int, int]
    colour: str | None = None
    source: str = "shapes"
    licence: str = "Apache-2.0"

    @property
    def place(self) -> str:
        """Where it is, in words."""
        row, column = _ROWS[self.cell[0]], _COLUMNS[self.cell[1]]
        if self.cell == (1, 1):
            return "in the middle"
        if row == "middle":
            return f"on the {column}"
        return f"at the {row}" if column == "center" else f"at the {row} {column}"

    @property
    def phrase(self) -> str:
        """With its colour, where that is exact, and an article."""
        return article(f"{self.colour} {self.name}" if self.colour else self.name)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a picture, its answer, a wrong answer and its kind."""

    text: str
    answer: str
    wrong: str
    about: str


def without_places(text: str) -> str:
    """A description without the words of `Placed.place`: nobody looks for pictures by these."""
    return _PLACE.sub("", text)


def questions(placed: list[Placed], ground: str, random: Random) -> list[Asked]:
    """A caption and two or three questions of different kinds, in random order."""
    names = [p.name for p in placed]
    single = [p for p in placed if names.count(p.name) == 1]
    found = [
        Asked(
            f"What color is the {random.choice(('background', 'ground'))}?",
            f"{ground.capitalize()}.",
            f"{other(list(COLOURS), ground, random).capitalize()}.",
            "colour",
        )
    ]
    count = len(placed) if len(set(names)) == 1 else None
    if count:
        found.append(_count(f"How many {plural(names[0])} are there?", count, random))
    found.append(_count("How many things are in the picture?", len(placed), random))
    if single:
        one = random.choice(single)
        right, wrong = f"{one.place.capitalize()}.", _elsewhere(one, random)
        found.append(Asked(f"Where is the {one.name}?", right, wrong, "place"))
        found.append(
            Asked(
                f"What is {one.place}?",
                f"{one.phrase.capitalize()}.",
                f"{article(other(_names(), one.name, random)).capitalize()}.",
                "name",
            )
            if sum(p.cell == one.cell for p in placed) == 1
            else found[0]
        )
        kind = article(one.kind).capitalize()
        wrong_kind = article(other(_kinds(), one.kind, random)).capitalize()
        found.append(
            Asked(f"What kind of thing is the {one.name}?", f"{kind}.", f"{wrong_kind}.", "kind")
        )
        coloured = [p for p in single if p.colour]
        if coloured:
            shape = random.choice(coloured)
            found.append(
                Asked(
                    f"What color is the {shape.name}?",
                    f"{str(shape.colour).capitalize()}.",
                    f"{other(list(COLOURS), str(shape.colour), random).capitalize()}.",
                    "colour",
                )
            )
    present = random.random() < 0.5
    name = random.choice(names) if present else other(_names(), names[0], random)
    present = name in names
    yes, no = ("Yes.", "No.") if present else ("No.", "Yes.")
    found.append(Asked(f"Is there {article(name)} in the picture?", yes, no, "presence"))
    chosen = random.sample(found, min(len(found), random.randint(2, 3)))
    text = caption(placed, ground)
    wrong = caption([Placed("ring", "shape", (0, 0), "red")], ground)
    request = random.choice(
        ("Describe the picture.", "What do you see?", "What is in this picture?", "What is this?")
    )
    chosen.insert(0, Asked(request, text, wrong, "caption"))
    random.shuffle(chosen)
    return chosen


def caption(placed: list[Placed], ground: str) -> str:
    """All that is in a composed picture, in one sentence."""
    names = [p.name for p in placed]
    if len(names) > 1 and len(set(names)) == 1:
        word = cardinal(len(names)).capitalize()
        colour = f"{placed[0].colour} " if placed[0].colour else ""
        return f"{word} {colour}{plural(names[0])} on {article(ground)} background."
    if len(names) == 1:
        return f"{placed[0].phrase.capitalize()} on {article(ground)} background."
    parts = [f"{p.phrase} {p.place}" for p in placed]
    text = f"{', '.join(parts[:-1])} and {parts[-1]}, on {article(ground)} background."
    return text[0].upper() + text[1:]


def article(words: str) -> str:
    """With "a" or "an"; things that are many or much go without."""
    if words in ("food", "money", "paper") or (
        words.endswith("s") and not words.endswith(("ss", "us", "bus"))
    ):
        return words
    return ("an " if words[0] in "aeiou" and not words.startswith(("uni", "uk")) else "a ") + words


def plural(word: str) -> str:
    """More than one of it."""
    if word.endswith(("s", "x", "ch", "sh")):
        return word if word.endswith("s") and not word.endswith("ss") else word + "es"
    return word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeiou" else word + "s"


@cache
def _names() -> list[str]:
    return sorted({t.name for t in things("fluent")} | set(SHAPES))


@cache
def _kinds() -> list[str]:
    return sorted({t.kind for t in things("fluent")})


def _count(text: str, count: int, random: Random) -> Asked:
    wrong = count + random.choice((1, 2) if count == 1 else (-1, 1))
    return Asked(
        text, f"{cardinal(count)}.".capitalize(), f"{cardinal(wrong)}.".capitalize(), "count"
    )


def _elsewhere(one: Placed, random: Random) -> str:
    cells = [(r, c) for r in range(3) for c in range(3) if (r, c) != one.cell]
    return f"{Placed('', '', random.choice(cells)).place.capitalize()}."


def other(options: Sequence[str], but: str, random: Random) -> str:
    """One of ``options`` that is not ``but``."""
    return random.choice([o for o in options if o != but])
