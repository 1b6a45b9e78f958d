"""Whether a free answer says what was expected. Pure functions, strict rather than generous.

Numbers in words are digits; articles, plurals, accents, case and punctuation do not count.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from functools import cache

from omni.data.numbers import cardinal
from omni.wer import edits, words

_EMPTY = frozenset(["a", "an", "the", "of", "in", "on", "at", "it", "is", "to", "and"])
_YES, _NO = frozenset({"yes", "yeah", "yep"}), frozenset({"no", "not", "nope"})
_PLACES = {"center": "middle", "centre": "middle", "upper": "top", "lower": "bottom"}


def numerals(text: str) -> list[str]:
    """The words of ``text``, numbers up to 999 as digits: "twenty-one cats" is 21, cats."""
    table, longest = _numbers()
    plain = unicodedata.normalize("NFKD", text.replace(",", ""))
    found, there = [], words("".join(c for c in plain if not unicodedata.combining(c)))
    at = 0
    while at < len(there):
        for size in range(min(longest, len(there) - at), 0, -1):
            number = table.get(tuple(there[at : at + size]))
            if number is not None:
                found.append(number)
                break
        else:
            size = 1
            found.append(there[at])
        at += size
    return found


def key_words(text: str) -> list[str]:
    """The words that carry the meaning, in the singular."""
    return [_singular(word) for word in numerals(text) if word not in _EMPTY]


def is_right(question: str, answer: str, expected: str, among: Collection[str] = ()) -> bool:
    """Whether ``answer`` says what is ``expected``.

    Yes or no has to be the first word. Of numbers, the first that is not in the question counts.
    Of the words ``among`` which to choose, the first counts that is not in the question. Else all
    key words of what is expected have to be there.
    """
    said, wanted = numerals(answer), numerals(expected)
    if wanted[0] in _YES | _NO:
        return bool(said) and said[0] in (_YES if wanted[0] in _YES else _NO)
    asked = set(numerals(question))
    number = next(filter(str.isdigit, wanted), None)
    if number is not None:
        numbers = [word for word in said if word.isdigit()]
        fresh = [word for word in numbers if word not in asked]
        return (fresh or numbers)[:1] == [number]
    if among:
        named = [word for word in said if word in among]
        fresh = [word for word in named if word not in asked]
        return (fresh or named)[:1] == [wanted[0]]
    return set(key_words(expected)) <= set(key_words(answer))


def in_place(answer: str, expected: str) -> bool:
    """Whether ``answer`` names the place: "top left", "middle" ("center right" is "right")."""
    return _place(answer) == _place(expected)


def can_judge(question: str, expected: str) -> bool:
    """Whether words can tell if an answer is right: not those of small talk and long answers."""
    wanted = numerals(expected)
    short = len(key_words(expected)) <= 3 or any(map(str.isdigit, wanted))
    return question.endswith("?") and bool(wanted) and (short or wanted[0] in _YES | _NO)


def word_errors(heard: str, references: Collection[str]) -> tuple[int, int]:
    """Edits from the reference that fits best, and its words.

    A number may be heard as it is written or as it is said: either form is a reference.
    """
    there = words(heard)
    return min(((edits(words(r), there), len(words(r))) for r in references), key=_rate)


def _rate(errors: tuple[int, int]) -> float:
    return errors[0] / max(errors[1], 1)


def _place(text: str) -> set[str]:
    named = {_PLACES.get(word, word) for word in words(text)}
    sides = named & {"top", "bottom", "left", "right"}
    return sides or named & {"middle"}


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


@cache
def _numbers() -> tuple[dict[tuple[str, ...], str], int]:
    table = {tuple(words(cardinal(n).replace("-", " "))): str(n) for n in range(1000)}
    table |= {tuple(w for w in spelled if w != "and"): n for spelled, n in table.items()}
    table[("hundred",)] = "100"
    return table, max(map(len, table))
