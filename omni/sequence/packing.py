"""Several sequences in one row of a training batch, each blind to the others.

Shape letters: T tokens, E rows of embeddings, D width of the LLM, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.errors import InputError
from omni.sequence.interleaved import IGNORE, Interleaved, modalities

PADDING = -1
"""The segment of what only fills up a row."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Several sequences in a row: ids, positions, segment, labels (T,), embeds (E, D).

    ``segment`` numbers the sequences from 0, in order.
    """

    ids_T: Tensor
    embeds_ED: Tensor | None
    positions_T: Tensor
    segment_T: Tensor
    labels_T: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows of one length, the shorter ones padded at their end (segment `PADDING`).

    ``embeds`` (E, D) are those of all rows, in the order of the negative ids.
    """

    ids_BT: Tensor
    embeds_ED: Tensor | None
    positions_BT: Tensor
    segment_BT: Tensor
    labels_BT: Tensor

    @property
    def modality_BT(self) -> Tensor:
        """For `omni.llm.experts.set_modalities`: indices of `MODALITIES`, -1 for padding."""
        return modalities(self.ids_BT).masked_fill(self.segment_BT == PADDING, -1)


def pack(samples: Sequence[Interleaved], length: int) -> list[Row]:
    """Rows of at most ``length`` tokens, each sample whole: first fit, the longest first.

    Positions begin at 0 in every sample. Raises `InputError` for a sample that is longer.
    """
    rows: list[list[Interleaved]] = []
    room: list[int] = []
    for sample in sorted(samples, key=len, reverse=True):
        if len(sample) > length:
            raise InputError(
                f"a sample has {len(sample)} tokens, more than the row's {length}; split it, or "
                "choose longer rows",
                param="length",
            )
        index = next((i for i, free in enumerate(room) if free >= len(sample)), len(rows))
        if index == len(rows):
            rows.append([])
            room.append(length)
        rows[index].append(sample)
        room[index] -= len(sample)
    return [_row(samples) for samples in rows]


def _row(samples: Sequence[Interleaved]) -> Row:
    segment = torch.arange(len(samples)).repeat_interleave(torch.tensor([len(s) for s in samples]))
    return Row(
        torch.tensor([i for s in samples for i in s.ids]),
        _joined([s.embeds for s in samples]),
        torch.tensor([p for s in samples for p in s.positions]),
        segment,
        torch.tensor([i for s in samples for i in s.labels]),
    )


def _joined(embeds: Sequence[Tensor | None]) -> Tensor | None:
    given = [e for e in embeds if e is not None]
    return torch.cat(given) if given else None


def unpack(row: Row) -> list[Interleaved]:
    """The samples of a row, in its order; the inverse of `pack`."""
    parts = [split(row.segment_T, v) for v in (row.ids_T, row.positions_T, row.labels_T)]
    counts = [int((ids < 0).sum()) for ids in parts[0]]
    embeds: Sequence[Tensor | None] = [None] * len(counts)
    if row.embeds_ED is not None:
        embeds = torch.split(row.embeds_ED, counts)
    return [
        Interleaved(ids.tolist(), e if count else None, positions.tolist(), labels.tolist())
        for ids, positions, labels, e, count in zip(*parts, embeds, counts, strict=True)
    ]


def split(segment_T: Tensor, values_T: Tensor) -> list[Tensor]:
    """What belongs to each sequence of a row, of values (T, …) such as logits."""
    count = int(segment_T.max()) + 1
    return [values_T[segment_T == i] for i in range(count)]


def collate(rows: Sequence[Row]) -> Batch:
    """Rows as one batch."""
    length = max(len(row.ids_T) for row in rows)

    def padded(values: Sequence[Tensor], fill: int) -> Tensor:
        return torch.stack([F.pad(v, (0, length - len(v)), value=fill) for v in values])

    return Batch(
        padded([row.ids_T for row in rows], 0),
        _joined([row.embeds_ED for row in rows]),
        padded([row.positions_T for row in rows], 0),
        padded([row.segment_T for row in rows], PADDING),
        padded([row.labels_T for row in rows], IGNORE),
    )


def mask(segment_BT: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Who looks at whom, (B, 1, T, T): at what came before in the same sequence, and oneself.

    Bool, True to look, for transformers' "sdpa" alone; with a ``dtype`` additive, 0 or its lowest
    value, for "sdpa" and "eager". A mask of four axes is taken as it is by transformers; without it
    transformers would guess the sequences from gaps in the positions, which time-aligned ones have.
    "flash_attention_2" and "flex_attention" take no such mask.
    """
    same = segment_BT[:, None, :, None] == segment_BT[:, None, None, :]
    looks = same.tril()  # by order, not position: rows of one moment see those that came before
    if dtype is None:
        return looks
    return torch.zeros_like(looks, dtype=dtype).masked_fill_(~looks, torch.finfo(dtype).min)


def embed(ids: Tensor, embeds_ED: Tensor | None, embedding: Callable[[Tensor], Tensor]) -> Tensor:
    """What the LLM reads, (…, D) for ids of any shape: the rows in their places.

    ``embedding`` is ``model.get_input_embeddings()``.
    """
    x = embedding(ids.clamp(min=0))
    places = ids < 0
    if embeds_ED is None:
        return x
    return x.masked_scatter(places[..., None], embeds_ED.to(x.device, x.dtype))


def inputs(batch: Batch, embedding: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The arguments of a causal LM of transformers, its labels included.

    The mask is additive, in the dtype of the embeddings: "sdpa" and "eager" both take it.
    """
    x_BTD = embed(batch.ids_BT, batch.embeds_ED, embedding)
    return {
        "inputs_embeds": x_BTD,
        "position_ids": batch.positions_BT,
        "attention_mask": mask(batch.segment_BT, x_BTD.dtype),
        "labels": batch.labels_BT,
    }
