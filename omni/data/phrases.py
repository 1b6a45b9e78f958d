"""What people say to an assistant: requests and questions from templates, written and said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from random import Random

from omni.data import numbers
from omni.data.numbers import Form
from omni.data.sets import require

_TABLE: dict[str, list[str]] = json.loads((files("omni.data") / "phrases.json").read_text("utf-8"))
_UNWANTED = re.compile(r"\b(offensive|disparag\w+|obscen\w+|vulgar|slur|insulting|derogatory)\b")


def phrase(random: Random) -> Form:
    """One thing to say, as it is written and as it is said. Needs the set "wordnet"."""
    template = random.choice(_TABLE["templates"])
    said = template
    written = template
    for slot in re.findall(r"\{(\w+)\}", template):
        form = _SLOTS[slot](random)
        written = written.replace(f"{{{slot}}}", form[0], 1)
        said = said.replace(f"{{{slot}}}", form[1], 1)
    return _articles(written), _articles(said)


def _articles(text: str) -> str:
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])(?!uni|use|eu|one\b)", r"\1n ", text)
    return text[0].upper() + text[1:]


@cache
def words() -> dict[str, list[str]]:
    """WordNet's words by kind, those that were met in running text apart, its people and places."""
    folder = require(["wordnet"])["wordnet"] / "usr/share/wordnet"
    counts = (folder / "cntlist.rev").read_text("utf-8").splitlines()
    met = {line.partition("%")[0] for line in counts}
    found: dict[str, list[str]] = {}
    for kind, name in (("noun", "noun"), ("verb", "verb"), ("adjective", "adj"), ("adverb", "adv")):
        bad = _unwanted(folder / f"data.{name}")
        index = (folder / f"index.{name}").read_text("utf-8").splitlines()
        every = [line.split(" ", 1)[0] for line in index if not line.startswith(" ")]
        found[kind] = [w for w in every if w.isalpha() and 3 <= len(w) <= 14 and w not in bad]
        found[f"common {kind}"] = [w for w in found[kind] if w in met]
    found["person"], found["place"] = _instances(folder / "data.noun")
    return found


def _unwanted(path: Path) -> set[str]:
    """Words of which some sense is an insult."""
    found: set[str] = set()
    for line in path.read_text("utf-8").splitlines():
        data, _, gloss = line.partition(" | ")
        if _UNWANTED.search(gloss):
            fields = data.split()
            found.update(w.lower() for w in fields[4 : 4 + 2 * int(fields[3], 16) : 2])
    return found


def _instances(path: Path) -> tuple[list[str], list[str]]:
    people, places = [], []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("  ") or " @i " not in line:
            continue
        fields = line.split()
        count = int(fields[3], 16)
        names = [n.replace("_", " ") for n in fields[4 : 4 + 2 * count : 2]]
        names = [n for n in names if re.fullmatch(r"[A-Z][A-Za-z'-]+( [A-Z][a-z'-]+){0,2}", n)]
        if fields[1] == "18":
            people += [n for n in names if " " in n or len(names) == 1]
        elif fields[1] == "15":
            places += names[:1]
    return sorted(set(people)), sorted(set(places))


def _same(pick: Callable[[Random], str]) -> Callable[[Random], Form]:
    def form(random: Random) -> Form:
        word = pick(random)
        return word, word

    return form


def _word(kind: str) -> Callable[[Random], str]:
    def pick(random: Random) -> str:
        common = random.random() < 0.65
        return random.choice(words()[f"common {kind}" if common else kind])

    return pick


_noun = _word("noun")


def _plural(random: Random) -> str:
    word = _noun(random)
    if word.endswith(("s", "x", "ch", "sh", "z")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def _digits(random: Random) -> Form:
    text = "".join(random.choice("0123456789") for _ in range(random.randint(3, 6)))
    return text, " ".join(numbers.cardinal(int(d)) for d in text)


def _small(random: Random) -> Form:
    value = random.randint(2, 60)
    return str(value), numbers.cardinal(value)


_SLOTS: dict[str, Callable[[Random], Form]] = {
    "number": numbers.number,
    "small": _small,
    "decimal": numbers.decimal,
    "date": numbers.date,
    "money": numbers.money,
    "digits": _digits,
    "year": lambda r: numbers.year(r.randint(1000, 2040)),
    "ordinal": lambda r: numbers.ordinal(r.randint(1, 60)),
    "clock": lambda r: numbers.clock(r.randint(1, 12), r.choice((0, *range(60)))),
    "month": _same(lambda r: r.choice(numbers.MONTHS)),
    "day": _same(lambda r: r.choice(_TABLE["days"])),
    "language": _same(lambda r: r.choice(_TABLE["languages"])),
    "first": _same(lambda r: r.choice(_TABLE["first"])),
    "last": _same(lambda r: r.choice(_TABLE["last"])),
    "noun": _same(_noun),
    "nouns": _same(_plural),
    "verb": _same(_word("verb")),
    "adjective": _same(_word("adjective")),
    "adverb": _same(_word("adverb")),
    "person": _same(lambda r: r.choice(words()["person"])),
    "place": _same(lambda r: r.choice(words()["place"])),
    "title": _same(lambda r: f"The {_noun(r).title()} of {_noun(r).title()}"),
}
