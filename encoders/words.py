"""Tokens with their times -> words and segments with theirs."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace

from encoders.vad import FRAME, RATE
from omni.types import Segment, Transcript, Word

_SPEECH = 0.35
_PAUSE = 0.6
"""Seconds of silence between two segments."""
_SENTENCE_ENDS = tuple(".!?…。！？｡")
_CLOSERS = "\"'”’»)]」』）】》"
# Written without spaces between words, beyond what counts as wide: Thai, Lao, Burmese, Khmer.
_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))


def words(
    tokens: Sequence[int],
    starts: Sequence[float],
    probabilities: Sequence[float],
    decode: Callable[[list[int]], str],
) -> tuple[Word, ...]:
    """Group tokens into words; ``starts`` has the begin of each token and the end of the last.

    A word begins after a space and, in scripts without spaces, with each character; punctuation
    belongs to the word before it, an opening bracket or quote to the one after it.
    """
    found: list[Word] = []
    text, begin, end = "", 0, 0
    likely: list[float] = []

    def close() -> None:
        if text.strip():
            mean = sum(likely) / len(likely)
            found.append(Word(text.strip(), starts[begin], starts[end], mean))

    for first, after in _characters(tokens, decode):
        piece = decode(list(tokens[first:after]))
        spoken = _spoken(piece)
        if _begins_word(text, piece):
            close()
            text, begin, end = "", first, first
            likely = []
        text += piece
        likely += probabilities[first:after]
        # The time of a full stop is the pause after the word.
        if spoken or end == begin:
            end = after
    close()
    return tuple(found)


def _characters(tokens: Sequence[int], decode: Callable[[list[int]], str]) -> list[tuple[int, int]]:
    """The shortest runs of tokens that are whole characters."""
    runs, first = [], 0
    for after in range(1, len(tokens) + 1):
        if "\ufffd" not in decode(list(tokens[first:after])) or after == len(tokens):
            runs.append((first, after))
            first = after
    return runs


def _begins_word(before: str, piece: str) -> bool:
    if not _spoken(before):
        return False  # what opens a word waits for it
    if piece[:1].isspace():
        return True
    if not _spoken(piece):
        return unicodedata.category(piece[:1] or " ") in ("Ps", "Pi")
    return _unspaced(piece[0]) or _unspaced(before[-1])


def _spoken(text: str) -> bool:
    return any(char.isalnum() for char in text)


def _unspaced(char: str) -> bool:
    if unicodedata.category(char).startswith("M"):
        return False  # a vowel sign belongs to the letter before it
    code = ord(char)
    if 0xAC00 <= code <= 0xD7A3:
        return False  # Korean has spaces
    wide = unicodedata.east_asian_width(char) == "W"
    return wide or any(low <= code <= high for low, high in _UNSPACED)


def within_speech(
    found: Sequence[Word], levels: Sequence[float], seconds: float
) -> tuple[Word, ...]:
    """Fit the words to the speech in ``levels`` (of the voice activity).

    The alignment gives a pause to one of its neighbours, and the end of a word to the full stop
    after it.
    """
    step = FRAME / RATE
    loud = [level >= _SPEECH for level in levels]
    fitted = []
    for index, word in enumerate(found):
        limit = found[index + 1].start if index + 1 < len(found) else seconds
        start, end = word.start, word.end
        first, after = int(start / step), min(len(loud), int(end / step) + 1)
        speech = [frame for frame in range(first, after) if loud[frame]]
        if speech:
            start = max(start, speech[0] * step)
            last = speech[-1] + 1
            while last < len(loud) and loud[last]:
                last += 1
            end = min(last * step, limit)
        fitted.append(
            replace(word, start=round(start, 2), end=round(max(start, min(end, seconds)), 2))
        )
    return tuple(fitted)


def segments(found: Sequence[Word], no_speech: float) -> tuple[Segment, ...]:
    """Cut words at the ends of sentences and at pauses."""
    cut: list[Segment] = []
    run: list[Word] = []
    for index, word in enumerate(found):
        run.append(word)
        following = found[index + 1] if index + 1 < len(found) else None
        if (
            following is None
            or following.start - word.end >= _PAUSE
            or word.text.rstrip(_CLOSERS).endswith(_SENTENCE_ENDS)
        ):
            sure = sum(w.probability for w in run) / len(run)
            cut.append(Segment(joined_words(run), run[0].start, run[-1].end, sure, no_speech))
            run = []
    return tuple(cut)


def joined_words(run: Sequence[Word]) -> str:
    """The text of consecutive words."""
    text = ""
    for word in run:
        tight = not text or (_unspaced(word.text[0]) and _unspaced_end(text))
        text += word.text if tight else f" {word.text}"
    return text


def _unspaced_end(text: str) -> bool:
    last = text[-1]
    return _unspaced(last) or (not last.isalnum() and ord(last) > 0x2FFF)


def later(part: Transcript, seconds: float) -> Transcript:
    """``part`` with all its times moved by ``seconds``."""

    def moved(time: float) -> float:
        return round(time + seconds, 2)

    return replace(
        part,
        words=tuple(replace(w, start=moved(w.start), end=moved(w.end)) for w in part.words),
        segments=tuple(replace(s, start=moved(s.start), end=moved(s.end)) for s in part.segments),
    )
