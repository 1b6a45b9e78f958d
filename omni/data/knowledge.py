"""Questions whose right answer is known: facts, sums, words, order, and choices among answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

from omni.data.numbers import MONTHS, cardinal
from omni.data.phrases import words
from omni.data.sets import require
from omni.data.texts import is_held_out

_FACTS: dict[str, Any] = json.loads((files("omni.data") / "facts.json").read_text("utf-8"))
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LETTERS = "ABCD"


@dataclass(frozen=True, slots=True)
class Question:
    """A question as written and as said, its answer, a wrong one, and what it is about."""

    text: str
    said: str
    answer: str
    wrong: str
    about: str


def question(random: Random, *, held_out: bool = False, kinds: tuple[str, ...] = ()) -> Question:
    """Some question, of one of ``kinds`` or of any. By its words a tenth is held out for tests."""
    while True:
        made = KINDS[random.choice(kinds or tuple(KINDS))](random)
        if is_held_out(made.said, 10) == held_out and made.answer != made.wrong:
            return made


def choice(random: Random, *, held_out: bool = False) -> Question:
    """A question with four answers to choose from; the answer is a letter."""
    while True:
        kind = random.choice(tuple(_OPTIONS))
        asked, right, others = _OPTIONS[kind](random)
        wrong = sorted({*others} - {right})
        if is_held_out(asked, 10) == held_out and len(wrong) >= 3:
            break
    options = [*random.sample(wrong, 3), right]
    random.shuffle(options)
    lines = "\n".join(f"{letter}. {o}" for letter, o in zip(LETTERS, options, strict=True))
    answer = LETTERS[options.index(right)]
    rejected = random.choice([letter for letter in LETTERS if letter != answer])
    text = f"{asked}\n{lines}\nAnswer with the letter."
    return Question(text, asked, answer, rejected, f"choice of {kind}")


def _sum(random: Random) -> Question:
    a, b = random.randint(2, 99), random.randint(2, 99)
    sign, word, result = random.choice(
        [("+", "plus", a + b), ("-", "minus", max(a, b) - min(a, b)), ("*", "times", a * (b % 11))]
    )
    if sign == "-":
        a, b = max(a, b), min(a, b)
    elif sign == "*":
        b %= 11
    said = f"What is {cardinal(a)} {word} {cardinal(b)}?"
    wrong = result + random.choice((-10, -2, -1, 1, 2, 10))
    return Question(f"What is {a} {word} {b}?", said, f"{result}.", f"{wrong}.", "arithmetic")


def _fact(random: Random) -> Question:
    text, answer, wrong = random.choice(_FACTS["answers"])
    return Question(text, text, answer, wrong, "facts")


def _capital(random: Random) -> Question:
    table = _FACTS["capitals"]
    country, other = random.sample(sorted(table), 2)
    if random.random() < 0.3:
        text = f"{table[country]} is the capital of which country?"
        return Question(text, text, f"Of {country}.", f"Of {other}.", "capitals")
    text = random.choice(
        (f"What is the capital of {country}?", f"Which city is the capital of {country}?")
    )
    return Question(text, text, f"{table[country]}.", f"{table[other]}.", "capitals")


def _element(random: Random) -> Question:
    name, other = random.sample(sorted(_FACTS["elements"]), 2)
    text = f"What is the chemical symbol of {name}?"
    table = _FACTS["elements"]
    return Question(text, text, f"{table[name]}.", f"{table[other]}.", "elements")


def _young(random: Random) -> Question:
    name, other = random.sample(sorted(_FACTS["young"]), 2)
    text = f"What is a young {name} called?"
    table = _FACTS["young"]
    return Question(text, text, f"A {table[name]}.", f"A {table[other]}.", "young animals")


def _order(random: Random) -> Question:
    table = random.choice((_DAYS, MONTHS))
    at, after = random.randrange(len(table)), random.random() < 0.6
    what = "day" if table is _DAYS else "month"
    text = f"Which {what} comes {'after' if after else 'before'} {table[at]}?"
    right = table[(at + (1 if after else -1)) % len(table)]
    return Question(text, text, f"{right}.", f"{table[(at + 3) % len(table)]}.", "order")


def _spell(random: Random) -> Question:
    word = random.choice(words()["common noun"])
    text = f"How do you spell {word}?"
    wrong = list(word.upper())
    random.shuffle(wrong)
    return Question(text, text, f"{'-'.join(word.upper())}.", f"{'-'.join(wrong)}.", "spelling")


def _opposite(random: Random) -> Question:
    one, other = random.choice(_opposites())
    text = f"What is the opposite of {one}?"
    wrong = random.choice(words()["common adjective"])
    return Question(text, text, f"{other.capitalize()}.", f"{wrong.capitalize()}.", "opposites")


def _bigger(random: Random) -> Question:
    a, b = random.sample(range(2, 1000), 2)
    text = f"Which number is bigger, {a} or {b}?"
    said = f"Which number is bigger, {cardinal(a)} or {cardinal(b)}?"
    return Question(text, said, f"{max(a, b)}.", f"{min(a, b)}.", "comparison")


def _meaning(random: Random) -> Question:
    word, gloss = random.choice(_glosses())
    text = f"What does the word {word} mean?"
    wrong = random.choice(_glosses())[1]
    return Question(text, text, f"{_sentence(gloss)}", f"{_sentence(wrong)}", "meaning")


KINDS: dict[str, Callable[[Random], Question]] = {
    "arithmetic": _sum,
    "facts": _fact,
    "capitals": _capital,
    "elements": _element,
    "young": _young,
    "order": _order,
    "spelling": _spell,
    "opposites": _opposite,
    "comparison": _bigger,
    "meaning": _meaning,
}
SPOKEN = (
    "arithmetic",
    "facts",
    "capitals",
    "elements",
    "young",
    "order",
    "opposites",
    "comparison",
)
"""Kinds whose answers are short enough to compare."""


def _which_means(random: Random) -> tuple[str, str, list[str]]:
    found = random.sample(_glosses(), 4)
    return f"Which word means: {found[0][1]}?", found[0][0], [word for word, _ in found[1:]]


def _which_sum(random: Random) -> tuple[str, str, list[str]]:
    a, b = random.randint(11, 99), random.randint(11, 99)
    others = [str(a + b + d) for d in random.sample((-20, -11, -10, -2, -1, 1, 2, 9, 10, 20), 3)]
    return f"What is {a} + {b}?", str(a + b), others


def _which_capital(random: Random) -> tuple[str, str, list[str]]:
    table = _FACTS["capitals"]
    country, *others = random.sample(sorted(table), 4)
    return f"What is the capital of {country}?", table[country], [table[o] for o in others]


def _which_opposite(random: Random) -> tuple[str, str, list[str]]:
    one, other = random.choice(_opposites())
    rest = random.sample(words()["common adjective"], 5)
    return f"Which word is the opposite of {one}?", other, [r for r in rest if r != one]


_OPTIONS: dict[str, Callable[[Random], tuple[str, str, list[str]]]] = {
    "meaning": _which_means,
    "arithmetic": _which_sum,
    "capitals": _which_capital,
    "opposites": _which_opposite,
}


@cache
def _opposites() -> list[tuple[str, str]]:
    """Antonyms that WordNet marks (pointer "!"), of adjectives that people use."""
    path = require(["wordnet"])["wordnet"] / "usr/share/wordnet/data.adj"
    rows: dict[str, tuple[list[str], list[tuple[str, int, int]]]] = {}
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("  "):
            continue
        fields = line.partition(" | ")[0].split()
        count = int(fields[3], 16)
        names = [n.split("(")[0] for n in fields[4 : 4 + 2 * count : 2]]
        at = 5 + 2 * count
        links = []
        for i in range(int(fields[at - 1])):
            mark, target, _, pair = fields[at + 4 * i : at + 4 * i + 4]
            if mark == "!":
                links.append((target, int(pair[:2], 16), int(pair[2:], 16)))
        rows[fields[0]] = names, links
    used = set(words()["common adjective"])
    found = {
        (names[a - 1], rows[target][0][b - 1])
        for names, links in rows.values()
        for target, a, b in links
    }
    return sorted((one, two) for one, two in found if one in used and two in used)


@cache
def _glosses() -> list[tuple[str, str]]:
    """Words that people use with the meaning of their first sense."""
    folder = require(["wordnet"])["wordnet"] / "usr/share/wordnet"
    used = set(words()["common noun"])
    first = {}
    for line in (folder / "index.noun").read_text("utf-8").splitlines():
        fields = line.split()
        if fields[0] in used:
            first[fields[-int(fields[2])]] = fields[0]
    found = []
    for line in (folder / "data.noun").read_text("utf-8").splitlines():
        word = first.get(line[:8])
        gloss = line.partition(" | ")[2].split(";")[0].strip()
        if word and 3 <= len(gloss.split()) <= 20 and "(" not in gloss and '"' not in gloss:
            found.append((word, gloss))
    return sorted(found)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
