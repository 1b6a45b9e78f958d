"""A recipe from its first stage to its last, with what each stage leaves behind."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from omni.errors import InputError, WeightsError
from omni.train.checkpoint import CheckpointError, Checkpoints
from omni.train.config import plain
from omni.train.model import OmniModel
from omni.train.recipe import Recipe
from omni.train.trainer import Trainer
from omni.train.world import World, whole, world

WEIGHTS = "weights.safetensors"
"""What a finished stage leaves: every parameter that a stage may train."""


@dataclass(frozen=True, slots=True)
class Result:
    """How far a run came. ``held_out``: the last held-out losses of each finished stage."""

    finished: bool
    stage: str
    step: int
    seconds: float
    held_out: Mapping[str, Mapping[str, float]]
    bad_samples: int
    skipped: int


def train(
    recipe: Recipe,
    out: Path,
    *,
    stage: str | None = None,
    resume: bool = False,
    device: str = "auto",
    minutes: float | None = None,
    quiet: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Run all stages of a recipe, or one, in this process or as one of those of ``torchrun``.

    Args:
        recipe: What to train.
        out: Each stage has a directory of its own here: checkpoints, ``metrics.jsonl`` and, at the
            end, ``weights.safetensors``, with which the next one begins.
        stage: Only this one.
        resume: Go on in ``out``: finished stages are passed over, the next one goes on from its
            newest checkpoint.
        device: "auto", "cpu", "cuda" ...
        minutes: Save and stop after so long.
        quiet: Report nothing to the terminal and write no metrics.
        clock: Seconds, for the budget.

    Raises:
        InputError: the recipe does not fit, or ``out`` holds a run and ``resume`` is False.
        CheckpointError: a checkpoint cannot be written or read, or is of another run.
        DivergedError: the loss was not finite for too many steps.
        WeightsError: the LLM cannot be had.

    """
    begin = clock()
    chosen = range(len(recipe.stages)) if stage is None else [recipe.stage(stage)]
    _check_out(recipe, out, chosen, resume)
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    held_out: dict[str, dict[str, float]] = {}
    bad = skipped = 0
    with world(device) as here:
        for index in chosen:
            name = recipe.stages[index].name
            if (out / name / WEIGHTS).exists():
                continue
            trainer = _prepare(recipe, index, out, here)
            if resume:
                trainer.resume()
            done = trainer.run(
                lambda: minutes is not None and clock() - begin > 60 * minutes, quiet=quiet
            )
            bad += sum(trainer.counter.bad.values())
            skipped += trainer.skipped
            if not done:
                return Result(False, name, trainer.step, clock() - begin, held_out, bad, skipped)
            held_out[name] = trainer.evaluate()
            _leave(recipe, index, trainer.model, out / name, here)
    return Result(
        True, name, recipe.stages[chosen[-1]].steps, clock() - begin, held_out, bad, skipped
    )


def load_weights(model: OmniModel, path: Path) -> None:
    """Put what a stage left into a model. Raises `WeightsError` when it is of another."""
    try:
        with safe_open(path, framework="pt") as file:
            values: dict[str, Tensor] = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise WeightsError(f"{path} cannot be read ({error}); train the stage again") from error
    shapes = {n: p.shape for n, p in model.learned().items()}
    if shapes != {n: v.shape for n, v in values.items()}:
        odd = sorted(n for n in shapes.keys() | values.keys() if n not in shapes or n not in values)
        raise WeightsError(
            f"{path} is of another model: {odd[0] if odd else 'a shape'} differs; use the recipe "
            "that made it, or another --out"
        )
    model.put(values)


def export(recipe: Recipe, weights: Path, directory: Path) -> None:
    """Write the LLM, LoRA merged, in Hugging Face layout, and the bridges as safetensors beside it.

    Raises `WeightsError` as `load_weights`.
    """
    model = recipe.model.build(recipe.seed)
    load_weights(model, weights)
    llm = model.llm.merge_and_unload() if model.lora else model.llm
    llm.save_pretrained(directory)
    for name, bridge in model.bridges.items():
        save_file(bridge.state_dict(), directory / f"{name}.safetensors")


def _check_out(recipe: Recipe, out: Path, chosen: range | list[int], resume: bool) -> None:
    stages = [recipe.stages[i].name for i in chosen]
    begun = [
        name
        for name in stages
        if (out / name / WEIGHTS).exists() or Checkpoints(out / name, keep=1).steps()
    ]
    if begun and not resume:
        raise InputError(
            f"{out} already holds {', '.join(begun)}; go on with --resume or choose another --out",
            param="out",
        )
    before = recipe.stages[chosen[0] - 1].name if chosen[0] else None
    if before is not None and not (out / before / WEIGHTS).exists():
        raise InputError(
            f"stage {stages[0]!r} begins with what {before!r} leaves, and {out / before} holds no "
            f"{WEIGHTS}; train {before!r} first",
            param="stage",
        )


def _prepare(recipe: Recipe, index: int, out: Path, here: World) -> Trainer:
    stage = recipe.stages[index]
    torch.manual_seed(recipe.seed)
    model = recipe.model.build(recipe.seed)
    if index:
        load_weights(model, out / recipe.stages[index - 1].name / WEIGHTS)
    sources = {
        name: stage.data[name].build(recipe.model, recipe.seed) for name in sorted(stage.data)
    }
    model.freeze(stage.train)
    model.to(here.device).train()
    here.shard(model)
    return Trainer(recipe, index, model, sources, out / stage.name, here)


def _leave(recipe: Recipe, index: int, model: OmniModel, directory: Path, here: World) -> None:
    """Write the stage's weights and recipe, whole or not at all."""
    values = {n: whole(p.detach()).cpu().contiguous() for n, p in model.learned().items()}
    if here.first:
        card = {"recipe": recipe.name, "stage": recipe.stages[index].name, "seed": recipe.seed}
        (directory / "recipe.json").write_text(json.dumps(plain(recipe), indent=1), "utf-8")
        temporary = directory / f".{WEIGHTS}.tmp"
        try:
            # One entry, because safetensors writes several in any order.
            save_file(values, temporary, {"omni": json.dumps(card)})
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(directory / WEIGHTS)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise CheckpointError(
                f"{directory / WEIGHTS} cannot be written ({error}); make room and go on with "
                "--resume"
            ) from error
    if here.size > 1:
        dist.barrier()
