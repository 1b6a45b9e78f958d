"""Wishes for pictures in English; see `omni.draw.wishes`."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

from omni.data.describe import plural
from omni.draw.subjects import COLOUR_ALIASES, COLOURS, Subject, subjects
from omni.draw.wishes import Wish


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_POLITE = re.compile(
    r"(?:(?:please|kindly|just|now|and|then|so|well|ok|okay|oh|um|uh|hey|hi|hello|yes|yeah|sure|"
    r"alright|great|thanks|thank you|omni|also|next|first|actually|maybe|quickly|let us|let's|"
    r"(?:can|could|would|will|won't|can't) you|are you able to|go ahead and|try to|"
    r"i(?:'d| would) (?:like|love) (?:for )?you to|i (?:want|need) you to|"
    r"i wish you (?:would|could)|do me a favou?r and)[\s,!.]+)*"
)
_DRAW = re.compile(
    r"(?P<verb>draw|sketch|paint|doodle|illustrate)"
    r"(?P<me> (?:for )?(?:me|us)\b)? (?P<rest>.+)"
)
_GERUND = re.compile(r"^(?:(?:would|do) you mind|how about|what about) (draw|sketch|paint)ing")
_KIND = (
    r"(?:picture|drawing|painting|sketch|image|illustration|doodle|pic|icon|emoji|portrait|"
    r"clip ?art)s?"
)
_PICTURE = re.compile(
    r"(?:(?:make|create|generate|produce|show|give|get|do|draw|paint|sketch|render|design|send)"
    r"(?: for)?(?: me| us)?|i(?:'d| would)? (?:want|like|love|need)(?: to (?:see|have|get))?|"
    r"(?:can|could|may) i (?:have|get|see)|let me see|how about|what about)"
    rf" (?:an?|the|one|another|some)?(?: [a-z]+)? ?{_KIND} (?:of|showing|with) (?P<rest>.+)"
)
_IDIOMS = _set(
    "conclusion conclusions attention line lines comparison comparisons distinction "
    "distinctions parallel parallels blank breath curtain curtains blinds card cards bath "
    "crowd crowds gun sword salary lot lots inference inferences blood water near back out up "
    "on from off upon over inspiration criticism fire ire strength level even straw straws "
    "pension money cash weapon weapons number numbers name names winner winners raffle match "
    "wall walls fence room rooms nails ceiling town bedroom kitchen garage deck plan plans "
    "outline proposal strategy lesson lessons interest support power energy electricity "
    "current boundary boundaries analogy analogies contrast connection connections link links "
    "graph chart diagram table check sample samples closer away in down"
)
"""What is drawn or painted, but not as a picture that we could give."""
_NUMBERS = {
    "a": 1, "an": 1, "one": 1, "another": 1, "some": 1, "the": 1, "my": 1, "your": 1, "this": 1,
    "that": 1, "two": 2, "2": 2, "three": 3, "3": 3, "several": 3, "many": 3, "four": 4, "4": 4,
    "five": 5, "5": 5, "six": 6, "6": 6, "seven": 7, "7": 7, "eight": 8, "8": 8, "nine": 9,
    "9": 9, "ten": 10, "10": 10,
}  # fmt: skip
_WEAK = _set("the my your this that")
_FILLERS = _set(
    "big small little tiny large huge giant cute nice beautiful pretty simple lovely great good "
    "funny bright dark light deep pale very really single plain cool adorable sweet happy new "
    "friendly colorful colourful coloured colored fluffy shiny round just other whole"
)
_ENDS = _set(
    "on in with under wearing that which who and at by near sitting standing eating from riding "
    "holding for flying playing running jumping next behind inside over above during as like "
    "looking made swimming sleeping"
)
"""Words after which it is no more about the thing itself."""
_TAIL = re.compile(
    r"(?:[\s,]+(?:please|for me|for us|for my \w+|thanks|thank you|now|again|will you|would you|"
    r"can you|could you|if you can|if you could|ok|okay|right now|instead|quickly))+$"
)
_IN_COLOUR = re.compile(
    r",? (?:(?:that|which) (?:is|are)|(?:all )?in(?: the colou?r)?|colou?red)"
    r"(?: bright| dark| light| deep)? (?P<colour>[a-z]+)(?: colou?r)?$"
)
_COLOUR = rf"(?P<colour>{'|'.join([*COLOURS, *COLOUR_ALIASES])})"
_RECOLOUR = re.compile(
    r"(?:(?:make|change|turn|paint|colou?r|recolou?r|do|draw|try|have|switch|give me|i want|"
    r"i'd like|i'd prefer)(?: it| that| this| them| one| the colou?r| its colou?r| the [a-z -]+?)?"
    r"|how about|what about|the same|same)"
    r"(?: (?:to|into|in|be|but|as|to be|a|an|one|it))*"
    rf"(?: light| dark| bright)? {_COLOUR}(?: ones?| colou?r)?"
    rf"|(?:in|an?|but) (?:light |dark |bright )?{_COLOUR.replace('colour>', 'other>')}(?: one)?"
)
_AGAIN = re.compile(
    r"(?:(?:draw|give me|show me|make|paint|sketch|do|i want)(?: me)? )?"
    r"(?:another(?: one| version| picture| drawing)?|one more|it again|that again|a different one)"
)
_NUMBER = re.compile(
    r"(?:(?:make|draw|give me|do|paint)(?: it| that| me)? )?(?P<count>two|three)"
    r"(?: of (?:them|those))?"
)
_INSTEAD = re.compile(
    r"(?:(?:make|turn|change) (?:it|that) (?:in)?(?:to )?|(?:how|what) about )?(?P<rest>an? .+)"
)


def asked(text: str) -> Wish | None:
    """What a sentence asks to draw, if it does."""
    for part in re.split(
        r"[.!?;:\n]+\s*|,\s+(?=(?:please |can you |could you |just )?draw\b)", text
    ):
        said = _plain(part)
        if found := _PICTURE.fullmatch(said):
            new = wanted(found["rest"])
            if new.subject is not None or found["rest"].split()[0] not in _WEAK:
                return new
        if _RECOLOUR.fullmatch(_TAIL.sub("", said)) and not said.endswith("an orange"):
            continue  # "draw a blue one": of what was drawn before
        if (found := _DRAW.fullmatch(said)) and _is_picture(found):
            return wanted(found["rest"])
    return None


def changed(text: str, before: Wish) -> Wish | None:
    """What a sentence asks to draw after ``before``: in another colour, another one, more."""
    said = _TAIL.sub("", _plain(text))
    if found := _RECOLOUR.fullmatch(said):
        colour = found["colour"] or found["other"]
        return replace(before, colour=_colour(colour), language="en", left_out=False)
    if _AGAIN.fullmatch(said):
        return replace(before, language="en")
    if found := _NUMBER.fullmatch(said):
        return replace(before, count=_NUMBERS[found["count"]], language="en")
    if found := _INSTEAD.fullmatch(said):
        new = wanted(found["rest"])
        return new if new.subject and not new.left_out else None
    return None


def wanted(text: str) -> Wish:
    """What a description asks for: "two big blue cats on a mat"."""
    said = _TAIL.sub("", _plain(text))
    colour = None
    if (found := _IN_COLOUR.search(said)) and (colour := _colour(found["colour"])):
        said = said[: found.start()]
    tokens = re.findall(r"[a-z0-9'-]+", said.replace("t-shirt", "t shirt"))
    if tokens and tokens[0] in ("something", "anything", "whatever"):
        return Wish("", left_out=len(tokens) > 1)
    count = 1
    if tokens[:3] == ["a", "couple", "of"]:
        count, tokens = 2, tokens[3:]
    elif tokens and tokens[0] in _NUMBERS:
        count = _NUMBERS[tokens.pop(0)]
    head = next((i for i, word in enumerate(tokens) if word in _ENDS and i), len(tokens))
    subject, begin, end = _find(tokens[:head])
    if subject is None:
        subject, begin, end = _find(tokens)
    rest = tokens[:begin] + tokens[end:]
    for word in tokens[:begin]:
        colour = colour or _colour(word)
    if subject is None and rest == ["orange"]:
        subject, rest, colour = _names()["tangerine"], [], None
    more = any(w not in _FILLERS and not _colour(w) for w in rest) or count > 3
    return Wish(" ".join(said.split()), subject, colour, count, "en", more)


def _plain(text: str) -> str:
    said = re.sub(r"\s+", " ", text.lower().replace("’", "'")).strip(" \t\n\"'.,!?;:-")
    said = _GERUND.sub(r"\1", said)
    return said[_POLITE.match(f"{said} ").end() :].strip()  # type: ignore[union-attr]


def _is_picture(found: re.Match[str]) -> bool:
    """Whether what follows "draw" is something to be seen."""
    tokens = re.findall(r"[a-z0-9'-]+", _TAIL.sub("", found["rest"]))
    if not tokens or tokens[0] in _IDIOMS:
        return False
    if tokens[0] in ("something", "anything", "whatever"):
        return True
    article = tokens[0] if tokens[0] in _NUMBERS else None
    own = tokens[1:] if article else tokens
    head = next((i for i, word in enumerate(own) if word in _ENDS and i), len(own))
    if not own or head == 0 or own[head - 1] in _IDIOMS or own[0] in _IDIOMS:
        return False
    known = _find(own[:head])[0] is not None
    if article is None or article in _WEAK:
        # "draw cats", "draw the moon", but not "draw near" or "paint the shed".
        return known and (found["verb"] != "paint" or article is None)
    return True


def _colour(word: str) -> str | None:
    word = word.removesuffix("-coloured").removesuffix("-colored")
    return word if word in COLOURS else COLOUR_ALIASES.get(word)


def _find(tokens: list[str]) -> tuple[Subject | None, int, int]:
    """The last known name among some words, the longest of these, and where it stands."""
    words = [word.removesuffix("'s") for word in tokens]
    for end in range(len(words), 0, -1):
        for begin in range(max(0, end - 4), end):
            name = " ".join(words[begin:end]).replace("-", " ")
            if (subject := _names().get(name)) is not None:
                return subject, begin, end
    return None, 0, 0


@cache
def _names() -> dict[str, Subject]:
    names: dict[str, Subject] = {}
    for subject in subjects():
        for name in subject.names:
            for form in (name, plural(name)):
                names.setdefault(form.replace("-", " "), subject)
    for form, name in {
        "leafs": "leaf",
        "mice": "mouse",
        "sheep": "sheep",
        "geese": "duck",
        "wolves": "wolf",
        "teeth": "smiley",
        "fishes": "fish",
    }.items():
        if name in names:
            names.setdefault(form, names[name])
    return names
