"""From logits to tokens: greedy, temperature, top-p, each row with its own settings and seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omni.errors import InputError
from omni.types import Sampling

_FIRST = 256
"""A nucleus is looked for among so many likeliest tokens before everything is sorted."""


class Sampler:
    """Draws the tokens of one generation.

    The random numbers are its own, one per token: what else is in the batch does not matter.
    """

    def __init__(self, sampling: Sampling) -> None:
        """Raises `InputError` for settings out of range."""
        if not 0 <= sampling.temperature <= 10:
            raise InputError(
                f"temperature is {sampling.temperature}; expected 0 (greedy) to 10",
                param="temperature",
            )
        if not 0 < sampling.top_p <= 1:
            raise InputError(
                f"top_p is {sampling.top_p}; expected more than 0 and at most 1", param="top_p"
            )
        self._sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed & (2**63 - 1))

    @property
    def greedy(self) -> bool:
        """Whether it always takes the likeliest token."""
        return self._sampling.temperature == 0

    def draw(self, logits_V: Tensor) -> int:
        """One token id."""
        if self.greedy:
            return int(logits_V.argmax())
        scaled_V = logits_V.float() / self._sampling.temperature
        number = float(torch.rand((), generator=self._generator, dtype=torch.float64))
        top, ids = scaled_V.topk(min(_FIRST, len(scaled_V)))
        mass = (top - scaled_V.logsumexp(-1)).double().exp().cumsum(-1)
        # Exact: the nucleus ends inside the first ones, or everything is sorted.
        if mass[-1] < self._sampling.top_p and len(top) < len(scaled_V):
            top, ids = scaled_V.sort(descending=True)
            mass = (top - scaled_V.logsumexp(-1)).double().exp().cumsum(-1)
        # The nucleus: the fewest tokens whose probabilities reach top_p.
        limit = mass.new_tensor(self._sampling.top_p)
        last = min(int(torch.searchsorted(mass, limit)), len(mass) - 1)
        target = mass.new_tensor(number) * mass[last]
        return int(ids[min(int(torch.searchsorted(mass, target, right=True)), last)])


def sample(logits_BV: Tensor, samplers: Sequence[Sampler], vocabulary: int) -> list[int]:
    """One token per row, each by its own sampler; only ids below ``vocabulary`` are drawn."""
    real_BV = logits_BV[:, :vocabulary]
    if all(s.greedy for s in samplers):
        greedy: list[int] = real_BV.argmax(-1).tolist()
        return greedy
    # Settings differ per row and B is small: on the CPU a loop costs as little as a batch.
    return [s.draw(row_V) for s, row_V in zip(samplers, real_BV.cpu(), strict=True)]
