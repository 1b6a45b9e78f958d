"""One interleaved sequence of text, sound, pictures and clips, for training and for the runtime.

A sequence is a list of pieces in the order in which they happened: `Text` and `Span`s with
embeddings. `interleave` lays them out: text as its ids, a span as its boundary tokens with a
negative id for each row of embeddings between them. `pack` puts several sequences into one row of
a training batch, each blind to the others.
"""

from omni.sequence.boundaries import (
    TOKENS,
    Boundaries,
    Boundary,
    BoundaryRows,
    boundary_tokens,
)
from omni.sequence.interleaved import (
    IGNORE,
    MODALITIES,
    Interleaved,
    Layout,
    Piece,
    Text,
    bridged,
    chat,
    clip,
    interleave,
    modalities,
)
from omni.sequence.packing import (
    PADDING,
    Batch,
    Row,
    collate,
    embed,
    inputs,
    mask,
    pack,
    split,
    unpack,
)

__all__ = [
    "IGNORE",
    "MODALITIES",
    "PADDING",
    "TOKENS",
    "Batch",
    "Boundaries",
    "Boundary",
    "BoundaryRows",
    "Interleaved",
    "Layout",
    "Piece",
    "Row",
    "Text",
    "boundary_tokens",
    "bridged",
    "chat",
    "clip",
    "collate",
    "embed",
    "inputs",
    "interleave",
    "mask",
    "modalities",
    "pack",
    "split",
    "unpack",
]
