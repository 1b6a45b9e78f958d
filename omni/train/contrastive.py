"""Image-text contrastive loss and a matching head, beside the language loss.

Sources: InfoNCE with a learned temperature as in CLIP (Radford et al., 2021); matching with hard
negatives that the contrastive similarities choose within the batch, as in ALBEF (Li et al., 2021).

Shape letters: P pairs, C width of the shared space, D width of the LLM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni.train.config import config, positive


class Contrastive(nn.Module):
    """Projections into a shared space, its temperature, and the head that says match or not."""

    @config
    class Config:
        """``weight`` of the contrastive and ``matching`` of the matching loss; 0 leaves one out."""

        width: int = 128
        weight: float = 0.1
        matching: float = 0.1
        temperature: float = 0.07

        def __post_init__(self) -> None:
            """Raise `InputError` for numbers out of range."""
            positive(self, "width", "temperature")

        def build(self, width: int) -> Contrastive:
            """For an LLM of this width."""
            return Contrastive(self, width)

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.config = config
        self.image = nn.Linear(width, config.width, bias=False)
        self.text = nn.Linear(width, config.width, bias=False)
        # A vector of one, because a scalar cannot be sharded.
        self.log_scale = nn.Parameter(torch.tensor([-math.log(config.temperature)]))
        self.match = nn.Linear(width, 2)

    def similarity(self, images_PD: Tensor, texts_PD: Tensor) -> Tensor:
        """Scaled cosine similarities (P, P): each image with each text."""
        images_PC = F.normalize(self.image(images_PD), dim=-1)
        texts_PC = F.normalize(self.text(texts_PD), dim=-1)
        # CLIP's bound, against a temperature that runs away.
        scale: Tensor = self.log_scale.clamp(max=math.log(100)).exp()
        return scale * images_PC @ texts_PC.T


def info_nce(similarity_PP: Tensor, same_PP: Tensor) -> Tensor:
    """Symmetric InfoNCE; other pairs with the ``same`` text are no negatives."""
    twin = same_PP & ~torch.eye(len(same_PP), dtype=torch.bool, device=same_PP.device)
    logits = similarity_PP.float().masked_fill(twin, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@torch.no_grad()
def hard_negatives(similarity_PP: Tensor, same_PP: Tensor) -> list[tuple[int, int]]:
    """For each image a wrong text and for each text a wrong image, likelier when more alike.

    (image, text) indices; an image all of whose texts are the same has no negative.
    """
    found = []
    logits = similarity_PP.float().masked_fill(same_PP, -torch.inf)
    for scores, swap in ((logits, False), (logits.T, True)):
        usable = scores.isfinite().any(1).nonzero()[:, 0]
        if len(usable):
            drawn = torch.multinomial(scores[usable].softmax(-1), 1)[:, 0]
            pairs = zip(usable.tolist(), drawn.tolist(), strict=True)
            found += [(b, a) if swap else (a, b) for a, b in pairs]
    return found


def same_texts(texts: Sequence[tuple[int, ...]]) -> Tensor:
    """Which pairs (P, P) have one and the same text."""
    number: dict[tuple[int, ...], int] = {}
    ids = torch.tensor([number.setdefault(text, len(number)) for text in texts])
    return ids[:, None] == ids
