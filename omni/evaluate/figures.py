"""Figures with their 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, the bounds of its 95 % confidence interval, and how many samples it comes from."""

    value: float
    low: float
    high: float
    samples: int


def share(right: int, samples: int) -> Figure | None:
    """A proportion with its interval after Wilson (1927); None without samples."""
    if not samples:
        return None
    p, z2 = right / samples, _Z**2
    middle = (p + z2 / (2 * samples)) / (1 + z2 / samples)
    spread = _Z * math.sqrt(p * (1 - p) / samples + z2 / (4 * samples**2)) / (1 + z2 / samples)
    return Figure(p, max(0.0, middle - spread), min(1.0, middle + spread), samples)


def ratio(pairs: Sequence[tuple[float, float]], seed: int) -> Figure | None:
    """Sum of the firsts by sum of the seconds, as a word error rate is; bootstrapped over pairs."""
    if not pairs or not sum(second for _, second in pairs):
        return None
    table = np.array(pairs, float)
    sums = table[_resampled(len(pairs), seed)].sum(1)
    rates = sums[:, 0] / np.maximum(sums[:, 1], 1e-9)
    value = table[:, 0].sum() / table[:, 1].sum()
    return Figure(float(value), *_bounds(rates), len(pairs))


def quantile(values: Sequence[float], q: float, seed: int) -> Figure | None:
    """A quantile of ``values``, as a latency is told; bootstrapped."""
    if not values:
        return None
    table = np.array(values, float)
    found = np.quantile(table[_resampled(len(values), seed)], q, axis=1)
    return Figure(float(np.quantile(table, q)), *_bounds(found), len(values))


def _resampled(count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, count, (_RESAMPLES, count))


def _bounds(values: NDArray[Any]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
