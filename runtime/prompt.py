"""Which part of a conversation the LLM reads: the oldest turns go when it is too long."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Protocol

from omni.errors import InputError
from omni.sequence import Interleaved, Layout, bridged, chat
from omni.types import Capabilities, Message, Modality, Span, Tool
from omni.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from omni.llm.model import LanguageModel
    from runtime.assembly import Parts

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
    @property
    def eos_ids(self) -> frozenset[int]: ...

    def encode(self, text: str) -> list[int]: ...

    def encode_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Tool] = (),
    ) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """How the LLM reads conversations.

    Media of the modalities in ``embedded`` are read by their embeddings where these have the LLM's
    ``width``, laid out by ``layout``; all others by their words.
    """

    tokenizer: _Tokenizer
    embedded: frozenset[Modality] = frozenset()
    width: int = 0
    layout: Layout = field(default_factory=Layout)

    @classmethod
    def of(cls, parts: Parts) -> Reading:
        """As the parts' capabilities have it."""
        encoders = (parts.hearing.capabilities, parts.sight.capabilities)
        return cls.between(encoders, parts.llm, parts.layout)

    @classmethod
    def between(
        cls, encoders: Iterable[Capabilities], llm: LanguageModel, layout: Layout | None = None
    ) -> Reading:
        """What can be read as embeddings of what these encoders give."""
        embedded = frozenset[Modality]().union(
            *(c.inputs for c in encoders if c.bridge == "embeds")
        )
        if not embedded or llm.capabilities.bridge != "embeds":
            return cls(llm.tokenizer)
        return cls(llm.tokenizer, embedded, llm.width, layout or Layout())

    def bridge(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with every medium either as embeddings or as words."""
        return bridged(messages, self.embedded, self.width)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Interleaved:
        """What the LLM reads of messages that went through `bridge`."""
        layout = self.layout
        return chat(self.tokenizer, messages, layout.boundaries, tools=tools, rate=layout.rate)

    def tokens(self, messages: Sequence[Message], *modalities: Modality) -> int:
        """Tokens of a prompt that stand for these media."""
        spans = (p for m in messages for p in m.parts if isinstance(p, Span))
        return sum(self._length(span) for span in spans if span.modality in modalities)

    def _length(self, span: Span) -> int:
        if span.embeds is None or not span.wordless:
            return len(self.tokenizer.encode(span.text or ""))
        return len(span.embeds) + 2 * (span.modality in self.layout.boundaries)


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
        return (a.role, a.text, a.call_id, _embeds(a)) == (b.role, b.text, b.call_id, _embeds(b))


def _embeds(message: Message) -> list[int]:
    return [id(p.embeds) for p in message.parts if isinstance(p, Span) and p.wordless]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt and the messages in it; ``kept`` where it begins, if not at the start."""

    prompt: Interleaved
    messages: list[Message]
    kept: Kept | None


def fit(
    reading: Reading,
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
    messages = reading.bridge(messages)
    head = [m for m in messages if m.role == "system"]
    rest = [m for m in messages if m.role != "system"]
    first = [*head, *EXAMPLE] if tools and helped else head

    @cache
    def prompt(cut: int) -> Interleaved:
        return reading.prompt([*first, *rest[cut:]], tools)

    @cache
    def empty() -> int:
        """Tokens of the instructions and tools alone; some templates want a message, too."""
        return reading.prompt([*first, Message("user", ("",))], tools).size

    def fitted(cut: int) -> Fitted:
        return Fitted(prompt(cut), [*head, *rest[cut:]], Kept(cut, rest[cut]) if cut else None)

    limit = window.size
    if window.limit is not None:
        limit = min(limit, empty() + window.limit)
    begin = kept.cut if kept is not None and kept.holds(rest) else 0
    if prompt(begin).size <= limit:
        return fitted(begin)
    if window.ratio is None:
        raise InputError(
            f"the conversation takes {prompt(begin).size} tokens with its instructions, {limit} "
            "fit, and truncation is disabled; delete items, or allow truncation",
            code="context_length_exceeded",
        )
    aim = limit if window.ratio >= 1 else empty() + int(window.ratio * (limit - empty()))
    cuts = [cut for cut in turns(rest) if cut > begin] or [begin]
    # After hours of talk there are many cuts, and trying one reads all that follows it.
    found = bisect.bisect_left(cuts, True, key=lambda cut: prompt(cut).size <= aim)
    cut = cuts[min(found, len(cuts) - 1)]
    if prompt(cut).size > limit:
        raise InputError(
            f"the last message is too long: with the instructions it takes {prompt(cut).size} "
            f"tokens of {limit} that fit; shorten it",
            code="context_length_exceeded",
        )
    return fitted(cut)


def unasked(
    reading: Reading, messages: Sequence[Message], tools: Sequence[Tool]
) -> Interleaved | None:
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
    return reading.prompt([*before, *kept], tools)


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
