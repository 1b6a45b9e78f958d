"""The processes of a run: one, or several that `torchrun` started, with the model sharded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from omni.errors import InputError
from omni.train.model import OmniModel


@dataclass(frozen=True, slots=True)
class World:
    """A process among all: ``rank`` of ``size``, and its device."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that reports."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Each value summed over all processes."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, value: bool) -> bool:
        """Whether it holds in some process."""
        return self.sum([float(value)])[0] > 0

    def shard(self, model: OmniModel) -> None:
        """Divide parameters, gradients and optimiser state among the processes (FSDP2).

        Each decoder layer is gathered when it computes, the rest with the whole.
        """
        if self.size == 1:
            return
        from torch.distributed.fsdp import fully_shard

        for layer in model.causal.model.layers:
            fully_shard(layer)
        # Resharded after the forward pass too, because DPO changes the values in between.
        fully_shard(model, reshard_after_forward=True)
        model.anchored = True


@contextmanager
def world(device: str) -> Iterator[World]:
    """The processes that ``torchrun`` started, or this one alone, on "auto", "cpu", "cuda" ...

    Raises `InputError` for a device that is not there.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise InputError(
            f"device is {device!r}; use 'auto', 'cpu' or 'cuda'", param="device"
        ) from error
    if target.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(
                f"device is {device!r}, but torch finds no GPU; use 'cpu'", param="device"
            )
        target = torch.device("cuda", local if target.index is None else target.index)
        torch.cuda.set_device(target)
    if size == 1:
        yield World(target)
        return
    dist.init_process_group("nccl" if target.type == "cuda" else "gloo")
    try:
        yield World(target, dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, gathered; all processes call."""
    gather: Any = getattr(tensor, "full_tensor", None)
    return gather() if gather is not None else tensor


def clip_gradients(parameters: list[nn.Parameter], limit: float) -> float:
    """Scale the gradient to a norm of at most ``limit``; gives the norm before."""
    return float(whole(nn.utils.clip_grad_norm_(parameters, limit)))
