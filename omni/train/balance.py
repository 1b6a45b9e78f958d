"""How the modalities share a step: mixed as they come, in fixed shares, or by their progress.

Sources: M2-omni (Guo et al., 2025, arXiv:2502.18778) names the two strategies, step balance for
pre-training and dynamically adaptive balance for instruction tuning. It follows each modality's
convergence; the formula here is ours, from the ideas of CoBa (Gong et al., EMNLP 2024), where
tasks that converge slowly gain and tasks that diverge lose weight, and of gradient blending (Wang
et al., CVPR 2020), which measures overfitting as held-out against training loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Literal, Protocol

from omni.errors import InputError
from omni.train.config import config

TEXT = "text"
FLOOR = 0.25
"""The least share of text in a step that is balanced, as in M2-omni."""


class Balance(Protocol):
    """Says what a step reads and what each modality's loss counts. Holds no tensors."""

    normalise: Literal["modality", "token"]
    """Whether a loss is a mean over its modality's tokens or over all tokens of the step."""

    def plan(self, random: Random) -> list[str]:
        """The modality of every micro-batch of the next step."""
        ...

    def shares(self) -> dict[str, float]:
        """What each modality's mean loss counts in the step; they sum to 1."""
        ...

    def observe(self, train: Mapping[str, float], held_out: Mapping[str, float]) -> None:
        """Take each modality's mean loss since the last time, and on held-out data."""
        ...

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on, as JSON types."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        ...


class Mixing:
    """Plain mixing, the baseline: micro-batches as frequent as the data, all tokens alike."""

    normalise: Literal["modality", "token"] = "token"

    @config
    class Config:
        """``shares`` by data set, in any unit; None: their sizes."""

        shares: Mapping[str, float] | None = None

        def build(self, sizes: Mapping[str, int], micro_batches: int) -> Mixing:
            """For data sets of these sizes. Raises `InputError` for shares of others."""
            if self.shares is not None and self.shares.keys() != sizes.keys():
                raise InputError(
                    f"there are shares for {_list(self.shares)} and data for {_list(sizes)}; "
                    "name the same in both",
                    param="shares",
                )
            return Mixing(self.shares or sizes, micro_batches)

    def __init__(self, sizes: Mapping[str, float], micro_batches: int) -> None:
        self._sizes, self._count = dict(sizes), micro_batches

    def plan(self, random: Random) -> list[str]:
        """Draw each micro-batch's modality with the probability of its data."""
        names = sorted(self._sizes)
        return random.choices(names, [self._sizes[n] for n in names], k=self._count)

    def shares(self) -> dict[str, float]:
        """What is drawn, as shares; for reports: the loss is a mean over tokens."""
        total = sum(self._sizes.values())
        return {name: size / total for name, size in self._sizes.items()}

    def observe(self, train: Mapping[str, float], held_out: Mapping[str, float]) -> None:
        """Plain mixing learns nothing from losses."""

    def state(self) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Nothing was kept."""


class StepBalance:
    """Every step reads every modality in the same proportion, whatever the sizes of the data."""

    normalise: Literal["modality", "token"] = "modality"

    @config
    class Config:
        """``shares`` by modality, in any unit; None: a quarter text and the rest in equal parts."""

        shares: Mapping[str, float] | None = None

        def build(self, sizes: Mapping[str, int], micro_batches: int) -> StepBalance:
            """For data sets of these modalities. Raises `InputError` as the class does."""
            return StepBalance(self.shares or even(sizes), sizes, micro_batches)

    def __init__(
        self, shares: Mapping[str, float], sizes: Mapping[str, int], micro_batches: int
    ) -> None:
        """Raises `InputError`: shares of other modalities, too little text, too few micro-batches.

        ``sizes`` names the modalities that have data.
        """
        if shares.keys() != sizes.keys():
            raise InputError(
                f"there are shares for {_list(shares)} and data for {_list(sizes)}; "
                "name the same modalities in both",
                param="shares",
            )
        if not all(math.isfinite(s) and s > 0 for s in shares.values()):
            raise InputError(f"a share of {dict(shares)} is not above 0", param="shares")
        total = sum(shares.values())
        self._shares = {name: share / total for name, share in shares.items()}
        check_text(self._shares)
        counts = apportion(self._shares, micro_batches)
        empty = [name for name, count in counts.items() if count == 0]
        if empty or counts[TEXT] < FLOOR * micro_batches:
            what = f"leave none for {_list(empty)}" if empty else "cannot give text a quarter"
            raise InputError(
                f"{micro_batches} micro-batches a step {what}; use more", param="micro_batches"
            )
        self._counts = counts

    def plan(self, random: Random) -> list[str]:
        """The same counts every step, in random order."""
        names = [name for name in sorted(self._counts) for _ in range(self._counts[name])]
        random.shuffle(names)
        return names

    def shares(self) -> dict[str, float]:
        """The fixed shares."""
        return dict(self._shares)

    def observe(self, train: Mapping[str, float], held_out: Mapping[str, float]) -> None:
        """Fixed shares learn nothing from losses."""

    def state(self) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Nothing was kept."""


class AdaptiveBalance(StepBalance):
    """Step balance whose loss weights follow each modality's own convergence on held-out data.

    With v and t the held-out and the training loss of modality m, as parts of their first values:

        lag      l_m = v_m / mean over modalities of v        above 1: it converges more slowly
        overfit  o_m = max(0, v_m / t_m - 1)                  held-out progress falls behind
        weight   w_m = clamp(l_m^a * exp(-b * o_m), low, high), smoothed over evaluations by
                       w <- s * w + (1 - s) * w_m

    The share of a modality is its fixed share times w, scaled to sum to 1; where that leaves text
    below ``text_floor``, text gets the floor and the others keep their proportions.
    """

    @config
    class Config:
        """Of the formula: a ``gain``, b ``damping``, s ``smoothing``, ``low`` and ``high``."""

        shares: Mapping[str, float] | None = None
        gain: float = 1.0
        damping: float = 2.0
        smoothing: float = 0.7
        low: float = 0.3
        high: float = 3.0
        text_floor: float = FLOOR

        def __post_init__(self) -> None:
            """Raise `InputError` for numbers with which the formula has no meaning."""
            good = 0 < self.low <= 1 <= self.high < math.inf and 0 <= self.smoothing < 1
            if not (good and self.gain >= 0 and self.damping >= 0):
                raise InputError(
                    "AdaptiveBalance needs 0 < low <= 1 <= high, 0 <= smoothing < 1, "
                    "gain >= 0 and damping >= 0"
                )
            if not FLOOR <= self.text_floor < 1:
                raise InputError(
                    f"text_floor is {self.text_floor}; expected {FLOOR} or more and below 1",
                    param="text_floor",
                )

        def build(self, sizes: Mapping[str, int], micro_batches: int) -> AdaptiveBalance:
            """For data sets of these modalities. Raises `InputError` as `StepBalance` does."""
            return AdaptiveBalance(self, sizes, micro_batches)

    def __init__(self, config: Config, sizes: Mapping[str, int], micro_batches: int) -> None:
        super().__init__(config.shares or even(sizes), sizes, micro_batches)
        self._config = config
        self._first: dict[str, tuple[float, float]] = {}
        self._weights = dict.fromkeys(self._shares, 1.0)

    def shares(self) -> dict[str, float]:
        """The fixed shares times the weights, with text held at its floor or above."""
        raw = {m: share * self._weights[m] for m, share in self._shares.items()}
        total = sum(raw.values())
        shares = {m: share / total for m, share in raw.items()}
        floor = self._config.text_floor
        if shares[TEXT] >= floor or len(shares) == 1:
            return shares
        rest = 1 - shares[TEXT]
        return {m: floor if m == TEXT else s / rest * (1 - floor) for m, s in shares.items()}

    def observe(self, train: Mapping[str, float], held_out: Mapping[str, float]) -> None:
        """Move the weights. A modality whose losses are missing or not finite keeps its weight."""
        seen = {}
        for m in self._weights:
            t, v = train.get(m, math.nan), held_out.get(m, math.nan)
            if math.isfinite(t) and math.isfinite(v) and t > 0 and v > 0:
                t0, v0 = self._first.setdefault(m, (t, v))
                seen[m] = (t / t0, v / v0)
        if not seen:
            return
        c = self._config
        mean = sum(v for _, v in seen.values()) / len(seen)
        for m, (t, v) in seen.items():
            overfit = max(0.0, v / t - 1)
            target = (v / mean) ** c.gain * math.exp(-c.damping * overfit)
            target = min(max(target, c.low), c.high)
            self._weights[m] = c.smoothing * self._weights[m] + (1 - c.smoothing) * target

    def state(self) -> dict[str, Any]:
        """The first losses and the weights."""
        return {"first": {m: list(f) for m, f in self._first.items()}, "weights": self._weights}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self._first = {m: (float(t), float(v)) for m, (t, v) in state["first"].items()}
        self._weights = dict(state["weights"])


def even(names: Mapping[str, int]) -> dict[str, float]:
    """A quarter for text and the rest in equal parts; with text alone, all of it."""
    others = sorted(names.keys() - {TEXT})
    if TEXT not in names or not others:
        return dict.fromkeys(names, 1.0)
    return {TEXT: FLOOR} | dict.fromkeys(others, (1 - FLOOR) / len(others))


def check_text(shares: Mapping[str, float]) -> None:
    """Raise `InputError` when text has less than a quarter."""
    share = shares.get(TEXT, 0.0)
    if share < FLOOR - 1e-9:
        raise InputError(
            f"text has a share of {share:.2f}; a balanced step needs {FLOOR} or more, so that the "
            "model keeps its language",
            param="shares",
        )


def apportion(shares: Mapping[str, float], count: int) -> dict[str, int]:
    """``count`` things in these shares, by largest remainder; text's part is rounded up."""
    exact = {name: share * count for name, share in shares.items()}
    counts = {name: math.floor(part + 1e-9) for name, part in exact.items()}
    if TEXT in counts:
        counts[TEXT] = math.ceil(exact[TEXT] - 1e-9)
    order = sorted(
        (name for name in exact if name != TEXT), key=lambda n: (counts[n] - exact[n], n)
    )
    left = count - sum(counts.values())
    for name in order[: max(left, 0)]:
        counts[name] += 1
    return counts


def _list(names: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
