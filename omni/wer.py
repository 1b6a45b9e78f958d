"""Word error rate: edits in words, as a share of the words that were said."""

from __future__ import annotations

import re
from collections.abc import Sequence


def words(text: str) -> list[str]:
    """``text`` as words to compare: lower case, no punctuation, one spelling."""
    return re.findall(r"[\w']+", text.casefold().replace("grey", "gray"))


def edits(reference: Sequence[str], heard: Sequence[str]) -> int:
    """Levenshtein distance in words: those wrong, missing or too many."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]
