"""Tokens -> text: characters leave only when they are whole, and stop strings never leave."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Callable, Sequence

from omni.errors import InputError

_ZERO_WIDTH_JOINER = "\u200d"


class IncrementalDetokenizer:
    """Text of a growing sequence of tokens.

    ``token_bytes`` gives the bytes of one token (empty for special tokens). Bytes of a character
    that is not complete yet are held back; bytes that can no longer become a character are
    replaced by U+FFFD. The joined output equals decoding all bytes at once.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, token: int) -> str:
        """Text that became certain with ``token``; often a piece of a word, sometimes nothing."""
        text = self._held + self._decoder.decode(self._token_bytes(token))
        # A joiner promises that the next character belongs to the same emoji.
        keep = len(text.rstrip(_ZERO_WIDTH_JOINER))
        if keep < len(text):
            keep = _start_of_cluster(text, keep)
        self._held = text[keep:]
        return text[:keep]

    def flush(self) -> str:
        """The rest, at the end of the answer; the detokenizer can then be used for another one."""
        text = self._held + self._decoder.decode(b"", final=True)
        self._decoder.reset()
        self._held = ""
        return text


def _start_of_cluster(text: str, end: int) -> int:
    """Where the last base character before ``end`` starts, its modifiers included."""
    start = end - 1
    while start > 0 and (
        unicodedata.combining(text[start])
        or text[start] == "\ufe0f"
        or "\U0001f3fb" <= text[start] <= "\U0001f3ff"
    ):
        start -= 1
    return max(start, 0)


class StopMatcher:
    """Passes text on until a stop string appears, which itself never leaves.

    Text that may be the beginning of a stop string is held back. ``stopped`` tells whether one was
    met; what follows it is dropped.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        if any(not s for s in stop):
            raise InputError("a stop string is empty; send at least one character", param="stop")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """The part of everything fed so far that is now safe to show."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for s in self._stop if (at := text.find(s)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = len(text) - max((_overlap(text, s) for s in self._stop), default=0)
        self._held = text[keep:]
        return text[:keep]

    def flush(self) -> str:
        """What was held back, at the end of an answer in which no stop string completed."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a proper beginning of ``stop``."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
