"""What pictures show: captions, answers with their probability, and which sentences fit.

A sentence fits a picture as far as the LLM finds it likelier behind this picture than behind none.
That is pointwise mutual information, in nats a token, made a probability by a logistic curve
(Platt, 1999) that was fitted to pictures and captions which training had not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from omni.errors import InputError
from omni.llm.cache import Cache, Feed
from omni.prompts import INSTRUCTIONS
from omni.types import ImageFrame, Message, Span
from runtime.assembly import Parts
from runtime.items import read_picture
from runtime.prompt import Reading

DESCRIBE = "Describe the picture."
YES_OR_NO = (("Yes", "yes"), ("No", "no"))
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """``probability``: of yes or no, that it is the one and not the other; else of these words."""

    text: str
    probability: float


class Run(Protocol):
    """Runs a function where the models may be used, and gives what it returns."""

    def __call__(self, function: Callable[[], T]) -> T:
        """Wait for it."""
        ...


def here(function: Callable[[], T]) -> T:
    """`Run` it in this thread."""
    return function()


class Vision:
    """Looks at pictures."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """The logistic curve of `match`, and how many tokens an answer may have."""

        slope: float = 4.0
        middle: float = 0.5
        most: int = 80

    def __init__(self, parts: Parts, config: Config | None = None, run: Run = here) -> None:
        """Every pass of a model goes through ``run``, so that others have their turn between."""
        self._run = run
        self.config = config or self.Config()
        self._parts, self._llm = parts, parts.llm
        self._reading = Reading.of(parts)

    def see(self, frame: ImageFrame) -> Span | None:
        """What the LLM reads of a picture."""
        return read_picture(self._run(lambda: self._parts.sight.encode([frame]))[0])

    def caption(self, seen: Span | None) -> Answer:
        """The likeliest description."""
        return self.answer(seen, DESCRIBE)

    def answer(self, seen: Span | None, question: str) -> Answer:
        """The likeliest answer to a question. Raises `InputError` for one that is too long."""
        cache = self._llm.new_cache()
        logits_V = self._read(cache, seen, question)
        odds = logits_V.softmax(-1)
        tokens: list[int] = []
        likely = 0.0
        while len(tokens) < self.config.most:
            token = int(logits_V.argmax())
            likely += float(logits_V.log_softmax(-1)[token])
            if token in self._llm.tokenizer.eos_ids:
                break
            tokens.append(token)
            logits_V = self._pass(Feed(cache, [token]))[0]
        spelled = b"".join(self._llm.tokenizer.token_bytes(t) for t in tokens)
        text = spelled.decode(errors="replace").strip()
        yes, no = (sum(float(odds[i]) for i in self._firsts(words)) for words in YES_OR_NO)
        if text.lower().startswith(("yes", "no")) and yes + no > 0.5:
            return Answer(text, max(yes, no) / (yes + no))
        return Answer(text, math.exp(likely))

    def match(self, seen: Span | None, sentences: Sequence[str]) -> list[float]:
        """How probable it is that each sentence is true of a picture, 0 to 1."""
        with_picture = self._likelihoods(seen, sentences)
        without = self._likelihoods(None, sentences)
        config = self.config
        return [
            1 / (1 + math.exp(-config.slope * (a - b - config.middle)))
            for a, b in zip(with_picture, without, strict=True)
        ]

    def _likelihoods(self, seen: Span | None, sentences: Sequence[str]) -> list[float]:
        """Of each sentence as the description, in nats a token."""
        cache = self._llm.new_cache()
        first_V = self._read(cache, seen, DESCRIBE).log_softmax(-1)
        length = cache.length
        found = []
        for sentence in sentences:
            tokens = self._llm.tokenizer.encode(sentence)
            rows = self._pass(Feed(cache, tokens), every=True).log_softmax(-1)
            cache.crop(length)
            total = float(first_V[tokens[0]])
            total += sum(float(row[t]) for row, t in zip(rows, tokens[1:], strict=False))
            found.append(total / len(tokens))
        return found

    def _read(self, cache: Cache, seen: Span | None, question: str) -> Tensor:
        """Read picture and question; logits (V,) of the answer's first token."""
        parts = (question,) if seen is None else (seen, question)
        messages = [Message("system", (INSTRUCTIONS,)), Message("user", parts)]
        laid = self._reading.prompt(self._reading.bridge(messages))
        if laid.size > self._llm.max_context - self.config.most:
            raise InputError(
                f"the question takes {laid.size} tokens; ask it in fewer words", param="question"
            )
        return self._pass(Feed(cache, laid.ids, laid.embeds, laid.aligned))[0]

    def _pass(self, feed: Feed, every: bool = False) -> Tensor:
        """Logits after the last token (1, V), or after every one (T, V)."""
        return self._run(lambda: self._llm.run([feed], all_logits=every)).logits

    def _firsts(self, words: Sequence[str]) -> set[int]:
        return {self._llm.tokenizer.encode(word)[0] for word in words}
