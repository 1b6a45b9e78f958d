"""Markdown -> the words in it: what is spoken of a text that is shown with its markup."""

from __future__ import annotations

import re

EMOJI = (
    "\U0001f000-\U0001faff\u2300-\u23ff\u2460-\u24ff\u25a0-\u27bf\u2b00-\u2bff\u3030\u303d\u3297\u3299"
    "\ufe0e\ufe0f\u20e3\u200d\U000e0020-\U000e007f"
)

LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)")
FENCE = re.compile(r"[ \t]*(```+|~~~+)")

_FENCED = re.compile(r"^[ \t]*(```+|~~~+).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.S | re.M)
_RULE = re.compile(r"^[ \t]*(?:([-*_=])[ \t]*){3,}$", re.M)
_TABLE_RULE = re.compile(r"^[ \t]*\|?[ \t:]*-[-| \t:]*\|[-| \t:]*$", re.M)
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+|[ \t]#+[ \t]*$", re.M)
_QUOTE = re.compile(r"^[ \t]*(?:>[ \t]?)+", re.M)
_BULLET = re.compile(r"^[ \t]*[-*+•◦▪·‣][ \t]+(?:\[[ xX]\][ \t]+)?", re.M)
_NUMBERED = re.compile(r"^([ \t]*\d{1,3})[.)][ \t]+(?=\S)", re.M)
_FOOTNOTE = re.compile(r"\[\^?\d{1,3}\]")
_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,80}>")
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+\-.!|>$~])")
# Kept between digits and where it stands alone: "2 * 3".
_STARS = re.compile(r"(?<![\d*])\*+(?=[^\s*])|(?<=[^\s*])\*+(?![\d*])|(?<!\d)\*{2,}|\*{2,}(?!\d)")
_UNDERLINES = re.compile(r"(?<!\w)_+(?=\S)|(?<=[^\s_])_+(?!\w)")
_EMOJI = re.compile(f"[{EMOJI}]+")
_PIPES = re.compile(r"[ \t]*\|(?:[ \t]*\|)*[ \t]*")


def speakable(text: str, line_start: bool = True) -> str:
    """Return the words of ``text`` and their punctuation, on one line.

    ``line_start`` says whether the text begins a line, where ``-`` is a bullet and not a dash.
    Code blocks, rules, emoji and link targets are left out.
    """
    if not line_start:
        text = "\u2060" + text  # a word joiner: nothing at its start then looks like a line's start
    text = _FENCED.sub(" ", text)
    text = _TABLE_RULE.sub(" ", _RULE.sub(" ", text))
    text = _QUOTE.sub("", text)
    text = _HEADING.sub("", text)
    text = _BULLET.sub("", text)
    text = _NUMBERED.sub(r"\1, ", text)
    text = LINK.sub(r"\1", text)
    text = _FOOTNOTE.sub("", text)
    text = _TAG.sub(" ", text)
    text = _ESCAPED.sub(r"\1", text)
    text = _STARS.sub("", text.replace("`", "").replace("~~", ""))
    text = _UNDERLINES.sub("", text)
    text = _EMOJI.sub(" ", text)
    if "|" in text:
        text = ", ".join(cell for cell in _PIPES.split(text) if cell.strip())
    text = re.sub(r"\s+", " ", text.replace("\u2060", "")).strip()
    text = re.sub(r" +([,.;:!?])(?=\s|$)", r"\1", text)
    return text if any(c.isalnum() for c in text) or any(c in "+=<>%$€£√π°" for c in text) else ""
