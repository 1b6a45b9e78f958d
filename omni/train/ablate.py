"""What balancing buys: the same stage with plain mixing, step and adaptive balance, compared."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omni.errors import InputError
from omni.train.balance import AdaptiveBalance, Mixing, StepBalance
from omni.train.metrics import read
from omni.train.plot import Line, plot
from omni.train.recipe import Recipe
from omni.train.run import train

KINDS: Mapping[str, Any] = {
    "plain mixing": Mixing.Config(),
    "step balance": StepBalance.Config(),
    "step + adaptive": AdaptiveBalance.Config(),
}
COLOURS = {"plain mixing": "#888888", "step balance": "#1f77b4", "step + adaptive": "#d62728"}


@dataclass(frozen=True, slots=True)
class Ablation:
    """``losses[kind][modality]``: for each seed the held-out losses by step."""

    recipe: str
    stage: str
    steps: int
    losses: Mapping[str, Mapping[str, list[list[tuple[int, float]]]]]

    def summary(self) -> dict[str, dict[str, tuple[float, float, float]]]:
        """By kind and modality: mean of the last and of the best loss, deviation of the last."""
        found: dict[str, dict[str, tuple[float, float, float]]] = {}
        for kind, modalities in self.losses.items():
            for m, seeds in modalities.items():
                last = [curve[-1][1] for curve in seeds]
                best = [min(loss for _, loss in curve) for curve in seeds]
                spread = statistics.stdev(last) if len(last) > 1 else 0.0
                found.setdefault(kind, {})[m] = (
                    statistics.fmean(last),
                    statistics.fmean(best),
                    spread,
                )
        return found

    def markdown(self) -> str:
        """The table: the last held-out loss of each modality, and how far it is above its best."""
        summary = self.summary()
        modalities = sorted(next(iter(summary.values())))
        seeds = len(next(iter(next(iter(self.losses.values())).values())))
        head = ["", *modalities, "mean", "worst modality"]
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for kind, row in summary.items():
            cells = []
            for m in modalities:
                last, best, spread = row[m]
                deviation = f" ± {spread:.3f}" if seeds > 1 else ""
                rise = f" (+{last - best:.3f})" if last - best > 0.0005 else ""
                cells.append(f"{last:.3f}{deviation}{rise}")
            lasts = [row[m][0] for m in modalities]
            cells += [f"{statistics.fmean(lasts):.3f}", f"{max(lasts):.3f}"]
            lines.append("| " + " | ".join([kind, *cells]) + " |")
        note = (
            f"Held-out loss after {self.steps} steps of stage `{self.stage}` of `{self.recipe}`, "
            f"{seeds} seed{'s' if seeds > 1 else ''}; in brackets how far it is above its best "
            "(overfitting)."
        )
        return "\n".join([*lines, "", note])

    def write(self, path: Path) -> None:
        """The table as Markdown, and the plot beside it as SVG. Raises `InputError`."""
        picture = path.with_suffix(".svg")
        panels = {
            m: [
                Line(kind, COLOURS[kind], curve)
                for kind, modalities in self.losses.items()
                for curve in modalities[m]
            ]
            for m in sorted(next(iter(self.losses.values())))
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.write_text(plot(panels, x="step", y="held-out loss"), "utf-8")
            path.write_text(f"{self.markdown()}\n\n![Held-out losses]({picture.name})\n", "utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path} ({error.strerror})", param="report") from error

    def plain(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "recipe": self.recipe,
            "stage": self.stage,
            "steps": self.steps,
            "summary": {
                kind: {
                    m: dict(zip(("last", "best", "deviation"), v, strict=True))
                    for m, v in r.items()
                }
                for kind, r in self.summary().items()
            },
            "losses": self.losses,
        }


def ablate(
    recipe: Recipe, out: Path, *, stage: str | None = None, seeds: int = 1, device: str = "auto"
) -> Ablation:
    """Train one stage three ways; data, model, seeds and steps are the same.

    It begins with the model as it is built, not with what an earlier stage left. A run that is
    there already, whole or in part, is not done again. Raises what `train` raises.
    """
    index = recipe.stage(stage) if stage is not None else 0
    chosen = recipe.stages[index]
    losses: dict[str, dict[str, list[list[tuple[int, float]]]]] = {}
    own = chosen.balance
    kinds = {
        **KINDS,
        **({"step + adaptive": own} if isinstance(own, AdaptiveBalance.Config) else {}),
    }
    shares = getattr(own, "shares", None)
    for kind, balance in kinds.items():
        if not isinstance(balance, Mixing.Config) and shares is not None:
            balance = replace(balance, shares=shares)
        for seed in range(recipe.seed, recipe.seed + seeds):
            one = replace(recipe, seed=seed, stages=(replace(chosen, balance=balance),))
            where = out / "ablate" / kind.replace(" + ", "-").replace(" ", "-") / str(seed)
            train(one, where, resume=where.exists(), device=device)
            lines = read(where / chosen.name / "metrics.jsonl")
            for m in chosen.data:
                key = f"held_out/{m}"
                curve = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
                losses.setdefault(kind, {}).setdefault(m, []).append(curve)
    return Ablation(recipe.name, chosen.name, chosen.steps, losses)
