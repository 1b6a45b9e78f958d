"""AdamW with weight-decay groups, and learning rates as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from omni.errors import InputError
from omni.train.config import config, positive


@config
class Schedule:
    """The learning rate as a part of its maximum: linear warm-up, then a shape.

    ``cosine`` and ``linear`` fall to ``floor`` over the whole stage; ``wsd`` (warm-up, stable,
    decay: Hu et al., MiniCPM, 2024) stays at 1 and falls linearly in the last ``decay`` of it.
    """

    shape: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    warmup: int = 0
    floor: float = 0.1
    decay: float = 0.2

    def __post_init__(self) -> None:
        """Raise `InputError` for numbers out of range."""
        if self.shape not in ("cosine", "linear", "wsd", "constant"):
            raise InputError(
                f"schedule shape is {self.shape!r}; use cosine, linear, wsd or constant",
                param="shape",
            )
        if self.warmup < 0 or not 0 <= self.floor <= 1 or not 0 < self.decay <= 1:
            raise InputError("a schedule needs warmup >= 0, 0 <= floor <= 1 and 0 < decay <= 1")

    def at(self, step: int, steps: int) -> float:
        """For a step counted from 0, of ``steps``."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(steps - self.warmup, 1)
        if self.shape == "constant":
            return 1.0
        if self.shape == "cosine":
            return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * min(done, 1))) / 2
        if self.shape == "wsd":
            done = (done - (1 - self.decay)) / self.decay
        return 1 - (1 - self.floor) * min(max(done, 0.0), 1.0)


@config
class Optimiser:
    """AdamW. ``lr`` is of the bridges and heads, ``llm_lr`` of the LLM or its LoRA.

    Matrices decay; vectors (norms, biases, temperatures) do not. ``clip`` bounds the norm of the
    whole gradient.
    """

    lr: float = 1e-3
    llm_lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        """Raise `InputError` for numbers out of range."""
        positive(self, "lr", "llm_lr", "eps", "clip")

    def build(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.AdamW:
        """Over the parameters that need a gradient, in their groups."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, p in parameters:
            if p.requires_grad:
                lr = self.llm_lr if name.startswith("llm.") else self.lr
                decay = self.weight_decay if p.ndim > 1 else 0.0
                groups.setdefault((lr, decay), []).append(p)
        return torch.optim.AdamW(
            [
                {"params": ps, "lr": lr, "peak": lr, "weight_decay": decay}
                for (lr, decay), ps in sorted(groups.items(), key=lambda item: item[0])
            ],
            betas=self.betas,
            eps=self.eps,
        )

    def set_rate(self, optimiser: torch.optim.Optimizer, step: int, steps: int) -> float:
        """Set every group's rate for a step; gives the part of the maximum."""
        part = self.schedule.at(step, steps)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * part
        return part
