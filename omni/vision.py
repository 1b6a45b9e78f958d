"""``omni caption``, ``omni vqa`` and ``omni match``: what pictures show."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omni.errors import InputError, MediaError
from omni.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from runtime.vision import Seen, Vision

Files = Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Picture files.")]
Model = Annotated[str, typer.Option("--model", "-m", help="The language model.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for each picture.")]


def caption(pictures: Files, model: Model = DEFAULT_MODEL, json: Json = False) -> None:
    """Describe pictures, each in a sentence."""
    vision, bad = _vision(model), list[Path]()
    for path, seen in _look(vision, pictures, bad):
        said = vision.caption(seen)
        if json:
            _print(picture=str(path), caption=said.text, probability=said.probability)
        else:
            typer.echo(f"{path}: {said.text}")
    _end(bad)


def vqa(
    picture: Annotated[Path, typer.Argument(help="A picture file.")],
    questions: Annotated[
        list[str], typer.Argument(metavar="QUESTION...", help="Questions about it, in quotes.")
    ],
    model: Model = DEFAULT_MODEL,
    json: Json = False,
) -> None:
    """Answer questions about a picture, each with its probability."""
    vision, bad = _vision(model), list[Path]()
    for _, seen in _look(vision, [picture], bad):
        for question in questions:
            said = vision.answer(seen, question)
            if json:
                _print(question=question, answer=said.text, probability=said.probability)
            else:
                typer.echo(f"{said.text} ({said.probability:.0%})")
    _end(bad)


def match(
    pictures: Files,
    text: Annotated[
        list[str], typer.Option("--text", "-t", help="A sentence; give as many as you like.")
    ],
    model: Model = DEFAULT_MODEL,
    json: Json = False,
) -> None:
    """Say how probably sentences are true of pictures; the best picture of each sentence first."""
    if not all(sentence.strip() for sentence in text):
        raise InputError("a sentence is empty; give --text some words", param="text")
    vision, bad = _vision(model), list[Path]()
    found = [(path, vision.match(seen, text)) for path, seen in _look(vision, pictures, bad)]
    if json:
        for path, scores in found:
            _print(picture=str(path), scores=dict(zip(text, scores, strict=True)))
        return _end(bad)
    for i, sentence in enumerate(text):
        typer.echo(sentence)
        for path, scores in sorted(found, key=lambda one: -one[1][i]):
            typer.echo(f"  {scores[i]:4.0%}  {path}")
    _end(bad)


def _vision(model: str) -> Vision:
    from omni.weights import ensure_all
    from runtime.assembly import Assembly
    from runtime.vision import Vision

    assembly = Assembly(model)
    ensure_all(assembly.weights)
    return Vision(assembly.build())


def _look(vision: Vision, paths: list[Path], bad: list[Path]) -> Iterator[tuple[Path, Seen]]:
    """Look at each picture; one that cannot be read is told and goes to ``bad``."""
    from encoders.media import load_image

    for path in paths:
        try:
            frame = load_image(path)
        except MediaError as error:
            typer.echo(f"{error}", err=True)
            bad.append(path)
            continue
        yield path, vision.see(frame)


def _end(bad: list[Path]) -> None:
    if bad:
        raise typer.Exit(1)


def _print(**values: object) -> None:
    typer.echo(json_module.dumps(values, ensure_ascii=False))
