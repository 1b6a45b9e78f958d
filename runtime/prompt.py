"""Which part of a conversation the LLM reads: the oldest turns go when it is too long."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

from omni.errors import InputError
from omni.types import Message, Tool
from omni.weights import DEFAULT_MODEL

HELPED = frozenset({DEFAULT_MODEL})
"""Models that call tools badly by themselves: they see `EXAMPLE`, their odds of a call are evened
out (`unasked`), and JSON at the start of their answers counts as a call. What was measured on them
says nothing about larger ones, which are left alone.
"""

EXAMPLE = (
    Message("user", ("Hi!",)),
    Message("assistant", ("Hi! How can I help you?",)),
)
"""Goes before a conversation with tools: the model then knows talk from calls far better."""


class _Tokenizer(Protocol):
    def encode_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Tool] = (),
    ) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Window:
    """What fits: ``size`` tokens in all, ``limit`` of the conversation without instructions.

    When it is too long, ``ratio`` of what would fit is left; None: it must not be too long.
    """

    size: int
    limit: int | None = None
    ratio: float | None = 1.0


@dataclass(frozen=True, slots=True)
class Kept:
    """Where an earlier prompt began, so that the next one can begin there again."""

    cut: int
    first: Message

    def holds(self, rest: Sequence[Message]) -> bool:
        """Whether ``rest`` is the same conversation, as far as can be told."""
        if self.cut >= len(rest):
            return False
        a, b = self.first, rest[self.cut]
        return (a.role, a.text, a.call_id) == (b.role, b.text, b.call_id)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The ids of a prompt and the messages in it; ``kept`` where it begins, if not at the start."""

    ids: list[int]
    messages: list[Message]
    kept: Kept | None


def fit(
    tokenizer: _Tokenizer,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    window: Window,
    kept: Kept | None = None,
    *,
    helped: bool = False,
) -> Fitted:
    """The prompt for ``messages``, without the oldest turns where it would not fit.

    ``helped``: the model is one of `HELPED`.

    Raises `InputError` when there is nothing to answer or it cannot be made to fit (code
    ``context_length_exceeded``).
    """
    if not messages:
        raise InputError(
            "there is nothing to answer: there are neither messages nor instructions; send a "
            "message first",
            param="input",
            code="empty_conversation",
        )
    head = [m for m in messages if m.role == "system"]
    rest = [m for m in messages if m.role != "system"]
    first = [*head, *EXAMPLE] if tools and helped else head

    @cache
    def prompt(cut: int) -> list[int]:
        return tokenizer.encode_chat([*first, *rest[cut:]], tools=tools)

    @cache
    def empty() -> int:
        """Tokens of the instructions and tools alone; some templates want a message, too."""
        return len(tokenizer.encode_chat([*first, Message("user", ("",))], tools=tools))

    def fitted(cut: int) -> Fitted:
        return Fitted(prompt(cut), [*head, *rest[cut:]], Kept(cut, rest[cut]) if cut else None)

    limit = window.size
    if window.limit is not None:
        limit = min(limit, empty() + window.limit)
    begin = kept.cut if kept is not None and kept.holds(rest) else 0
    if len(prompt(begin)) <= limit:
        return fitted(begin)
    if window.ratio is None:
        raise InputError(
            f"the conversation takes {len(prompt(begin))} tokens with its instructions, {limit} "
            "fit, and truncation is disabled; delete items, or allow truncation",
            code="context_length_exceeded",
        )
    aim = limit if window.ratio >= 1 else empty() + int(window.ratio * (limit - empty()))
    cuts = [cut for cut in turns(rest) if cut > begin] or [begin]
    # After hours of talk there are many cuts, and trying one reads all that follows it.
    found = bisect.bisect_left(cuts, True, key=lambda cut: len(prompt(cut)) <= aim)
    cut = cuts[min(found, len(cuts) - 1)]
    if len(prompt(cut)) > limit:
        raise InputError(
            f"the last message is too long: with the instructions it takes {len(prompt(cut))} "
            f"tokens of {limit} that fit; shorten it",
            code="context_length_exceeded",
        )
    return fitted(cut)


def unasked(
    tokenizer: _Tokenizer, messages: Sequence[Message], tools: Sequence[Tool]
) -> list[int] | None:
    """The prompt with something that says nothing in place of the last question or tool outputs.

    What a model is inclined to do here is what the conversation so far makes it do; after Zhao et
    al., Calibrate Before Use (2021). None when neither was the last thing said.
    """
    before = list(messages)
    last = before[-1].role
    nothing: list[Message] = []
    while before and before[-1].role == last and last in ("user", "tool"):
        nothing.insert(0, replace(before.pop(), parts=("Okay." if last == "user" else "...",)))
    if not nothing:
        return None
    start = sum(m.role == "system" for m in before)
    before[start:start] = EXAMPLE
    kept = nothing[-1:] if last == "user" else nothing
    return tokenizer.encode_chat([*before, *kept], tools=tools)


def turns(rest: Sequence[Message]) -> list[int]:
    """Where a conversation may begin: with the user, and with the last thing that was said.

    A turn goes whole, the question together with its answer; and a call together with its output,
    wherever that came.
    """
    calls: dict[str, int] = {}
    inside: set[int] = set()
    for i, message in enumerate(rest):
        calls.update((call.id, i) for call in message.tool_calls)
        if message.role == "tool" and message.call_id in calls:
            inside.update(range(calls[message.call_id] + 1, i + 1))
    whole = [i for i in range(1, len(rest)) if i not in inside]
    return [i for i in whole if rest[i].role == "user" or i == whole[-1]]
