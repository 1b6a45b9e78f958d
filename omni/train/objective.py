"""What a stage minimises: the language loss with what stands beside it, or preferences (DPO)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.sequence import PADDING, Text
from omni.train.bridges import Term
from omni.train.config import config, positive
from omni.train.contrastive import Contrastive, hard_negatives, info_nce, same_texts
from omni.train.data import Example, Item, Media, Pair
from omni.train.model import OmniModel


@dataclass(slots=True)
class Loss:
    """Of one micro-batch: ``total`` is a sum over its units, ``beside`` holds means.

    ``seen`` are figures for the log.
    """

    total: Tensor
    beside: dict[str, Term] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)


@config
class Language:
    """Cross entropy of the learned tokens; contrast and matching where the model has a head."""

    needs_reference = False

    def loss(
        self, model: OmniModel, items: Sequence[Item], reference: Tensor | None = None
    ) -> Loss:
        """In nats per learned token; each medium's ``words`` are its text in the contrast."""
        examples = cast(Sequence[Example], items)
        media = [m for e in examples for m in e.media]
        rows, terms = model.bridge(media)
        batch = model.batch(model.lay_out(examples, rows), packed=True)
        nll, _ = model.nll(batch, model.hidden(batch))
        terms |= model.router_terms()
        head = dict(model.heads.items()).get("contrastive")
        pairs = [
            (rows[i], m.words)
            for i, m in enumerate(media)
            if m.modality == "image" and m.words and len(rows[i])
        ]
        if isinstance(head, Contrastive) and len({words for _, words in pairs}) > 1:
            terms |= contrast(model, head, pairs)
        return Loss(nll.sum(), terms)


@config
class BridgeLoss:
    """The bridges' own losses alone: the LLM is not run, so that its size costs nothing."""

    needs_reference = False

    def loss(
        self, model: OmniModel, items: Sequence[Item], reference: Tensor | None = None
    ) -> Loss:
        """The sum over units is 0; everything stands beside it."""
        media = [m for e in cast(Sequence[Example], items) for m in e.media]
        return Loss(torch.zeros((), device=model.device), model.bridge_losses(media))


@config
class Preference:
    """Direct preference optimisation (Rafailov et al., 2023) against the stage's first weights.

    ``beta`` holds the model near them; ``smoothing`` is the part of the preferences thought wrong
    (conservative DPO).
    """

    beta: float = 0.1
    smoothing: float = 0.0
    needs_reference = True

    def __post_init__(self) -> None:
        """Raise `InputError` for a beta that is not above 0."""
        positive(self, "beta")

    def log_probs(self, model: OmniModel, items: Sequence[Item]) -> Tensor:
        """Log-probabilities (pairs, 2) of the chosen and the rejected answers."""
        pairs = cast(Sequence[Pair], items)
        examples = [e for pair in pairs for e in (pair.chosen, pair.rejected)]
        rows, _ = model.bridge([m for e in examples for m in e.media])
        batch = model.batch(model.lay_out(examples, rows), packed=False)
        nll, of = model.nll(batch, model.hidden(batch))
        return nll.new_zeros(len(examples)).index_add(0, of, -nll).view(-1, 2)

    def loss(
        self, model: OmniModel, items: Sequence[Item], reference: Tensor | None = None
    ) -> Loss:
        """In nats per pair. ``reference`` (pairs, 2): the `log_probs` of the stage's first weights.

        Without one (held-out data before training) the model is its own reference.
        """
        own = self.log_probs(model, items)
        gain = own - (own.detach() if reference is None else reference)
        margin = self.beta * (gain[:, 0] - gain[:, 1])
        loss = -(1 - self.smoothing) * F.logsigmoid(margin) - self.smoothing * F.logsigmoid(-margin)
        seen = {
            "preferred": float((margin > 0).float().mean()),
            "margin": float(margin.detach().mean()),
        }
        return Loss(loss.sum(), seen=seen)


def contrast(
    model: OmniModel, head: Contrastive, pairs: Sequence[tuple[Tensor, tuple[int, ...]]]
) -> dict[str, Term]:
    """InfoNCE between mean rows and mean states of the text alone, and matching through the LLM."""
    rows, texts = [r for r, _ in pairs], [t for _, t in pairs]
    alone = model.batch(model.lay_out([Example((Text(t),)) for t in texts], []), packed=False)
    real_PT = (alone.segment_BT != PADDING)[..., None]
    texts_PD = (model.hidden(alone) * real_PT).sum(1) / real_PT.sum(1)
    images_PD = torch.stack([r.mean(0) for r in rows])
    similarity = head.similarity(images_PD, texts_PD)
    same = same_texts(texts).to(similarity.device)
    terms: dict[str, Term] = {}
    if head.config.weight:
        terms["contrastive"] = Term(info_nce(similarity, same), head.config.weight)
    if head.config.matching:
        wrong = hard_negatives(similarity, same)
        asked = [(i, i) for i in range(len(pairs))] + wrong
        # Each picture with its text behind it: the last state has read both.
        both = [Example((Media("image", rows[i]), Text(texts[t]))) for i, t in asked]
        batch = model.batch(model.lay_out(both, [rows[i] for i, _ in asked]), packed=False)
        last_B = (batch.segment_BT != PADDING).sum(1) - 1
        states_BD = model.hidden(batch)[torch.arange(len(asked), device=last_B.device), last_B]
        truth = torch.tensor([1] * len(pairs) + [0] * len(wrong), device=last_B.device)
        answer = head.match(states_BD).float()
        terms["matching"] = Term(F.cross_entropy(answer, truth), head.config.matching)
    return terms
