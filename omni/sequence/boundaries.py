"""What opens and closes a medium in a sequence: tokens of the vocabulary, or trained rows.

Shape letters: D width of the LLM, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from omni.errors import InputError
from omni.types import Modality

TOKENS: dict[Modality, tuple[str, str]] = {
    "audio": ("<|audio_start|>", "<|audio_end|>"),
    "image": ("<|vision_start|>", "<|vision_end|>"),
    "video": ("<|video_start|>", "<|video_end|>"),
}
"""The names of the boundary tokens; vision_start and vision_end are Qwen's own."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """What opens and what closes a span: a token's id, or a trained row (D,) of an adapter."""

    start: int | Tensor
    end: int | Tensor


Boundaries = Mapping[Modality, Boundary]
"""Of each modality; one that is not in it stands without."""


class _Tokenizer(Protocol):
    @property
    def vocabulary(self) -> int: ...

    @property
    def controls(self) -> dict[str, int]: ...

    def encode(self, text: str) -> list[int]: ...


def boundary_tokens(tokenizer: _Tokenizer, rows: int) -> dict[Modality, Boundary]:
    """The boundary tokens of a model whose embedding matrix has ``rows`` rows.

    Most models were trained on none of them: their rows may all be one and the same vector, as they
    are in Qwen2.5, and tell nothing apart while embeddings are frozen. `BoundaryRows` are the way
    then.

    A name that the tokenizer knows keeps its id. The others get rows past the tokenizer's own,
    in the order of `TOKENS`: matrices are padded, and no text ever reaches these rows. Raises
    `InputError` for a model without such rows (SmolLM2); it needs an adapter's own rows.
    """
    names = [name for pair in TOKENS.values() for name in pair]
    ids = {name: tokenizer.vocabulary + i for i, name in enumerate(names)}
    ids |= {name: i for name, i in tokenizer.controls.items() if name in ids}
    if max(ids.values()) >= rows:
        raise InputError(
            f"the model has no spare rows for boundary tokens: its tokenizer takes "
            f"{tokenizer.vocabulary} of {rows}; give trained rows with the adapter "
            "(BoundaryRows), or leave boundaries out",
            param="boundaries",
        )
    return {m: Boundary(ids[start], ids[end]) for m, (start, end) in TOKENS.items()}


class BoundaryRows(nn.ParameterDict):
    """Trained rows (2, D), start and end, by modality: they come with the adapters of an LLM.

    The state has a tensor for each modality, by its name.
    """

    @classmethod
    def begin(
        cls, modalities: Iterable[Modality], tokenizer: _Tokenizer, embedding_VD: Tensor
    ) -> BoundaryRows:
        """Before training: the means of the LLM's rows for ``<audio>``, ``</audio>`` and so on."""

        def mean(text: str) -> Tensor:
            return embedding_VD[tokenizer.encode(text)].detach().float().mean(0)

        return cls({m: torch.stack([mean(f"<{m}>"), mean(f"</{m}>")]) for m in modalities})

    @property
    def boundaries(self) -> dict[Modality, Boundary]:
        """For `interleave`; gradients flow back into the rows."""
        return {m: Boundary(self[m][0], self[m][1]) for m in TOKENS if m in self}
