"""A growing answer -> clauses to be spoken, each as early as it is certain."""

from __future__ import annotations

import re
from dataclasses import dataclass

from decoders.language import detect_language
from decoders.markup import FENCE, LINK, speakable
from decoders.words import (
    BEFORE_NUMBER,
    BREAK_BEFORE,
    CAREFULLY,
    NEVER,
    PERHAPS,
    STARTERS,
    TITLES,
)
from omni.types import Clause

_SENTENCE_END = ".!?…"
_WIDE_END = "。！？｡"
_WIDE_PAUSE = "，、；：,;:"
_CLOSERS = "\"'”’»)]}*_`~」』）】》›"
_WORD = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff]")
_NUMBERED = re.compile(r"[\s>*_]*\d{1,3}\.")
_URL = re.compile(r"(?:https?://|www\.)\S*", re.I)


_EAGER = 3
"""Words after which the first sentence of an answer ends without a look at what follows it."""


class ClauseSplitter:
    """Splits an answer into clauses while it is being written.

    The cuts depend on the text only, never on how it was cut into pieces. Joined, the ``source`` of
    the clauses is the whole answer (but for white space at its end).
    """

    @dataclass(frozen=True)
    class Config:
        """Lengths in words; two Chinese or Japanese characters count as one word."""

        first_comma: float = 3
        """The first clause may end at a comma after this many words: it decides the latency."""
        comma: float = 8
        """Later clauses are longer, for their melody."""
        colon: float = 4
        """Of ``;``, ``:`` and dashes in later clauses."""
        first_run_on: float = 8
        """A first clause without punctuation ends before a conjunction or preposition from here."""
        first_limit: float = 14
        """... and at any word here."""
        run_on: float = 20
        limit: float = 30
        language: str = "en"
        """Language of the answer until a clause says otherwise."""

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()
        self._reset()

    def _reset(self) -> None:
        self._language = self._config.language
        self._text = ""
        self._unspoken = ""
        self._line_start = True
        self._spoken_any = False

    def feed(self, text: str) -> list[Clause]:
        """Take more of the answer; return the clauses that it completes."""
        self._text += text
        return self._take(final=False)

    def flush(self) -> list[Clause]:
        """Return the rest at the end of the answer; the splitter can then take another one.

        Markup at the very end, such as an emoji or a code block, comes as a clause without text.
        """
        clauses = self._take(final=True)
        rest = self._unspoken + self._text
        if rest.strip():
            clauses.append(Clause("", self._language, rest))
        self._reset()
        return clauses

    def _take(self, final: bool) -> list[Clause]:
        clauses = []
        while self._text:
            cut = _Scan(self._text, self._line_start, final, self._spoken_any, self._config).cut()
            if cut is None:
                if not final:
                    break
                cut = len(self._text)
            source, self._text = self._text[:cut], self._text[cut:]
            spoken = speakable(source, self._line_start)
            self._line_start = source.endswith("\n")
            self._unspoken += source
            if spoken:
                self._language = detect_language(spoken, self._language)
                clauses.append(Clause(spoken, self._language, self._unspoken))
                self._unspoken = ""
                self._spoken_any = True
        return clauses


class _Wait(Exception):
    """The text seen so far does not decide; more of it will."""


class _Scan:
    """One pass over the text after the last cut, looking for the next one."""

    def __init__(
        self, text: str, line_start: bool, final: bool, later: bool, config: ClauseSplitter.Config
    ) -> None:
        self._text = text
        self._line_start = line_start
        self._final = final
        self._comma = config.comma if later else config.first_comma
        self._colon = config.colon if later else config.first_comma
        self._run_on = config.run_on if later else config.first_run_on
        self._limit = config.limit if later else config.first_limit
        self._first = not later

    def cut(self) -> int | None:
        """Where the first clause ends, or None when that is not certain yet."""
        try:
            return self._scan()
        except _Wait:
            return None

    def _scan(self) -> int:
        if self._line_start and (end := self._fence()) is not None:
            return end
        at, size = 0, 0.0
        while True:
            char = self._at(at)
            if char == "\n":
                return at + 1
            end = self._skip(at)
            if end > at:
                at, size = end, size + 1
                continue
            if (word := _WORD.match(self._text, at)) and not _WIDE.match(char):
                # A joiner at the end may join more: "e." can become "e.g".
                if self._text[word.end() :] in ("", "'", "’", ".", "-"):
                    self._more()
                if size >= self._run_on and self._may_break(word, size):
                    return at
                end = next((m.start() for m in _WIDE.finditer(word[0])), len(word[0])) + at
                at, size = end, size + 1
                continue
            if _WIDE.match(char):
                if size >= self._limit:
                    return at
                at, size = at + 1, size + 0.5
                continue
            if (end := self._boundary(at, size)) > at:
                return end
            at += 1

    # -- looking ahead ------------------------------------------------------------------------

    def _at(self, at: int) -> str:
        """Return the character at ``at``; past the end, a newline once the answer is complete."""
        if at < len(self._text):
            return self._text[at]
        return self._more()

    def _more(self) -> str:
        if not self._final:
            raise _Wait
        return "\n"

    def _next_word(self, at: int) -> str:
        """Return the word after white space at ``at``, or the sign that stands there."""
        while self._at(at) in " \t":
            at += 1
        end = at
        while end - at < 20 and self._at(end).isalpha():
            end += 1
        return self._text[at:end] or self._at(at)

    # -- what is never cut ----------------------------------------------------------------------

    def _fence(self) -> int | None:
        """Return the end of a code block that starts here."""
        head = self._text.lstrip(" \t")[:3]
        if head and len(head) < 3 and (set(head) <= {"`"} or set(head) <= {"~"}):
            self._more()
        fence = FENCE.match(self._text)
        if fence is None:
            return None
        closing = re.compile(rf"\n[ \t]*{re.escape(fence[1])}[`~]*[ \t]*\n")
        if close := closing.search(self._text, fence.end() - 1):
            return close.end()
        self._more()
        return len(self._text)

    def _skip(self, at: int) -> int:
        """Return the end of a link, an address or code that starts at ``at``; else ``at``."""
        char = self._text[at]
        if char == "`":
            return self._until(at, "`", 80)
        if char in "![" and self._at(at + (char == "!")) == "[":
            return self._link(at)
        if char in "hHwW" and (at == 0 or not self._text[at - 1].isalnum()):
            ahead = self._text[at : at + 8].lower()
            starts = ("https://", "http://", "www.")
            if len(ahead) < 8 and any(s.startswith(ahead) for s in starts):
                self._more()
            if url := _URL.match(self._text, at):
                end = url.end()
                for stop in _WIDE_END + "，、；：）」":
                    if stop in url[0]:
                        end = min(end, at + url[0].index(stop))
                if end == len(self._text):
                    self._more()
                # What closes a sentence is not part of the address.
                while self._text[end - 1] in ".,;:!?)]*_'\"" and end - 1 > at:
                    end -= 1
                return end
        return at

    def _until(self, at: int, closer: str, within: int) -> int:
        end = self._text.find(closer, at + 1, at + within)
        line = self._text.find("\n", at, at + within)
        if end >= 0 and (line < 0 or end < line):
            return end + 1
        if line < 0 and len(self._text) < at + within:
            self._more()
        return at

    def _link(self, at: int) -> int:
        close = self._until(at + (self._text[at] == "!"), "]", 200)
        if close <= at + 1 or self._at(close) != "(":
            return at
        if self._until(close, ")", 300) == close:
            return at
        link = LINK.match(self._text, at)
        return link.end() if link else at

    # -- where a clause may end -----------------------------------------------------------------

    def _may_break(self, word: re.Match[str], size: float) -> bool:
        """Whether a run-on may be cut before ``word``, which stands after white space."""
        if word.start() == 0 or not self._text[word.start() - 1].isspace():
            return False
        before = self._text[: word.start()].rstrip()[-1:]
        if before.isdigit() or word[0][0].isdigit():
            return size >= self._limit * 2  # a number and its unit stay together
        return size >= self._limit or word[0].lower() in BREAK_BEFORE

    def _boundary(self, at: int, size: float) -> int:
        """Return the end of the clause that the sign at ``at`` closes; else ``at``."""
        char = self._text[at]
        if char in _WIDE_END:
            return self._after_closers(at + 1, _WIDE_END + _SENTENCE_END) if size else at
        if char in _SENTENCE_END:
            if self._first and size >= _EAGER and self._plainly_ends(at):
                return at + 1
            return self._sentence(at) if size else at
        if char in _WIDE_PAUSE:
            need = self._comma if char in "，、," else self._colon
            if size < need or not self._pauses(at):
                return at
            return self._after_closers(at + 1, "")
        if char in "—–-" and size >= self._colon:
            spaced = at > 0 and self._text[at - 1].isspace()
            if char == "—" or (spaced and self._at(at + 1).isspace()):
                return self._after_closers(at + 1, "—")
        return at

    def _pauses(self, at: int) -> bool:
        """Whether a comma or colon separates words and not the parts of a number or time."""
        if self._text[at] not in ",;:":
            return True
        after = self._at(at + 1)
        if _WIDE.match(after):
            return True
        if not after.isspace() and after not in _CLOSERS:
            return False
        digit_before = at > 0 and self._text[at - 1].isdigit()
        return not (digit_before and self._next_word(at + 1)[0].isdigit())

    def _plainly_ends(self, at: int) -> bool:
        """Whether the word before the sign at ``at`` leaves no doubt that a sentence ends.

        Waiting for the next character would cost the first sound of the answer one token.
        """
        if not set(self._text[:at]).isdisjoint('([{"“‘«`*_'):
            return False  # the closing sign belongs to this clause
        word = re.search(r"(?:^|\s)([A-Za-z]{3,})$", self._text[:at])
        ambiguous = NEVER | TITLES | BEFORE_NUMBER | PERHAPS | CAREFULLY
        return word is not None and not {word[1], word[1].lower()} & ambiguous

    def _sentence(self, at: int) -> int:
        end = at + 1
        while self._at(end) in _SENTENCE_END:
            end += 1
        closed = self._after_closers(end, "")
        after = self._at(closed)
        if not after.isspace() and not _WIDE.match(after):
            return at
        if self._text[at:end] != "." or closed > end:
            return closed
        word = re.search(r"[^\s(\[\"'“‘*_]*$", self._text[:at])
        token = (word[0] if word else "").lower()
        if self._line_start and _NUMBERED.fullmatch(self._text[:end]):
            return at
        if token in NEVER or (word and word[0] in TITLES):
            return at
        if token in BEFORE_NUMBER:
            if self._next_word(closed)[0].isdigit():
                return at
        elif token in PERHAPS:
            return closed if self._starts_sentence(closed, lenient=True) else at
        elif token in CAREFULLY:
            return closed if self._starts_sentence(closed, lenient=False) else at
        initials = re.fullmatch(r"[A-Z](?:\.[A-Z])*", word[0] if word else "")
        if initials and token != "i":
            return closed if self._starts_sentence(closed, lenient=False) else at
        return closed

    def _starts_sentence(self, at: int, lenient: bool) -> bool:
        """Whether what follows an ambiguous point begins a new sentence."""
        if self._at(at) == "\n":
            return True
        word = self._next_word(at)
        if word == "\n":
            return True
        return word[0].isupper() and (lenient or word.lower() in STARTERS)

    def _after_closers(self, at: int, also: str) -> int:
        while self._at(at) in _CLOSERS + also and at < len(self._text):
            at += 1
        return at
