"""Speech in few tokens: the LLM's own vocabulary, cut down to what is common.

An LLM has 150,000 tokens; some hours of speech show most of them never. A spelling keeps the
tokens that are common in speech and the pieces they are merged from, so that a rare word is
several common tokens and none is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from omni.errors import WeightsError


class Spelling:
    """A byte-level BPE tokenizer of an LLM with only some of its merges; the ids are the same."""

    def __init__(self, directory: Path, units: Iterable[int]) -> None:
        """``units`` are ids. Raises `WeightsError` unless there is a byte-level BPE tokenizer."""
        description = _read(directory)
        wanted = set(units)
        vocabulary = description["model"]["vocab"]
        self._tokenizer = _cut(description, {t for t, i in vocabulary.items() if i in wanted})

    def encode(self, text: str) -> list[int]:
        """``text`` as units, and as single bytes where there is none."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def common_units(
    directory: Path, texts: Sequence[str], *, least: int = 20, merges: int = 5_000
) -> tuple[int, ...]:
    """The ids in which ``texts`` are spelled by the first ``merges`` of the LLM's tokenizer.

    A merge whose token comes fewer than ``least`` times is left out, twice over, because its parts
    become more frequent then. The pieces of a unit are units. Raises `WeightsError` as `Spelling`
    does.
    """
    description = _read(directory)
    pairs = _merges(description)[:merges]
    made = {a + b: (a, b) for a, b in pairs}
    kept = set(made)
    for _ in range(2):
        counts = _counts(_cut(description, kept), texts)
        needed: set[str] = set()
        stack = [t for t, n in counts.items() if n >= least]
        while stack:
            token = stack.pop()
            if token in made and token not in needed:
                needed.add(token)
                stack += made[token]
        kept = needed
    vocabulary = description["model"]["vocab"]
    used = kept | _counts(_cut(description, kept), texts).keys()
    return tuple(sorted(vocabulary[t] for t in used))


def _counts(tokenizer: Tokenizer, texts: Sequence[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        counts.update(encoding.tokens)
    return counts


def _read(directory: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{directory} has no tokenizer.json that can be read ({error})"
        ) from error
    if description["model"].get("type", "BPE") != "BPE":
        raise WeightsError(f"{directory / 'tokenizer.json'} is not of byte-level BPE")
    return description


def _merges(description: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = (m.split(" ", 1) if isinstance(m, str) else m for m in description["model"]["merges"])
    return [(pair[0], pair[1]) for pair in pairs]


def _cut(description: dict[str, Any], kept: set[str]) -> Tokenizer:
    """A tokenizer with the single bytes and those merges whose result is kept."""
    vocabulary = description["model"]["vocab"]
    merges = [m for m in _merges(description) if m[0] + m[1] in kept]
    tokens = [t for t in vocabulary if len(t) == 1] + [a + b for a, b in merges]
    model = {
        **description["model"],
        "vocab": {t: vocabulary[t] for t in tokens},
        "merges": merges,
    }
    return Tokenizer.from_str(json.dumps({**description, "model": model, "added_tokens": []}))
