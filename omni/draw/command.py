"""``omni draw``: make a picture, train what draws, and see how well it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from omni.errors import InputError
from omni.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from omni.draw.wishes import Wish

draw_app = typer.Typer(help="Draw pictures, and train what draws them.", no_args_is_help=True)

Model = Annotated[str, typer.Option(help="The LLM whose hidden states it reads.")]
Folder = Annotated[
    Path | None, typer.Option("--from", help="Where a trained one is; default: what is installed.")
]


@draw_app.command("make")
def make(
    words: Annotated[str, typer.Argument(help='What to draw: "a red apple", "两只蓝色的猫".')],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG, JPEG or WebP.")] = Path("out.png"),
    pictures: Annotated[
        str | None, typer.Option(help="A directory of 'omni draw train', or a diffusers pipeline.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    seed: Annotated[int, typer.Option(min=0, help="The same one gives the same picture.")] = 0,
) -> None:
    """Draw one picture into a file."""
    from PIL import Image

    from decoders.pictures import Pictures
    from omni.draw.wishes import described
    from omni.draw.words import PromptReader
    from omni.llm.model import load

    if not words.strip():
        raise InputError("there are no words; say what to draw", param="words")
    wish = described(words)
    source = Pictures(pictures, _name(model))
    if source.problem is not None:
        raise InputError(source.problem)
    painter = source.load(lambda prompt: PromptReader(load(model)).read(prompt))
    pixels = painter.paint(wish, seed=seed)
    try:
        Image.fromarray(pixels).save(out)
    except (OSError, ValueError) as error:
        raise InputError(f"{out} cannot be written ({error})", param="out") from None
    typer.echo(f"{out}: {wish.prompt}")
    if not painter.knows(wish):
        typer.echo("This was not learnt; it is what comes nearest.", err=True)


@draw_app.command("train")
def train(
    out: Annotated[
        Path | None, typer.Option(help="Default: OMNI_HOME/draw, where it is found.")
    ] = None,
    stage: Annotated[
        Literal["codec", "decoder"] | None, typer.Option(help="Only this stage.")
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="Time for each stage; run it again to go on.")
    ] = 30,
    subjects: Annotated[
        int | None, typer.Option(min=1, help="How many, those most asked for first.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
) -> None:
    """Train the codec and the decoder of picture tokens; what was stopped goes on.

    The pictures are made on the spot from 'omni data pull fluent'. Once a decoder was begun, the
    codec keeps its tokens and learns only to make better pixels of them.
    """
    import torch

    from omni.draw.training import train_codec, train_tokens
    from omni.weights.store import home

    if threads is not None:
        torch.set_num_threads(threads)
    folder = out or home() / "draw"
    if stage != "decoder":
        train_codec(folder, minutes, typer.echo, most=subjects)
    if stage != "codec":
        train_tokens(folder, model, minutes, typer.echo, most=subjects)


@draw_app.command("eval")
def evaluate(
    pictures: Annotated[
        str | None, typer.Option(help="A directory of 'omni draw train'; default: the installed.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    count: Annotated[int, typer.Option(min=1, help="Prompts of each kind.")] = 60,
    grid: Annotated[
        Path | None, typer.Option(help="Write the pictures here, as one PNG, none left out.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw prompts, and see whether the pictures are nearest to what was asked for."""
    import json as json_module
    from dataclasses import asdict

    import numpy as np
    from PIL import Image

    from decoders.pictures import Pictures, TokenPainter
    from omni.draw.evaluate import evaluate as measure
    from omni.draw.words import PromptReader
    from omni.llm.model import load

    llm = load(model)
    painter = Pictures(pictures, llm.name).load(PromptReader(llm).read)
    if not isinstance(painter, TokenPainter):
        raise InputError("only a directory of 'omni draw train' knows what it has learnt")
    made: list[np.ndarray] = []

    def paint(wish: Wish, seed: int) -> np.ndarray:
        made.append(painter.paint(wish, seed=seed))
        return made[-1]

    figures = measure(paint, painter.known, count)
    if grid is not None:
        rows = [made[i : i + 12] for i in range(0, len(made) - len(made) % 12, 12)]
        whole = Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows]))
        whole.resize((12 * 64, len(rows) * 64), Image.Resampling.LANCZOS).save(grid)
    if json:
        typer.echo(json_module.dumps({kind: asdict(f) for kind, f in figures.items()}))
        return
    for kind, f in figures.items():
        typer.echo(
            f"{kind}: {f.prompts} prompts, subject {f.subject:.0%}, colour {f.colour:.0%}, "
            f"both {f.both:.0%}, {f.seconds:.2f} s"
        )


def _name(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1]
