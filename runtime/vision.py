"""What pictures show: captions, answers with their probability, and which sentences fit.

How well a sentence fits a picture is read off two heads. The matching one is the LLM: by how much
it finds the sentence likelier behind this picture than behind others (pointwise mutual information,
in nats). The contrastive one is the cosine of the two in the space of sentences, as the search has
it. A logistic curve (Platt, 1999) makes one probability of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from omni.data.describe import COLOURS
from omni.data.pictures import draw
from omni.errors import InputError
from omni.llm.cache import Cache, Feed
from omni.prompts import INSTRUCTIONS
from omni.types import ImageFrame, Message, Pixels, Span
from runtime.assembly import Parts
from runtime.items import picture_note, read_picture
from runtime.prompt import Reading
from runtime.search import picture_encoder

DESCRIBE = "Describe the picture."
YES_OR_NO = (("Yes", "yes"), ("No", "no"))
MOST = 8.0
"""Nats that say all: a long sentence with one odd word may have many."""
LABELS = (
    "something that could not be recognised with confidence; mostly gray",
    "a coffee mug (80% sure); mostly white",
    "a dog, most likely a Golden Retriever (80% sure); mostly brown",
)
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


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture, and what the LLM reads of it."""

    frame: ImageFrame
    span: Span | None


class Vision:
    """Looks at pictures."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """The logistic curve of `match`, and how many tokens an answer may have.

        Its ``information`` and ``cosine`` are by how much the log odds grow with each, ``odds`` are
        the log odds where both are 0.
        """

        information: float = 0.3
        cosine: float = 7.4
        odds: float = -3.75
        most: int = 80

    def __init__(self, parts: Parts, config: Config | None = None, run: Run = here) -> None:
        """Every pass of a model goes through ``run``, so that others have their turn between."""
        self._run = run
        self.config = config or self.Config()
        self._parts, self._llm = parts, parts.llm
        self._reading = Reading.of(parts)
        self._kept: dict[bool, tuple[tuple[str, ...], list[float]]] = {}

    def see(self, frame: ImageFrame) -> Seen:
        """Look at a picture."""
        return Seen(frame, read_picture(self._run(lambda: self._parts.sight.encode([frame]))[0]))

    def caption(self, seen: Seen) -> Answer:
        """The likeliest description."""
        return self.answer(seen, DESCRIBE)

    def answer(self, seen: Seen, question: str) -> Answer:
        """The likeliest answer to a question. Raises `InputError` for one that is too long."""
        cache = self._llm.new_cache()
        logits_V = self._read(cache, seen.span, question)
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

    def match(self, seen: Seen, sentences: Sequence[str]) -> list[float]:
        """How probable it is that each sentence is true of a picture, 0 to 1."""
        config, found = self.config, []
        for information, cosine in self.evidence(seen, sentences):
            odds = config.odds + config.information * information + config.cosine * cosine
            found.append(1 / (1 + math.exp(-odds)))
        return found

    def evidence(self, seen: Seen, sentences: Sequence[str]) -> list[tuple[float, float]]:
        """Mutual information, in nats from -8 to 8, and cosine of a picture and each sentence."""
        encoder = picture_encoder()
        meaning_W = encoder.items([seen.frame], [""]).meaning[0]
        cosines = (encoder.words(sentences) @ meaning_W).tolist()
        if seen.span is None:
            return [(0.0, cosine) for cosine in cosines]
        behind = self._likelihoods(seen.span, sentences)
        usual = self._usual(seen.span.embeds is not None, tuple(sentences))
        return [
            (max(-MOST, min(MOST, b - u)), cosine)
            for b, u, cosine in zip(behind, usual, cosines, strict=True)
        ]

    def _usual(self, adapted: bool, sentences: tuple[str, ...]) -> list[float]:
        """Mean log-likelihoods, in nats, behind other pictures that are read in the same way.

        That is by the adapter, or by labels. Many pictures are asked about the same sentences, so
        the last of each are kept.
        """
        kept = self._kept.get(adapted)
        if kept is None or kept[0] != sentences:
            if adapted:
                others = [self.see(ImageFrame(picture)).span for picture in _shapes()]
            else:
                others = [Span("image", picture_note(label)) for label in LABELS]
            found = [self._likelihoods(other, sentences) for other in others]
            means = [sum(each) / len(each) for each in zip(*found, strict=True)]
            kept = self._kept[adapted] = sentences, means
        return kept[1]

    def _likelihoods(self, seen: Span | None, sentences: Sequence[str]) -> list[float]:
        """Log-likelihood of each sentence as the description, in nats."""
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
            found.append(total)
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


@cache
def _shapes() -> tuple[Pixels, ...]:
    """Three plain pictures."""
    found = []
    for shape, colour, ground, place in (
        ("circle", "red", "white", (72, 72)),
        ("square", "blue", "green", (5, 140)),
        ("star", "black", "yellow", (140, 5)),
    ):
        picture = Image.new("RGB", (224, 224), COLOURS[ground])
        thing = draw(shape, COLOURS[colour], Random(0)).resize((80, 80))
        picture.paste(thing, place, thing)
        found.append(np.asarray(picture))
    return tuple(found)
