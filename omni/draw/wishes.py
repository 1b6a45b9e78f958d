"""What somebody wants to have drawn, read from a sentence by a small grammar: English and Chinese.

A language model of this size neither calls a tool reliably nor leaves it alone reliably, and to
begin to draw in the middle of a talk is worse than to miss an odd wording. So a wish is only what
begins like one ("draw …", "can you paint me …", "show me a picture of …", "画一个…"), and where the
verb means much else, too ("draw a conclusion"), what goes on like one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from omni.draw.subjects import COUNTS, Subject, prompt

LONGEST = 1000
"""Characters of a sentence that are looked at; nobody asks for a picture in more."""
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True, slots=True)
class Wish:
    """A picture that somebody wants.

    ``words`` is how it was put, empty for just anything; ``subject`` is what of it is known by
    name, if something is; ``left_out`` says whether the words ask for more than is drawn.
    """

    words: str
    subject: Subject | None = None
    colour: str | None = None
    count: int = 1
    language: Literal["en", "zh"] = "en"
    left_out: bool = False

    @property
    def prompt(self) -> str:
        """What it is drawn from; more than three are drawn as three."""
        if self.subject is None:
            return self.words
        return prompt(self.subject.name, self.colour, min(self.count, len(COUNTS)))


def wish(text: str, before: Wish | None = None) -> Wish | None:
    """What ``text`` asks to draw, if it does; ``before`` is what was drawn last in this talk.

    "Make it blue" is a wish only after something was drawn.
    """
    text = text.strip()
    if not text or len(text) > LONGEST:
        return None
    if _CHINESE.search(text):
        from omni.draw.wishes_zh import asked, changed
    else:
        from omni.draw.wishes_en import asked, changed
    return asked(text) or (changed(text, before) if before else None)


def described(text: str) -> Wish:
    """The wish that a description is, with a verb or without: "a red apple", "画两只蓝色的猫"."""
    if found := wish(text):
        return found
    if _CHINESE.search(text):
        from omni.draw.wishes_zh import wanted
    else:
        from omni.draw.wishes_en import wanted
    return wanted(text[-LONGEST:].strip())
