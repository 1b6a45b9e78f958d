"""Samples of `omni.data` as examples: chat template, media by the feature cache, preferences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch

from omni.adapters.units import Spelling
from omni.data.sample import Medium, Sample
from omni.data.shards import read_index, read_shards
from omni.errors import InputError, MediaError, OmniError
from omni.llm.model import find
from omni.llm.tokenizer import ChatTokenizer
from omni.sequence import IGNORE, Text, chat
from omni.train.config import config
from omni.train.data import Clip, Example, Item, Media, Pair, Position
from omni.train.features import FeatureCache
from omni.train.model import OmniModel
from omni.types import Message, Span
from omni.weights.store import home


class Shards:
    """A directory of `omni data` as the data of one modality."""

    @config
    class Config:
        """``directory`` to learn from and ``held_out`` to measure on, made by `omni data`.

        ``encoders`` by the kind of medium, as "module:factory"; a video takes those of pictures and
        of sound, with a frame every ``every`` seconds. ``cache`` of their features; None: under
        Omni's home. ``transcript`` is the field of a sample's ``meta`` with the words of its
        medium, for the bridges' own losses; with ``units``, these are spelled in such tokens of the
        LLM alone. Without ``preferences`` a worse answer that comes with a sample is not read, and
        without ``text`` nothing but the media is, which is enough for `BridgeLoss`.
        ``instructions`` stand before every conversation.
        """

        directory: str
        held_out: str
        encoders: Mapping[str, str] = field(default_factory=dict)
        cache: str | None = None
        transcript: str = "transcript"
        units: tuple[int, ...] = ()
        every: float = 1.0
        preferences: bool = True
        text: bool = True
        instructions: str = ""

        def build(self, model: OmniModel.Config, seed: int) -> Shards:
            """Open both directories. Raises `InputError` when one is missing or damaged."""
            directory = find(model.llm)
            return Shards(self, ChatTokenizer(directory), seed, directory)

    def __init__(
        self, config: Config, tokenizer: ChatTokenizer, seed: int, directory: Path | None = None
    ) -> None:
        """``directory`` of the LLM is only needed for ``config.units``."""
        self._config, self._tokenizer, self._seed = config, tokenizer, seed
        self._spell = tokenizer.encode
        if config.units and directory is not None:
            self._spell = Spelling(directory, config.units).encode
        self._directory = Path(config.directory).expanduser()
        self._held_out = Path(config.held_out).expanduser()
        if self._directory.resolve() == self._held_out.resolve():
            raise InputError(
                f"{self._held_out} is both learned from and held out; use two directories",
                param="held_out",
            )
        self.size = read_index(self._directory).samples
        cache = Path(config.cache).expanduser() if config.cache else home() / "features"
        self._caches = {
            kind: FeatureCache(cache, name) for kind, name in sorted(config.encoders.items())
        }

    def read(self, position: Position | None) -> Iterator[tuple[Item | OmniError, Position]]:
        """Epoch after epoch, each in its own order. A damaged shard is raised, not counted."""
        at = position or {"epoch": 0, "row": 0}
        epoch, row = at["epoch"], at["row"]
        while True:
            # Bad rows count in the stage, with the other bad samples.
            reader = read_shards(
                self._directory, seed=self._seed, epoch=epoch, skip=row, bad=self.size
            )
            bad = 0
            for sample in reader:
                here = {"epoch": epoch, "row": reader.position}
                for _ in range(reader.bad - bad):
                    yield InputError(f"{self._directory} holds a row that is no sample"), here
                bad = reader.bad
                yield self._try(sample), here
            epoch, row = epoch + 1, 0

    def held_out(self, count: int) -> Sequence[Item]:
        """The first good ones of the held-out directory, in an order that does not change."""
        items = (self._try(sample) for sample in read_shards(self._held_out))
        return list(islice((i for i in items if not isinstance(i, OmniError)), count))

    def item(self, sample: Sample) -> Item:
        """One sample. Raises `InputError` or `MediaError` for one that makes no sense."""
        words = str(sample.meta.get(self._config.transcript) or "")
        tokens = tuple(self._spell(words)) if words else ()
        media = [
            self._clip(medium)
            if medium.kind == "video"
            else self._encode(medium, tokens, facts=sample.meta)
            for medium in sample.media
        ]
        if not self._config.text:
            return Example(tuple(media))
        chosen = self._example(sample, media)
        if sample.rejected is None or not self._config.preferences:
            return chosen
        worse = replace(sample.messages[-1], parts=(sample.rejected,))
        other = replace(sample, messages=(*sample.messages[:-1], worse))
        return Pair(_last_learned(chosen), _last_learned(self._example(other, media)))

    def _encode(
        self,
        medium: Medium,
        words: tuple[int, ...] = (),
        times: tuple[float, float] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Media:
        if medium.kind not in self._caches:
            raise InputError(
                f"there is a sample with {medium.kind}, and no encoder is named for it; name one "
                "in encoders",
                param="encoders",
            )
        features = self._caches[medium.kind].get(medium)
        if not len(features):
            raise MediaError(f"a {medium.format} {medium.kind} is empty")
        return Media(medium.kind, features, words, times, facts or {})

    def _clip(self, medium: Medium) -> Clip:
        """A video is what the encoders of pictures and of sound make of it."""
        from encoders.video import read_video

        video = read_video(medium.data, every=self._config.every)
        ends = [*(frame.time for frame in video.frames[1:]), video.seconds]
        frames = [
            self._encode(Medium.image(frame.pixels), times=(frame.time, max(end, frame.time)))
            for frame, end in zip(video.frames, ends, strict=True)
        ]
        sound = []
        if video.audio is not None:
            recording = Medium.audio(video.audio.pcm, video.audio.sample_rate)
            sound.append(self._encode(recording, times=(0.0, video.audio.seconds)))
        return Clip(tuple(frames), tuple(sound))

    def _try(self, sample: Sample) -> Item | OmniError:
        try:
            return self.item(sample)
        except (InputError, MediaError) as error:
            return error

    def _example(self, sample: Sample, media: Sequence[Media | Clip]) -> Example:
        # One row stands for each medium until the bridges know how many it takes.
        place = torch.zeros(1, 1)
        order: list[Media | Clip] = []
        messages = []
        if self._config.instructions:
            messages.append(Message("system", (self._config.instructions,)))
        for message in sample.messages:
            parts: list[str | Span] = []
            for part in message.parts:
                if isinstance(part, int):
                    order.append(media[part])
                    # Of which modality the place is makes no difference: it is taken out again.
                    parts.append(Span("image", embeds=place))
                else:
                    parts.append(part)
            messages.append(Message(message.role, tuple(parts)))
        laid = chat(self._tokenizer, messages, reply=False, learn=True, hashed=False)
        supply = iter(order)
        pieces: list[Text | Media | Clip] = []
        marked = [
            (i, i < 0, label != IGNORE) for i, label in zip(laid.ids, laid.labels, strict=True)
        ]
        for (is_medium, learn), run in groupby(marked, lambda m: m[1:]):
            ids = tuple(i for i, _, _ in run)
            pieces += [next(supply) for _ in ids] if is_medium else [Text(ids, learn)]
        return Example(tuple(pieces))


def _last_learned(example: Example) -> Example:
    """Only the last answer counts in a preference."""
    last = max(i for i, p in enumerate(example.pieces) if isinstance(p, Text) and p.learn)
    return Example(
        tuple(
            replace(p, learn=False) if isinstance(p, Text) and i != last else p
            for i, p in enumerate(example.pieces)
        )
    )
