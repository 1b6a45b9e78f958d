"""From pieces in the order in which they happened to ids, embeddings and positions.

Positions advance by one per token. With a ``rate`` the rows of a span advance with its clock
instead, so that frame and sound of one moment share their positions whatever number of rows each
takes; what follows goes on after the last of them. This is the time axis of TMRoPE (Xu et al.,
Qwen2.5-Omni, 2025), alone, since the LLM's rotary positions have one axis.

Shape letters: T tokens, E rows of embeddings, D width of the LLM.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import Protocol

import torch
from torch import Tensor

from omni.errors import InputError
from omni.sequence.boundaries import Boundaries
from omni.types import Message, Modality, Span, Tool

IGNORE = -100
"""The label of a token that nothing is learned from (as in transformers)."""
MODALITIES: tuple[Modality, ...] = ("text", "audio", "image", "video")
"""In the order of their numbers; the last two bits of a negative id are one."""
_SLACK = 1e-3
"""Of a position: times that are meant to be equal differ in their last bits."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How media stand in the sequences that an LLM or its adapters were trained on."""

    boundaries: Boundaries = field(default_factory=dict)
    rate: float | None = None
    """Positions per second of media, see `interleave`."""


@dataclass(frozen=True, slots=True)
class Text:
    """Tokens of text; ``learn``: a model is trained to say them."""

    ids: Sequence[int]
    learn: bool = False


Piece = Text | Span


@dataclass(frozen=True, slots=True, eq=False)
class Interleaved:
    """One sequence: what `omni.llm.cache.Feed` takes, and what is to be learned from it.

    ``ids`` (T) are negative where a row of ``embeds`` (E, D) stands, the rows in the same order;
    ``labels`` (T) are `IGNORE` where nothing is learned, and not shifted (as in transformers).
    """

    ids: list[int]
    embeds: Tensor | None
    positions: list[int]
    labels: list[int]

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @property
    def end(self) -> int:
        """The position after the last."""
        return max(self.positions, default=-1) + 1

    @property
    def size(self) -> int:
        """What it takes of a model's context: tokens, or positions where these are more."""
        return max(len(self.ids), self.end)

    @property
    def aligned(self) -> list[int] | None:
        """The positions where they are not 0, 1, 2, …, for `Feed`; else None."""
        plain = self.positions == list(range(len(self.ids)))
        return None if plain else self.positions


class _ChatTokenizer(Protocol):
    @property
    def eos_ids(self) -> frozenset[int]: ...

    def encode_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Tool] = (),
    ) -> list[int]: ...


def clip(frames: Sequence[Span], sound: Sequence[Span] = (), *, seconds: float = 2.0) -> Span:
    """A clip as one span: of every ``seconds`` its frames, then its sound.

    All have ``embeds`` and ``times``. A frame lasts until the next one; its rows and those of the
    sound are spread evenly over their times. After Qwen2.5-Omni's time-interleaving.

    Raises `InputError` when there is nothing, or something lacks embeddings or times.
    """
    parts = [*frames, *sound]
    if not parts:
        raise InputError("the clip is empty; expected at least one frame or sound", param="frames")
    if any(part.embeds is None or part.times is None for part in parts):
        raise InputError("a part of a clip needs embeds and times", param="frames")
    frames = _lasting(frames, seconds)
    zero = min(_begin(part) for part in parts)
    rows: list[tuple[int, int, float, Tensor]] = []  # its chunk, frames first, second, row
    for frame in frames:
        chunk = _chunk(_begin(frame) - zero, seconds)
        rows.extend((chunk, 0, at, row) for at, row in _rows(frame))
    for piece in sound:
        rows.extend((_chunk(at - zero, seconds), 1, at, row) for at, row in _rows(piece))
    rows.sort(key=lambda row: row[:2])
    end = max(part.times[1] for part in [*frames, *sound] if part.times is not None)
    embeds = torch.stack([row for *_, row in rows]) if rows else None
    return Span("video", None, embeds, (zero, end), tuple(at for _, _, at, _ in rows))


def interleave(
    pieces: Iterable[Piece],
    boundaries: Boundaries | None = None,
    *,
    rate: float | None = None,
    hashed: bool = True,
) -> Interleaved:
    """Lay out pieces as one sequence.

    Args:
        pieces: Text and spans; every span has ``embeds`` of the LLM's width. Gradients flow into
            them and into the boundaries' rows.
        boundaries: What opens and closes spans.
        rate: Positions per second of spans that have times; None: one per row.
        hashed: Make the ids of rows from their content and time, so that a KV cache can be compared
            by ids. Not needed in training: ids then only tell the modality.

    Raises `InputError` for a span without embeddings or with another number of times than rows.

    """
    boundaries = boundaries or {}
    ids: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    rows: list[Tensor] = []
    end = 0

    def say(tokens: Sequence[int], learn: bool = False) -> None:
        nonlocal end
        ids.extend(tokens)
        positions.extend(range(end, end + len(tokens)))
        labels.extend(tokens if learn else [IGNORE] * len(tokens))
        end += len(tokens)

    def bound(modality: Modality, edge: int | Tensor) -> None:
        if isinstance(edge, int):
            return say([edge])
        rows.append(edge[None])
        say(_ids(modality, edge[None], [0], hashed))
        labels[-1] = IGNORE

    for piece in pieces:
        if isinstance(piece, Text):
            say(piece.ids, piece.learn)
            continue
        if piece.embeds is None:
            raise InputError(
                f"a span of {piece.modality} has no embeddings; run its adapter, or give its words "
                "as text",
                param="embeds",
            )
        offsets = _offsets(piece, rate)
        boundary = boundaries.get(piece.modality)
        if boundary is not None:
            bound(piece.modality, boundary.start)
        rows.append(piece.embeds)
        ids.extend(_ids(piece.modality, piece.embeds, offsets, hashed))
        positions.extend(end + offset for offset in offsets)
        labels.extend([IGNORE] * len(offsets))
        end = max([end, *(end + offset + 1 for offset in offsets)])
        if boundary is not None:
            bound(piece.modality, boundary.end)
    if labels:
        labels[0] = IGNORE  # nothing comes before it
    return Interleaved(ids, torch.cat(rows) if rows else None, positions, labels)


def _offsets(span: Span, rate: float | None) -> list[int]:
    """Positions of a span's rows from its first on."""
    assert span.embeds is not None
    count = len(span.embeds)
    if span.at is not None and len(span.at) != count:
        raise InputError(
            f"a span has {len(span.at)} times for {count} rows; expected one each", param="at"
        )
    if rate is None or (span.at is None and (span.times is None or len(set(span.times)) == 1)):
        return list(range(count))
    seconds = [at for at, _ in _rows(span)]
    zero = min(seconds, default=0.0)
    return [math.floor((at - zero) * rate + _SLACK) for at in seconds]


def _rows(span: Span) -> list[tuple[float, Tensor]]:
    """The rows of a span and their seconds."""
    assert span.embeds is not None
    at: Sequence[float]
    if span.at is not None:
        at = span.at
    else:
        assert span.times is not None
        begin, end = span.times
        count = len(span.embeds)
        at = [begin + (end - begin) * i / count for i in range(count)]
    return list(zip(at, span.embeds, strict=True))


def _begin(span: Span) -> float:
    assert span.times is not None
    return span.times[0]


def _chunk(second: float, seconds: float) -> int:
    return math.floor(second / seconds + _SLACK)


def _lasting(frames: Sequence[Span], seconds: float) -> list[Span]:
    """Frames in order; one without a duration lasts until the next, the last as its forerunner."""
    frames = sorted(frames, key=_begin)
    begins = [_begin(frame) for frame in frames]
    gaps = [b - a for a, b in pairwise(begins)]
    gaps.append(gaps[-1] if gaps else seconds)
    return [
        frame
        if frame.times is not None and frame.times[1] > begin
        else replace(frame, times=(begin, begin + gap))
        for frame, begin, gap in zip(frames, begins, gaps, strict=True)
    ]


def _ids(modality: Modality, rows: Tensor, offsets: Sequence[int], hashed: bool) -> list[int]:
    """Negative ids whose last two bits are the modality, the others the content."""
    number = MODALITIES.index(modality)
    if not hashed:
        return [-number] * len(rows)
    content = rows.detach().to("cpu", torch.float32).contiguous().numpy()
    ids = []
    for row, offset in zip(content, offsets, strict=True):
        digest = hashlib.blake2b(row.tobytes(), digest_size=8, salt=struct.pack("<q", offset))
        ids.append(-((int.from_bytes(digest.digest(), "little") >> 3 << 2) | number))
    return ids


def modalities(ids: Tensor) -> Tensor:
    """Index into `MODALITIES` of each id, of any shape; boundary tokens with an id are text."""
    return torch.where(ids < 0, -ids & 3, 0)


def bridged(messages: Sequence[Message], embedded: Iterable[Modality], width: int) -> list[Message]:
    """The messages with every span either as embeddings or as words.

    Embeddings where the modality is in ``embedded`` and they have the LLM's ``width``; else the
    words. Raises `InputError` for a span that has embeddings of another width and no words.
    """
    wanted = frozenset(embedded)

    def bridge(part: str | Span) -> str | Span | None:
        if isinstance(part, str):
            return part
        if part.embeds is not None and part.modality in wanted and len(part.embeds):
            if part.embeds.shape[1] == width:
                return replace(part, text=None)
            if not part.text:
                raise InputError(
                    f"a span of {part.modality} has embeddings of width {part.embeds.shape[1]}; "
                    f"the LLM reads {width}: use the adapter that was trained for it",
                    param="embeds",
                )
        return replace(part, embeds=None, at=None) if part.text else None

    return [
        replace(message, parts=tuple(p for p in map(bridge, message.parts) if p is not None))
        for message in messages
    ]


def chat(
    tokenizer: _ChatTokenizer,
    messages: Sequence[Message],
    boundaries: Boundaries | None = None,
    *,
    tools: Sequence[Tool] = (),
    reply: bool = True,
    learn: bool = False,
    rate: float | None = None,
    hashed: bool = True,
) -> Interleaved:
    """A conversation by the model's own chat template; spans as `bridged` leaves them.

    ``reply``: it ends where the assistant is to answer. ``learn``: each of the assistant's messages
    is learned up to its end-of-turn token. Raises `InputError` as `interleave`, and when a template
    does not let the assistant's words be told from the rest.
    """
    ids = tokenizer.encode_chat(messages, add_generation_prompt=reply, tools=tools)
    learned = _learned(tokenizer, messages, tools, ids) if learn else []
    spans = [p for m in messages for p in m.parts if isinstance(p, Span) and p.wordless]
    pieces: list[Piece] = []
    edges = sorted({0, len(ids), *(edge for stretch in learned for edge in stretch)})
    for begin, end in pairwise(edges):
        for is_place, run in groupby(ids[begin:end], lambda i: i < 0):
            if is_place:
                pieces.extend(spans[-1 - place] for place in run)
            else:
                pieces.append(Text(list(run), (begin, end) in learned))
    return interleave(pieces, boundaries, rate=rate, hashed=hashed)


def _learned(
    tokenizer: _ChatTokenizer, messages: Sequence[Message], tools: Sequence[Tool], ids: list[int]
) -> list[tuple[int, int]]:
    """Where in ``ids`` the assistant's messages are, from their first word to their end token."""
    found = []
    for i, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = tokenizer.encode_chat(messages[:i], tools=tools)
        after = tokenizer.encode_chat(messages[: i + 1], add_generation_prompt=False, tools=tools)
        ends = [n for n in range(len(before), len(after)) if after[n] in tokenizer.eos_ids]
        if after != ids[: len(after)] or before != after[: len(before)] or not ends:
            raise InputError(
                "the model's chat template changes earlier messages when later ones come, so that "
                "the assistant's words cannot be told from the rest; train with another template",
                param="messages",
            )
        found.append((len(before), ends[-1] + 1))
    return found
