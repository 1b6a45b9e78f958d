"""The loop of one stage: draw, accumulate, step, evaluate, keep."""

from __future__ import annotations

import math
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from omni.errors import OmniError
from omni.train.checkpoint import Checkpoints, refuse_other, tensors_of
from omni.train.config import plain
from omni.train.data import Batches, Counter, Item, Source, bucket
from omni.train.metrics import Metrics
from omni.train.model import OmniModel
from omni.train.objective import Loss, Preference
from omni.train.recipe import Recipe
from omni.train.world import World, clip_gradients

_Part = tuple[str, list[Item], bool]


class DivergedError(OmniError):
    """The loss was not finite for too many steps."""


class Trainer:
    """One stage of a recipe on this process's part of the world.

    Every process draws the same micro-batches and computes its own part of them, so that the
    result does not depend on their number but for rounding, and a checkpoint of one world can be
    resumed in another.
    """

    def __init__(
        self,
        recipe: Recipe,
        stage: int,
        model: OmniModel,
        sources: Mapping[str, Source],
        directory: Path,
        world: World,
    ) -> None:
        """``model`` has the weights that the stage begins with, is on its device, and sharded."""
        self.recipe, self.stage = recipe, recipe.stages[stage]
        self.model, self.world, self.directory = model, world, directory
        s = self.stage
        self.step = 0
        self.skipped = self._skipped_in_a_row = 0
        self.counter = Counter(s.bad_samples)
        sizes = {m: source.size for m, source in sources.items()}
        self.balance = s.balance.build(sizes, s.micro_batches)
        self._batches = {
            m: Batches(
                m, source, tokens=s.tokens, pool=s.pool, seed=recipe.seed, counter=self.counter
            )
            for m, source in sources.items()
        }
        self._held_out = {
            m: bucket(source.held_out(s.held_out), s.tokens) for m, source in sources.items()
        }
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._optimiser = s.optimiser.build(self._parameters.items())
        self._reference: dict[str, Tensor] = {}
        if s.objective.needs_reference:
            self._reference = {n: p.detach().clone() for n, p in self._parameters.items()}
        self._checkpoints = Checkpoints(directory, keep=recipe.keep)
        self._since: dict[str, list[float]] = {}
        precision = recipe.precision
        if precision == "auto":
            fast = world.device.type == "cuda" and torch.cuda.is_bf16_supported()
            precision = "bfloat16" if fast else "float32"
        self._bf16 = precision == "bfloat16"
        torch.manual_seed(recipe.seed * 1_000 + 100 * stage + world.rank)

    def run(self, out_of_time: Callable[[], bool], *, quiet: bool = False) -> bool:
        """Train until the stage is done (True) or time is up (False); then and now and then save.

        Raises `DivergedError`, `CheckpointError`, `InputError` for too many bad samples.
        """
        s = self.stage
        metrics = Metrics(
            self.directory,
            stage=f"{self.recipe.name}: {s.name}",
            step=self.step,
            steps=s.steps,
            tensorboard=self.recipe.tensorboard,
            quiet=quiet or not self.world.first,
        )
        with metrics:
            if self.step == 0:
                held_out = self.evaluate()
                metrics.write(0, {f"held_out/{m}": v for m, v in held_out.items()})
                self.balance.observe(held_out, held_out)
            while self.step < s.steps:
                if self.world.any(out_of_time()):
                    self.save()
                    return False
                begin = time.perf_counter()
                figures = self.train_step()
                seconds = time.perf_counter() - begin
                metrics.write(self.step, {**figures, "seconds": round(seconds, 4)})
                rate = figures["positions"] / seconds
                metrics.advance(self.step, f"loss {figures['loss']:.3f} · {rate:,.0f} tokens/s")
                last = self.step == s.steps
                if last or self.step % s.evaluate_every == 0:
                    metrics.write(self.step, self._look(metrics))
                if last or self.step % s.save_every == 0:
                    self.save()
        return True

    def train_step(self) -> dict[str, float]:
        """One step of the optimiser; gives the figures for the log."""
        s, world = self.stage, self.world
        plan = self.balance.plan(Random(f"{self.recipe.seed} {s.name} {self.step}"))
        micro = [(m, self._batches[m].next()) for m in plan]
        many, units = Tally(plan), Tally[str]()
        for m, items in micro:
            units[m] += sum(item.units for item in items)
        shares = self.balance.shares()
        mine = self._part(micro)
        references = self._references([items for _, items, _ in mine])
        part = s.optimiser.set_rate(self._optimiser, self.step, s.steps)
        sums: dict[str, float] = {f"train/{m}": 0.0 for m in sorted(shares)}
        objective = 0.0
        for (m, items, real), reference in zip(mine, references, strict=True):
            loss = self._loss(items, reference)
            if self.balance.normalise == "modality":
                scale, beside = shares[m] / max(units[m], 1), shares[m] / many[m]
            else:
                scale, beside = 1 / max(units.total(), 1), 1 / len(micro)
            total = loss.total * scale
            for term in loss.beside.values():
                total = total + term.weight * term.mean * beside
            if total.requires_grad:
                # Gradients are averaged over the processes; ours are parts of a sum.
                torch.autograd.backward(total * (world.size if real else 0))
            if real:
                objective += float(total.detach())
                self._count(sums, m, loss, max(units[m], 1), many[m])
        names = self._common(sums)
        objective, *values = world.sum([objective, *(sums[n] for n in names)])
        norm = clip_gradients(list(self._parameters.values()), s.optimiser.clip)
        if math.isfinite(objective) and math.isfinite(norm):
            self._optimiser.step()
            self._skipped_in_a_row = 0
            self._remember(dict(zip(names, values, strict=True)), many)
        else:
            self._skip(objective, norm)
        self._optimiser.zero_grad(set_to_none=True)
        self.step += 1
        positions = sum(item.cost for _, items in micro for item in items)
        return {
            "loss": objective,
            **{n: v for n, v in zip(names, values, strict=True) if n[6:] in many or "." in n},
            **{f"share/{m}": share for m, share in shares.items()},
            "gradient": norm,
            "rate": part,
            "positions": positions,
            "skipped": self.skipped,
            "bad_samples": sum(self.counter.bad.values()),
        }

    def evaluate(self) -> dict[str, float]:
        """The mean objective of each modality on its held-out items, and what it consists of."""
        found: dict[str, float] = {}
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                for m, batches in self._held_out.items():
                    found |= self._evaluate(m, batches)
        finally:
            self.model.train(training)
        return found

    def save(self) -> None:
        """Write a checkpoint. Raises `CheckpointError`."""
        state = {
            **self._identity(),
            "stage": self.stage.name,
            "batches": {m: b.state() for m, b in self._batches.items()},
            "balance": self.balance.state(),
            "since": self._since,
            "bad": self.counter.bad,
            "skipped": [self.skipped, self._skipped_in_a_row],
        }
        self._checkpoints.save(self.step, self._tensors(), state)

    def resume(self) -> bool:
        """Go on from the newest checkpoint; False when there is none. Raises `CheckpointError`."""
        steps = self._checkpoints.steps()
        if not steps:
            return False
        state = self._checkpoints.state(steps[-1])
        refuse_other(self._checkpoints.path(steps[-1]), state, self._identity())
        self._checkpoints.load(steps[-1], self._tensors())
        self.step = state["step"]
        for m, batches in self._batches.items():
            batches.load(state["batches"][m])
        self.balance.load(state["balance"])
        self._since = state["since"]
        self.counter.bad = state["bad"]
        self.skipped, self._skipped_in_a_row = state["skipped"]
        return True

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint and the run that resumes it must have in common."""
        recipe = self.recipe
        shapes = {n: list(p.shape) for n, p in self.model.named_parameters()}
        options = {"options": plain(recipe.model), "tensors": shapes}
        rest = {
            "stage": plain(self.stage),
            "seed": recipe.seed,
            "precision": "bfloat16" if self._bf16 else "float32",
        }
        return {"model": options, "recipe": rest}

    def _tensors(self) -> dict[str, Tensor]:
        buffers = {n: b for n, b in self.model.bridges.named_buffers() if b.is_floating_point()}
        return tensors_of(self._parameters, buffers, self._optimiser)

    def _part(self, micro: Sequence[tuple[str, list[Item]]]) -> list[_Part]:
        """The micro-batches of this process, as many as all have; the last may be no real one."""
        size, rank = self.world.size, self.world.rank
        rounds = -(-len(micro) // size)
        return [
            (*micro[min(i, len(micro) - 1)], i < len(micro))
            for i in range(rank, rounds * size, size)
        ]

    def _loss(self, items: Sequence[Item], reference: Tensor | None) -> Loss:
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self._bf16):
            loss: Loss = self.model(
                lambda model: self.stage.objective.loss(model, items, reference)
            )
        return loss

    def _references(self, groups: Sequence[Sequence[Item]]) -> list[Tensor | None]:
        """What the stage's first weights say of each micro-batch, where the objective asks."""
        objective = self.stage.objective
        if not isinstance(objective, Preference):
            return [None] * len(groups)
        found: list[Tensor | None] = []
        autocast = torch.autocast(self.world.device.type, torch.bfloat16, enabled=self._bf16)
        with self.model.with_values(self._reference), autocast:
            for items in groups:
                found.append(self.model(lambda model, i=items: objective.log_probs(model, i)))
        return found

    def _evaluate(self, modality: str, batches: Sequence[list[Item]]) -> dict[str, float]:
        mine = self._part([(modality, items) for items in batches])
        references = self._references([items for _, items, _ in mine])
        units = sum(item.units for items in batches for item in items)
        sums = {f"train/{modality}": 0.0}
        for (_, items, real), reference in zip(mine, references, strict=True):
            loss = self._loss(items, reference)
            if real:
                self._count(sums, modality, loss, max(units, 1), len(batches))
        names = self._common(sums)
        values = self.world.sum([sums[n] for n in names])
        return {n.removeprefix("train/"): v for n, v in zip(names, values, strict=True)}

    def _count(
        self, sums: dict[str, float], modality: str, loss: Loss, units: int, many: int
    ) -> None:
        """Add a micro-batch's part of its modality's mean objective, and of each part of it."""
        name = f"train/{modality}"
        main = float(loss.total.detach()) / units
        sums[name] += main
        parts = {k: float(t.mean.detach()) for k, t in loss.beside.items()}
        sums[name] += sum(parts[k] * t.weight for k, t in loss.beside.items()) / many
        if parts or loss.seen:
            parts["main"] = main * many
        for key, value in (parts | loss.seen).items():
            sums[f"{name}.{key}"] = sums.get(f"{name}.{key}", 0.0) + value / many

    def _common(self, sums: Mapping[str, float]) -> list[str]:
        """The sums that every process has; the parts of a loss only where one process has all."""
        return sorted(n for n in sums if self.world.size == 1 or "." not in n)

    def _remember(self, means: Mapping[str, float], many: Mapping[str, int]) -> None:
        for m in many:
            total = self._since.setdefault(m, [0.0, 0])
            total[0] += means[f"train/{m}"]
            total[1] += 1

    def _look(self, metrics: Metrics) -> dict[str, float]:
        """Evaluate, let the balance see it, and say it."""
        held_out = self.evaluate()
        train = {m: total / count for m, (total, count) in self._since.items()}
        self._since = {}
        self.balance.observe(train, held_out)
        names = sorted(self._held_out)
        metrics.say(
            f"step {self.step}: held-out loss " + ", ".join(f"{m} {held_out[m]:.4f}" for m in names)
        )
        return {f"held_out/{name}": value for name, value in held_out.items()}

    def _skip(self, objective: float, norm: float) -> None:
        self.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row > self.stage.bad_steps:
            steps = self._checkpoints.steps()
            last = self._checkpoints.path(steps[-1]) if steps else "not there yet"
            raise DivergedError(
                f"the loss was {objective} and the gradient's norm {norm} at step {self.step}, the "
                f"{self._skipped_in_a_row}th step in a row that is not finite; lower the learning "
                f"rate or look at the data. The last checkpoint is {last}"
            )
