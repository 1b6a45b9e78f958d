"""Mixture of experts: a feed-forward layer of several, of which each token takes a few.

The router's softmax chooses ``top_k`` experts for a token; what they give is added by their gates.
An expert computes only the tokens that were routed to it. In training it may have a capacity:
tokens beyond that pass by, through the residual connection alone; at inference nothing is dropped,
so that a token does not depend on what else is in the batch.

Sources: Shazeer et al., Outrageously large neural networks (2017) for gates over the top k;
Lepikhin et al., GShard (2020) and Fedus et al., Switch Transformers (2021) for capacity and the
load-balancing loss; Zoph et al., ST-MoE (2022) for the z-loss and the router in float32;
Komatsuzaki et al., Sparse upcycling (2023); Lin et al., MoMa (2024) and Li et al., Uni-MoE (2024)
for routing by modality.

Shape letters: N tokens, D width of the model, X experts, K experts of a token, M modalities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni.errors import InputError, WeightsError
from omni.sequence import MODALITIES

Routing = Literal["shared", "bias", "separate"]


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """Which layers have experts and how they route: ``"experts"`` of a ``config.json``.

    ``capacity``: an expert takes at most ``capacity * N * top_k / experts`` tokens in training;
    None: all. ``normalise``: the gates of a token add up to 1. With ``top_k`` 1 they would then
    teach the router nothing: leave them as they are there (Switch). ``routing``: one router for all
    tokens, one with a bias per modality, or a router per modality.
    """

    layers: tuple[int, ...]
    experts: int = 4
    top_k: int = 2
    capacity: float | None = None
    normalise: bool = True
    routing: Routing = "shared"

    def __post_init__(self) -> None:
        """Raise `InputError` for sizes that do not fit together."""
        if not 1 <= self.top_k <= self.experts:
            raise InputError(
                f"top_k is {self.top_k}; expected 1 to {self.experts}, the number of experts",
                param="top_k",
            )
        if self.capacity is not None and self.capacity <= 0:
            raise InputError(
                f"capacity is {self.capacity}; expected more than 0, or None", param="capacity"
            )
        if self.routing not in ("shared", "bias", "separate"):
            raise InputError(
                f"routing is {self.routing!r}; use 'shared', 'bias' or 'separate'", param="routing"
            )

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ExpertsConfig | None:
        """Read a ``config.json``; None for a dense model. Raises `WeightsError` for a bad one."""
        given = config.get("experts")
        if given is None:
            return None
        try:
            return cls(**{**given, "layers": tuple(given["layers"])})
        except (TypeError, KeyError, InputError) as error:
            raise WeightsError(
                f"config.json has 'experts' that cannot be used ({error!r}); expected the fields "
                "that omni.llm.experts.upcycle writes"
            ) from error


class Router(nn.Module):
    """Logits of the experts: (N, D) and (N,) -> (N, X), in float32."""

    def __init__(self, config: ExpertsConfig, width: int) -> None:
        super().__init__()
        self.experts = config.experts
        self.separate = config.routing == "separate"
        routers = len(MODALITIES) if self.separate else 1
        self.weight = nn.Parameter(torch.empty(routers * config.experts, width))
        self.bias = None
        if config.routing == "bias":
            self.bias = nn.Parameter(torch.zeros(len(MODALITIES), config.experts))

    def forward(self, x_ND: Tensor, modality_N: Tensor) -> Tensor:
        """See the class; ``modality_N`` are indices of `MODALITIES`, -1 counts as text."""
        logits = F.linear(x_ND.float(), self.weight.float())
        modality_N = modality_N.clamp(min=0)
        if self.separate:
            at = modality_N[:, None, None].expand(-1, 1, self.experts)
            logits = logits.view(len(x_ND), -1, self.experts).gather(1, at).squeeze(1)
        return logits if self.bias is None else logits + self.bias.float()[modality_N]


def gates(logits_NX: Tensor, config: ExpertsConfig) -> tuple[Tensor, Tensor]:
    """The experts (N, K) of each token, the best first, and their gates (N, K)."""
    gates_NK, chosen_NK = logits_NX.softmax(-1).topk(config.top_k)
    if config.normalise:
        gates_NK = gates_NK / gates_NK.sum(-1, keepdim=True)
    return chosen_NK, gates_NK


def fitting(chosen_NK: Tensor, config: ExpertsConfig) -> Tensor:
    """Which choices (N, K) an expert has room for: all first choices go before the second."""
    if config.capacity is None:
        return torch.ones_like(chosen_NK, dtype=torch.bool)
    room = math.ceil(config.capacity * chosen_NK.numel() / config.experts)
    ranked = F.one_hot(chosen_NK.T.flatten(), config.experts)
    place = (ranked.cumsum(0) * ranked).sum(-1)  # of each choice in its expert, from 1
    return (place <= room).view(config.top_k, -1).T


def mix(
    x_ND: Tensor,
    chosen_NK: Tensor,
    gates_NK: Tensor,
    kept_NK: Tensor,
    experts: Sequence[Callable[[Tensor], Tensor]],
    *,
    all_run: bool,
) -> Tensor:
    """Each token's kept experts, weighted by their gates and added; zeros (D,) where none is.

    ``all_run``: an expert without tokens runs, too, so that its gradient is zero and not missing.
    """
    kept = kept_NK.flatten()
    chosen = chosen_NK.flatten().masked_fill(~kept, len(experts))
    order = chosen.argsort(stable=True)[: int(kept.sum())]
    counts = chosen.bincount(minlength=len(experts))[: len(experts)].tolist()
    pieces = torch.split(x_ND[order // chosen_NK.shape[1]], counts)
    ran = [e(x) for e, x in zip(experts, pieces, strict=True) if all_run or len(x)]
    if not ran:
        return torch.zeros_like(x_ND)
    # Put back in place and then added: the same sums in the same order every time, on a GPU too.
    y = x_ND.new_zeros(len(chosen), x_ND.shape[1]).index_copy(0, order, torch.cat(ran))
    return (y.view(*chosen_NK.shape, -1) * gates_NK[..., None].to(y.dtype)).sum(1)


class Experts(nn.Module):
    """A feed-forward layer of experts in place of a dense one of transformers: (…, D) -> (…, D).

    ``modality`` is set by `set_modalities`; ``terms`` of the last pass are read by `losses`.
    """

    def __init__(
        self, config: ExpertsConfig, dense: nn.Module, width: int, generator: torch.Generator
    ) -> None:
        """Each expert is a copy of ``dense``; the router is random and the same for all."""
        super().__init__()
        self.config = config
        self.router = Router(config, width)
        self.experts = nn.ModuleList(deepcopy(dense) for _ in range(config.experts))
        start = torch.empty(config.experts, width).normal_(0, 0.02, generator=generator)
        self.router.weight.data = start.repeat(len(self.router.weight) // config.experts, 1)
        like = next(dense.parameters())
        self.router.to(like.device, like.dtype)
        self.train(dense.training)
        self.modality: Tensor | None = None
        self.terms: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Apply to each token the experts that the router chooses for it."""
        x_ND = x.reshape(-1, x.shape[-1])
        modality_N = x_ND.new_zeros(len(x_ND), dtype=torch.long)
        if self.modality is not None:
            if self.modality.numel() != len(x_ND):
                raise InputError(
                    f"modalities were set for {self.modality.numel()} tokens, and {len(x_ND)} "
                    "came; call set_modalities before each forward pass"
                )
            modality_N = self.modality.flatten().to(x.device)
        real_N = modality_N >= 0
        logits_NX = self.router(x_ND, modality_N)
        chosen_NK, gates_NK = gates(logits_NX, self.config)
        kept_NK = real_N[:, None].expand_as(chosen_NK)
        if self.training:
            kept_NK = kept_NK.clone()
            kept_NK[real_N] = fitting(chosen_NK[real_N], self.config)
            self.terms = _terms(logits_NX[real_N], chosen_NK[real_N])
        y_ND = mix(x_ND, chosen_NK, gates_NK, kept_NK, [*self.experts], all_run=self.training)
        return y_ND.view(x.shape)


class RoutedExperts:
    """The same at inference, over the kernels of `omni.llm.linear`: an `omni.llm.decoder.Mlp`."""

    def __init__(
        self,
        config: ExpertsConfig,
        router: Router,
        experts: Sequence[Callable[[Tensor], Tensor]],
    ) -> None:
        self._config, self._router, self._experts = config, router, experts

    def __call__(self, x_ND: Tensor, modality_N: Tensor) -> Tensor:
        """Apply to each row the experts that the router chooses for it."""
        logits_NX = self._router(x_ND, modality_N)
        chosen_NK, gates_NK = gates(logits_NX, self._config)
        kept_NK = torch.ones_like(chosen_NK, dtype=torch.bool)
        return mix(x_ND, chosen_NK, gates_NK, kept_NK, self._experts, all_run=False)


def upcycle(
    model: Any,
    *,
    layers: Sequence[int],
    experts: int = 4,
    top_k: int = 2,
    capacity: float | None = None,
    normalise: bool = True,
    routing: Routing = "shared",
    seed: int = 0,
) -> list[Experts]:
    """Replace the feed-forward layers of a Qwen2 or Llama of transformers by experts, in place.

    Each expert begins as a copy of the dense layer, so that with normalised gates and no capacity
    the model gives what it gave. ``model.config.experts`` is set, so that ``save_pretrained``
    writes what `omni.llm.model.load` reads. A model that was upcycled before comes back by the same
    call on the dense one and ``load_state_dict``.

    Raises `InputError` for layers that there are not or have experts, and sizes that do not fit.
    """
    config = ExpertsConfig(tuple(layers), experts, top_k, capacity, normalise, routing)
    blocks = model.model.layers
    for i in layers:
        if not 0 <= i < len(blocks) or isinstance(blocks[i].mlp, Experts) or layers.count(i) > 1:
            raise InputError(
                f"layer {i} cannot be upcycled; expected dense layers of 0 to {len(blocks) - 1}, "
                "each once",
                param="layers",
            )
    generator = torch.Generator().manual_seed(seed)
    for i in layers:
        blocks[i].mlp = Experts(config, blocks[i].mlp, model.config.hidden_size, generator)
    model.config.experts = asdict(config)
    return [blocks[i].mlp for i in layers]


def set_modalities(model: nn.Module, modality_BT: Tensor | None) -> None:
    """Say what the tokens of the next forward passes are: indices of `omni.sequence.MODALITIES`.

    -1 is padding: it is not routed and not counted. None: all are text. Leave it until after the
    backward pass, which may compute layers anew (gradient checkpointing).
    """
    for layer in _layers(model):
        layer.modality = modality_BT


def losses(model: nn.Module) -> dict[str, Tensor]:
    """``balance`` and ``z`` of the last forward pass in training, means over the expert layers.

    ``balance`` is 1 when all experts have the same load (weigh it by about 0.01); ``z`` is the mean
    square of the router's log partition function (about 0.001). Empty for a dense model.
    """
    terms = [layer.terms for layer in _layers(model) if layer.terms]
    names = terms[0] if terms else {}
    return {name: torch.stack([t[name] for t in terms]).mean() for name in names}


def _layers(model: nn.Module) -> list[Experts]:
    return [module for module in model.modules() if isinstance(module, Experts)]


def _terms(logits_NX: Tensor, chosen_NK: Tensor) -> dict[str, Tensor]:
    experts = logits_NX.shape[1]
    load_X = chosen_NK.flatten().bincount(minlength=experts) / max(1, chosen_NK.numel())
    mean_X = logits_NX.softmax(-1).sum(0) / max(1, len(logits_NX))
    return {
        "balance": experts * (load_X * mean_X).sum(),
        "z": logits_NX.logsumexp(-1).square().sum() / max(1, len(logits_NX)),
    }
