"""What all reports of a run share: safe text, medians, and what happened in a turn as lines.

Dialogues may be hostile: whatever a report shows goes through :func:`printable`.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence

from omni.dialogues.results import Check, DialogueResult, Problem, Repeat, TurnResult

STAGES = ("turn_end", "transcript", "first_token", "first_audio", "first_audible", "done")
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    r"""The text with control characters and marks that turn the direction of writing as escapes.

    What is left is safe in a terminal and valid in XML.

    >>> printable("a\x1b[31mb") == r"a\x1b[31mb"
    True
    """
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def latencies(turns: Sequence[TurnResult]) -> dict[str, float]:
    """The median of every stage over the turns that have it, in milliseconds."""
    values = {
        stage: [turn.measured[stage] for turn in turns if stage in turn.measured]
        for stage in STAGES
    }
    return {stage: statistics.median(found) for stage, found in values.items() if found}


def told(turn: TurnResult) -> Iterator[str]:
    """What happened in a turn that failed, a line for each thing."""
    user, assistant = turn.user, turn.assistant
    facts = {
        "did": "; ".join((*user.actions, *user.conditions)),
        "said": user.said,
        "typed": user.typed,
        "heard": user.heard,
        "answered": assistant.text,
        "sounds like": assistant.transcript or "",
        "called": "; ".join(f"{call.name}({call.arguments})" for call in assistant.calls),
    }
    for name, value in facts.items():
        if value.strip():
            yield f"{name:<12}{short(value)}"
    if turn.error is not None:
        yield f"✗ {turn.error}"
    for check in turn.checks:
        if check.failed:
            yield sentence(check)


def sentence(check: Check) -> str:
    """A check that failed, in a line."""
    turn = f"turn {check.turn + 1}: " if check.turn is not None else ""
    return f"✗ {turn}{check.kind}: expected {short(check.wanted)}, got {short(check.found)}"


def turns(dialogue: DialogueResult) -> list[TurnResult]:
    """Every turn of every repeat."""
    return [turn for repeat in dialogue.repeats for turn in repeat.turns]


def ended_by(dialogue: DialogueResult) -> Iterator[Problem]:
    """What ended a dialogue, or kept it from beginning."""
    parts: tuple[DialogueResult | Repeat, ...] = (dialogue, *dialogue.repeats)
    for part in parts:
        if part.error is not None:
            yield part.error


def words(name: str) -> str:
    """A name in words: ``first audio``."""
    return name.replace("_", " ")


def short(text: str, length: int = 300) -> str:
    """One line of the text, cut when it is long."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
