"""Compare words, arguments and orders of events. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

from omni.wer import edits

_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"  # scripts without spaces: a character is a word
    r"|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
    r"(?:'[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+)*"
)
_LANGUAGES = "ar cs de el en es fr hi it ja ko nl pl pt ru sv tr uk zh"
_LIKELY = 0.5
"""Short texts fit several languages: one is told with at least this share of the best's weight."""


def words(text: str) -> list[str]:
    """The words of a text without case and punctuation; in Chinese and Japanese, characters.

    >>> words("Well, it’s 42 — 你好！")
    ['well', "it's", '42', '你', '好']
    """
    text = unicodedata.normalize("NFKC", text).replace("’", "'").casefold()
    return _WORD.findall(text)


def contains(text: str, phrase: str) -> bool:
    """Whether the words of the phrase stand in the text, one behind the other."""
    sought, there = words(phrase), words(text)
    return any(there[i : i + len(sought)] == sought for i in range(len(there) - len(sought) + 1))


def word_error(reference: str, heard: str) -> float:
    """Words that were replaced, left out or added, by the words of the reference."""
    wanted, got = words(reference), words(heard)
    return edits(wanted, got) / len(wanted) if wanted else float(bool(got))


def includes(there: Any, wanted: Any) -> bool:
    """Whether a JSON value has all that is wanted: texts by their words, objects may have more."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(
            key in there and includes(there[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(there, list)
            and len(there) == len(wanted)
            and all(map(includes, there, wanted))
        )
    if isinstance(wanted, str) and isinstance(there, str) and words(wanted):
        return words(there) == words(wanted)
    return bool(there == wanted) and isinstance(there, bool) == isinstance(wanted, bool)


def missing_in_order(happened: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of the wanted that does not come after those before it; None: all do."""
    rest = iter(happened)
    return next((one for one in wanted if one not in rest), None)


@cache
def _detector() -> Any:
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = [getattr(IsoCode639_1, code.upper()) for code in _LANGUAGES.split()]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()


def languages_of(text: str) -> list[str]:
    """The languages (ISO 639-1) that a text may well be in, the likeliest first."""
    values = _detector().compute_language_confidence_values(text)
    return [
        str(found.language.iso_code_639_1.name.lower())
        for found in values
        if found.value and found.value >= _LIKELY * values[0].value
    ]
