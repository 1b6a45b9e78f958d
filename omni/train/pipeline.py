"""The LLM cut into consecutive parts, one to a process, fed with micro-batches (GPipe or 1F1B).

torch.distributed.pipelining moves the states between the processes and runs the schedule. Shape
letters: B rows, T tokens, D width of the LLM, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from omni.errors import InputError
from omni.sequence import IGNORE, Batch, inputs
from omni.train.model import OmniModel
from omni.train.world import World


class _Part(nn.Module):
    """Decoder layers of the LLM, and its head in the last process."""

    def __init__(self, causal: Any, begin: int, end: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(causal.model.layers[begin:end])
        self.rotary = causal.model.rotary_emb
        last = end == len(causal.model.layers)
        self.norm = causal.model.norm if last else None
        self.head = causal.lm_head if last else None

    def forward(self, hidden_BTD: Tensor, mask: Tensor, positions_BT: Tensor) -> Tensor:
        """States (B, T, D) after the own layers; logits (B, T, V) in the last process."""
        rotary = self.rotary(hidden_BTD, positions_BT)
        for layer in self.layers:
            hidden_BTD = layer(
                hidden_BTD,
                attention_mask=mask,
                position_ids=positions_BT,
                position_embeddings=rotary,
            )
        if self.norm is None or self.head is None:
            return hidden_BTD
        logits: Tensor = self.head(self.norm(hidden_BTD))
        return logits


class Pipeline:
    """One process's part of a model. Every process holds the bridges and the embeddings.

    ``parameters`` are those whose gradients `step` leaves here: the layers of this part; in the
    first process also all that comes before them, in the last also norm and head.
    """

    def __init__(
        self,
        model: OmniModel,
        world: World,
        *,
        micro_batches: int,
        schedule: Literal["gpipe", "1f1b"] = "1f1b",
    ) -> None:
        """Cut ``model`` evenly into ``world.size`` parts.

        Raises `InputError` when there are fewer layers than processes.
        """
        layers = len(model.causal.model.layers)
        if layers < world.size:
            raise InputError(
                f"{layers} layers cannot be cut for {world.size} processes; start fewer",
                param="micro_batches",
            )
        self._model, self._world, self._count = model, world, micro_batches
        edges = [round(i * layers / world.size) for i in range(world.size + 1)]
        self._part = _Part(model.causal, edges[world.rank], edges[world.rank + 1])
        self.first, self.last = world.rank == 0, world.rank == world.size - 1
        own = {id(p) for p in self._part.parameters()}
        if self.first:
            inside = {id(p) for p in model.causal.model.layers.parameters()}
            inside |= {id(p) for p in model.causal.model.norm.parameters()}
            own |= {id(p) for p in model.parameters()} - inside
            if not model.causal.config.tie_word_embeddings:
                own -= {id(p) for p in model.causal.lm_head.parameters()}
        self.parameters = {n: p for n, p in model.named_parameters() if id(p) in own}
        stage = PipelineStage(self._part, world.rank, world.size, world.device)
        kind = ScheduleGPipe if schedule == "gpipe" else Schedule1F1B
        self._schedule = kind(stage, micro_batches, loss_fn=_sum_of_nll, scale_grads=False)

    def step(self, batch: Batch) -> float:
        """Forward and backward of a batch; gradients of the mean loss per label, and that loss.

        All processes give the same batch, with a number of rows that ``micro_batches`` divides.
        Raises `InputError` for another number.
        """
        rows = len(batch.ids_BT)
        if rows % self._count:
            raise InputError(
                f"{rows} rows cannot be cut into {self._count} micro-batches of one size",
                param="micro_batches",
            )
        model, device = self._model, self._world.device
        given = inputs(batch, model.causal.get_input_embeddings())
        labels_BT = batch.labels_BT.roll(-1, 1)
        labels_BT[:, -1] = IGNORE
        labels_BT[batch.segment_BT.roll(-1, 1) != batch.segment_BT] = IGNORE
        units = int((labels_BT != IGNORE).sum())
        embeds_BTD = given["inputs_embeds"]
        # Bridges and embeddings run backward once, when all micro-batches have come back.
        leaf_BTD = embeds_BTD.detach().requires_grad_(embeds_BTD.requires_grad)
        losses: list[Tensor] = []
        options: dict[str, Any] = {
            "mask": given["attention_mask"],
            "positions_BT": given["position_ids"],
        }
        if self.last:
            options |= {"target": labels_BT, "losses": losses}
        states = [leaf_BTD] if self.first else []
        self._schedule.step(*states, **options, return_outputs=False)
        total = torch.stack(losses).sum() if self.last else torch.zeros((), device=device)
        total = total.detach()
        dist.broadcast(total, self._world.size - 1)
        if self.first and leaf_BTD.grad is not None:
            torch.autograd.backward(embeds_BTD, leaf_BTD.grad)
        self._join_tied()
        for p in self.parameters.values():
            if p.grad is not None:
                p.grad /= units
        return float(total) / units

    def _join_tied(self) -> None:
        """Add the two gradients of an embedding that is also the head, in both processes."""
        causal = self._model.causal
        weight = causal.get_input_embeddings().weight
        if not (causal.config.tie_word_embeddings and weight.requires_grad):
            return
        ends = [0, self._world.size - 1]
        group = dist.new_group(ends)
        if self.first or self.last:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            dist.all_reduce(weight.grad, group=group)


def _sum_of_nll(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    return F.cross_entropy(
        logits_BTV.flatten(0, 1).float(), labels_BT.flatten(), ignore_index=IGNORE, reduction="sum"
    )
