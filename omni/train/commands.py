"""``omni train``: run a recipe, or compare the ways to balance modalities."""

from __future__ import annotations

import json as json_module
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from omni.errors import InputError


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A shipped recipe by name, or a .py file with `recipe = …`."
        ),
    ],
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where checkpoints go; default: train/RECIPE.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a field: stages.pretrain.steps=100 (repeatable).",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    budget: Annotated[
        float | None, typer.Option(min=0, metavar="MINUTES", help="Save and stop after so long.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write figures for TensorBoard too.")
    ] = False,
    ablate: Annotated[
        Literal["balance"] | None,
        typer.Option(help="Instead, train a stage with plain mixing, step and adaptive balance."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each kind with --ablate.")] = 1,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.md", help="With --ablate: the table goes here, the plot beside it (.svg)."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line.")
    ] = False,
) -> None:
    """Train by a recipe, all stages or one; `torchrun -m omni.cli train …` uses many processes."""
    from omni.train.config import override
    from omni.train.recipe import load_recipe

    chosen = override(load_recipe(recipe), assignments or ())
    if tensorboard:
        chosen = replace(chosen, tensorboard=True)
    where = out or Path("train") / chosen.name
    if ablate is not None:
        from omni.train.ablate import ablate as run_ablation

        if resume or budget is not None:
            raise InputError("--ablate takes neither --resume nor --budget", param="ablate")
        table = run_ablation(chosen, where, stage=stage, seeds=seeds, device=device)
        typer.echo(table.markdown())
        if report is not None:
            table.write(report)
        if json:
            typer.echo(json_module.dumps(table.plain()))
        return
    if report is not None or seeds != 1:
        raise InputError("--report and --seeds belong to --ablate", param="report")
    from omni.train.run import train as run

    result = run(chosen, where, stage=stage, resume=resume, device=device, minutes=budget)
    if os.environ.get("RANK", "0") != "0":
        return
    if json:
        typer.echo(json_module.dumps(asdict(result)))
        return
    for name, losses in result.held_out.items():
        shown = ", ".join(f"{m} {v:.4f}" for m, v in losses.items() if "." not in m)
        typer.echo(f"{name}: held-out loss {shown}")
    if result.bad_samples or result.skipped:
        typer.echo(f"{result.bad_samples} bad samples, {result.skipped} steps skipped", err=True)
    if not result.finished:
        typer.echo(
            f"Time is up at step {result.step} of stage {result.stage!r}; go on with --resume.",
            err=True,
        )
