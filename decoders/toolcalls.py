"""An answer with tool calls -> its words, and the calls as they are written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from omni.llm.tools import ToolFormat


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call of the tool ``name`` begins; ``index`` counts the calls of the answer from 0."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of the JSON text of the call's arguments."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The arguments are complete: ``arguments`` is all of their JSON text."""

    index: int
    arguments: str


Piece = str | CallStarted | CallDelta | CallEnded


class ToolCallParser:
    """Splits the text of an answer into words and calls, in any pieces that it comes in.

    Words leave at once but for what may be the beginning of a call, blanks before it included;
    markup never leaves. A call that was not written to its end never gets its `CallEnded`.
    """

    def __init__(self, format: ToolFormat) -> None:
        self._marker = format.marker
        key = re.escape(format.key)
        self._name = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")')
        self._until_arguments = re.compile(rf'\s*,\s*"{key}"\s*:\s*(?=\{{)')
        self._after = re.compile(r"\s*\}" + re.escape(format.close))
        self._text = ""
        self._state = self._words
        self._index = -1
        self._arguments = ""
        self._scanner = _Object()
        self._blank = True

    def feed(self, text: str) -> list[Piece]:
        """What became certain with ``text``."""
        self._text += text
        out: list[Piece] = []
        while self._state(out):
            pass
        return out

    def flush(self) -> str:
        """The words that were held back, at the end of the answer."""
        rest, self._text = self._text, ""
        if self._index >= 0:
            rest = rest.strip()
        return rest if self._state == self._words else ""

    # Each state takes what it can from the text, and says whether the next one may go on.

    def _words(self, out: list[Piece]) -> bool:
        if self._marker:
            at = self._text.find(self._marker)
            if at >= 0:
                self._emit(out, self._text[:at].rstrip())
                self._text = self._text[at + len(self._marker) :]
                self._state = self._head
                return True
            held = _overlap(self._text, self._marker)
        else:
            if self._blank and self._text.lstrip().startswith("{"):
                self._state = self._head
                return True
            held = 0
        keep = len(self._text[: len(self._text) - held].rstrip())
        self._emit(out, self._text[:keep])
        self._text = self._text[keep:]
        return False

    def _emit(self, out: list[Piece], words: str) -> None:
        if words:
            self._blank = False
            out.append(words)

    def _head(self, out: list[Piece]) -> bool:
        found = self._name.match(self._text)
        if found is None:
            return False
        self._text = self._text[found.end() :]
        self._index += 1
        self._arguments, self._scanner = "", _Object()
        out.append(CallStarted(self._index, json.loads(found[1])))
        self._state = self._middle
        return True

    def _middle(self, out: list[Piece]) -> bool:
        found = self._until_arguments.match(self._text)
        if found is None:
            return False
        self._text = self._text[found.end() :]
        self._state = self._inside
        return True

    def _inside(self, out: list[Piece]) -> bool:
        size = self._scanner.feed(self._text)
        delta, self._text = self._text[:size], self._text[size:]
        if delta:
            self._arguments += delta
            out.append(CallDelta(self._index, delta))
        if not self._scanner.ended:
            return False
        out.append(CallEnded(self._index, self._arguments))
        self._state = self._tail
        return True

    def _tail(self, out: list[Piece]) -> bool:
        found = self._after.match(self._text)
        if found is None:
            return False
        self._text = self._text[found.end() :]
        self._state = self._words
        return True


class _Object:
    """Finds the end of a JSON object."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = False
        self.ended = False

    def feed(self, text: str) -> int:
        """How much of ``text`` belongs to the object."""
        for i, character in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    self.ended = True
                    return i + 1
        return len(text)


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of ``text`` that is a proper beginning of ``marker``."""
    sizes = range(min(len(text), len(marker) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(marker[:size])), 0)
