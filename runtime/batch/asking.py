"""Questions about media -> prompts for the LLM, whatever the length of what was said."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Protocol

from omni.errors import InputError
from omni.prompts import INSTRUCTIONS as TALK
from omni.types import Message, Span
from runtime.batch.perceive import Perceived, by_time, moments, near
from runtime.items import read_picture

if TYPE_CHECKING:
    from omni.llm.tokenizer import ChatTokenizer

INSTRUCTIONS = (
    "You answer questions about recordings, pictures and texts. Use only what you are given. "
    "Answer in a few short sentences, in the language of the question."
)
_NOTHING = "Nothing was said or shown."
_NOTE = (
    "This is part {number} of {count}. Note in a few short sentences what it says that helps to "
    "answer this question: {question}"
)


class Reader(Protocol):
    """What a prompt has to fit: a language model."""

    @property
    def max_context(self) -> int:
        """Tokens that it holds."""
        ...

    @property
    def tokenizer(self) -> ChatTokenizer:
        """Its own."""
        ...


Fits = Callable[[Sequence[Message]], bool]
Asking = Generator[list[Message], str, str]
"""Yields prompts, is sent what the LLM wrote, returns the answer."""


def fits(llm: Reader, max_tokens: int) -> Fits:
    """Whether a prompt leaves room for an answer of ``max_tokens``, or a quarter of the context."""
    room = min(max_tokens, llm.max_context // 4)
    return lambda messages: len(llm.tokenizer.encode_chat(messages)) + room <= llm.max_context


def ask(
    perceived: Sequence[Perceived], question: str | None, fits: Fits, instructions: str | None
) -> Asking:
    """One question about media; None: what is said in them is the question.

    A question about a moment ("at 0:40") is answered from what is heard and seen near it. What is
    too long for the LLM is read part by part: of each part it notes what helps to answer, and it
    answers from its notes.
    """
    if question is None:
        words = "\n".join(
            text for one in perceived for text in ([*_heard(one)] or by_time(one.lines()))
        )
        if not words.strip():
            raise InputError("no words were found, so there is no question to answer")
        return (yield _prompt(instructions or TALK, words))
    shown = _pictures(perceived)
    if (shown or not perceived) and fits(prompt := _prompt(instructions or TALK, *shown, question)):
        return (yield prompt)
    at = moments(question)
    blocks = [_block(one, at, len(perceived) > 1) for one in perceived]
    lines = [line for block in blocks for line in block] or [_NOTHING]
    system = instructions or INSTRUCTIONS
    while not fits(prompt := _prompt(system, _about(lines, question))):
        parts = _parts(lines, lambda some: fits(_prompt(system, _about(some, _NOTE + question))))
        notes = []
        for number, part in enumerate(parts, 1):
            task = _NOTE.format(number=number, count=len(parts), question=question)
            notes.append((yield _prompt(system, _about(part, task))))
        if len(parts) == 1 or sum(map(len, notes)) >= sum(map(len, lines)):
            raise InputError(
                "what was said does not fit into the model's context, and its notes are no "
                "shorter; use a larger --context"
            )
        lines = [f"[Note {number}] {note}" for number, note in enumerate(notes, 1)]
    return (yield prompt)


def _pictures(perceived: Sequence[Perceived]) -> list[Span]:
    """Of a record that is nothing but pictures, these as in a conversation; else nothing."""
    if any(one.kind != "image" for one in perceived):
        return []
    seen = (read_picture(span) for one in perceived for span in one.scenes)
    return [span for span in seen if span is not None]


def _heard(one: Perceived) -> list[str]:
    return [one.transcript.text] if one.transcript and one.transcript.text else []


def _block(one: Perceived, at: Sequence[float], several: bool) -> list[str]:
    lines = one.lines()
    if at and any(end > 0 for _, end, _ in lines):
        lines = near(lines, list(at)) or lines
    # Times help with questions about moments, and cost a small model its thread otherwise.
    elif one.kind == "audio" and one.transcript is not None and not _speakers(one):
        text = one.transcript.text
        lines = [(0.0, 0.0, sentence) for sentence in _sentences(one)] if text else []
    said = list(by_time(lines))
    if several and said:
        what = {"audio": "recording", "video": "clip", "image": "picture", "text": "text"}
        said.insert(0, f"The {what[one.kind]} {one.medium.name}:")
    return said


def _speakers(one: Perceived) -> bool:
    return any(part.speaker for part in one.transcript.segments) if one.transcript else False


def _sentences(one: Perceived) -> list[str]:
    assert one.transcript is not None
    return [part.text for part in one.transcript.segments] or [one.transcript.text]


def _about(lines: Sequence[str], question: str) -> str:
    return "\n".join(lines) + f"\n\n{question}"


def _prompt(system: str, *user: str | Span) -> list[Message]:
    return [Message("system", (system,)), Message("user", user)]


def _parts(lines: Sequence[str], fits: Callable[[list[str]], bool]) -> list[list[str]]:
    """``lines`` in as few runs as fit; a line that is too long by itself is cut."""
    parts: list[list[str]] = []
    waiting = list(reversed(lines))
    part: list[str] = []
    size = 1  # lines that are tried at once: doubled while they fit
    while waiting:
        some = list(reversed(waiting[-size:]))
        if fits([*part, *some]):
            part += some
            del waiting[-len(some) :]
            size *= 2
        elif size > 1:
            size = max(1, size // 4)
        elif part:
            parts.append(part)
            part = []
        else:
            line = waiting.pop()
            if len(line) < 80:
                raise InputError("the model's context is too small for a single line of text")
            half = _middle(line)
            waiting += [line[half:], line[:half]]
    return [*parts, part] if part else parts


def _middle(line: str) -> int:
    """Where to cut a line: behind a sentence, a word, or anywhere, a little before its middle."""
    low, high = len(line) // 4, len(line) // 2
    for end in ("\n", ". ", "? ", "! ", "。", " "):
        if (at := line.rfind(end, low, high)) >= 0:
            return at + len(end)
    return high
