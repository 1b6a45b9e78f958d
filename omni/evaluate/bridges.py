"""The assistant by each bridge: how its parts read a medium, and what its LLM answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omni.errors import InputError, WeightsError
from omni.types import (
    AudioChunk,
    ImageFrame,
    Message,
    Modality,
    Pixels,
    Sampling,
    Span,
    Transcript,
)

if TYPE_CHECKING:
    from torch import Tensor

    from omni.llm.cache import Cache
    from omni.llm.model import LanguageModel
    from omni.sequence import Interleaved
    from runtime.assembly import Parts

TOGETHER = 8
"""Answers that are decoded side by side."""

Prompt = Callable[[], Sequence[Message]]
"""Makes a prompt; what it raises is that sample's failure."""


@dataclass(frozen=True)
class Bridge:
    """An assistant whose media reach the LLM in one way.

    ``covers`` are the modalities in which it differs from the text bridge; "text": its LLM does.
    """

    name: str
    parts: Parts
    covers: frozenset[Modality]

    @property
    def llm(self) -> LanguageModel:
        """Its LLM."""
        return self.parts.llm

    def hear(self, chunk: AudioChunk) -> Transcript:
        """What is heard in one utterance at 16 kHz."""
        stream = self.parts.hearing.stream()
        stream.feed(chunk)
        return stream.transcribe()

    def see(self, pixels: Pixels) -> Span | None:
        """What the LLM reads of a picture."""
        from runtime.items import read_picture

        return read_picture(self.parts.sight.encode([ImageFrame(pixels)])[0])

    def prompt(self, messages: Sequence[Message]) -> Interleaved:
        """What the LLM reads of a conversation, as in the runtime."""
        from runtime.prompt import Reading

        reading = Reading.of(self.parts)
        return reading.prompt(reading.bridge(messages))

    def answer(
        self, prompts: Sequence[Prompt], most: int, done: Callable[[], None] = lambda: None
    ) -> list[str | Exception]:
        """The likeliest answer of up to ``most`` tokens to each prompt, or why there is none.

        ``done`` is called after each.
        """
        from omni.llm.generate import BatchGenerator, Finished

        config = BatchGenerator.Config(prefill_chunk=512)
        generator = BatchGenerator(self.llm, config)
        sampling = Sampling(temperature=0, max_tokens=most)
        answers: list[str | Exception] = [""] * len(prompts)
        said: dict[str, bytes] = {}
        waiting = list(range(len(prompts)))[::-1]
        while waiting or said:
            while waiting and len(said) < TOGETHER:
                number = waiting.pop()
                try:
                    read = self.prompt(prompts[number]())
                    generator.add(
                        str(number),
                        read.ids,
                        self.llm.new_cache(),
                        sampling,
                        embeds=read.embeds,
                        positions=read.aligned,
                    )
                    said[str(number)] = b""
                except Exception as error:  # one bad sample must not end the run
                    answers[number] = error
                    done()
            try:
                events = generator.step()
            except Exception as error:  # of some of those that are answered now
                events = []
                for key in said:
                    answers[int(key)] = error
                    done()
                said.clear()
                generator = BatchGenerator(self.llm, config)
            for key, event in events:
                if isinstance(event, Finished):
                    answers[int(key)] = said.pop(key).decode(errors="replace").strip()
                    done()
                else:
                    said[key] += self.llm.tokenizer.token_bytes(event.token)
        return answers

    def choose(self, messages: Sequence[Message], choices: Sequence[str]) -> str:
        """The likeliest of ``choices`` as the answer, by the mean over its bytes.

        The choices are not in the prompt: a small model likes some letters more than others,
        whatever they stand for.
        """
        from omni.llm.cache import Feed

        cache = self.llm.new_cache()
        first_V = self.read(messages, cache).log_softmax(-1)
        length = cache.length

        def likelihood(choice: str) -> float:
            tokens = self.llm.tokenizer.encode(choice)
            total = float(first_V[tokens[0]])
            if len(tokens) > 1:
                feed = Feed(cache, tokens[:-1])
                rows = self.llm.run([feed], all_logits=True).logits.log_softmax(-1)
                total += sum(float(row[t]) for row, t in zip(rows, tokens[1:], strict=True))
                cache.crop(length)
            return total / len(choice.encode())

        return max(choices, key=likelihood)

    def read(self, messages: Sequence[Message], cache: Cache | None = None) -> Tensor:
        """Read a prompt, up to the logits (V,) of the answer's first token."""
        from omni.llm.cache import Feed

        read = self.prompt(messages)
        feed = Feed(cache or self.llm.new_cache(), read.ids, read.embeds, read.aligned)
        return self.llm.run([feed]).logits[0]


def load(
    model: str, which: str, *, ear: Path | None = None, threads: int | None = None
) -> tuple[list[Bridge], list[str]]:
    """The bridges ``which``: "text", "adapter", or "all"; and why others are left out.

    ``ear`` is the file of an audio adapter.

    Raises `WeightsError` where weights cannot be had, `InputError` where no bridge is left.
    """
    from omni.weights import ensure_all
    from runtime.assembly import Assembly

    threads = threads or min(4, os.cpu_count() or 1)
    assembly = Assembly(model, threads=threads)
    ensure_all(assembly.weights)
    parts = assembly.build()
    found: list[Bridge] = []
    missing: list[str] = []
    if which != "adapter":
        found.append(_by_words(parts, threads))
    if which != "text":
        adapters, missing = _by_adapters(parts, ear, threads)
        found += adapters
    if not found:
        raise InputError(f"there are no adapters to measure: {'; '.join(missing)}", param="bridge")
    return found, missing


def _by_words(parts: Parts, threads: int) -> Bridge:
    """Whisper's decoder, and EfficientNet's label and colours."""
    from encoders.audio import WhisperEncoder
    from encoders.image import EfficientNetEncoder
    from omni.weights import ensure

    config = WhisperEncoder.Config(threads=threads)
    hearing = WhisperEncoder(ensure("whisper-base"), config)
    sight = EfficientNetEncoder(ensure("efficientnet-lite2"))
    parts = replace(parts, hearing=hearing, sight=sight, layout=None)
    return Bridge("text", parts, frozenset(("text", "audio", "image")))


def _by_adapters(parts: Parts, ear: Path | None, threads: int) -> tuple[list[Bridge], list[str]]:
    """Those adapters whose weights are there, as one bridge; and why others are not."""
    from encoders.audio import WhisperEncoder
    from encoders.ear import Ear
    from encoders.image import EfficientNetEncoder
    from encoders.scene import SceneEncoder
    from omni.weights import ensure

    covers: set[Modality] = set()
    missing = []
    if ear is None:
        missing.append("the audio adapter: none ships; name a file with --ear")
    else:
        config = WhisperEncoder.Config(threads=threads)
        hearing = WhisperEncoder(ensure("whisper-base"), config, Ear(ear))
        parts = replace(parts, hearing=hearing)
        covers.add("audio")
    try:
        network = EfficientNetEncoder(ensure("efficientnet-lite2"))
        parts = replace(parts, sight=SceneEncoder(network, parts.llm.embed))
        covers.add("image")
    except WeightsError as error:
        missing.append(f"the image adapter: {error}")
    return [Bridge("adapter", parts, frozenset(covers))] if covers else [], missing
