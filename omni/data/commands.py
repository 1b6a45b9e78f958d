"""``omni data``: fetch sets, make training data of them, and look at what was made."""

from __future__ import annotations

import json as json_module
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omni.errors import InputError
from omni.weights.store import home

if TYPE_CHECKING:
    from omni.data.sample import Sample

data_app = typer.Typer(help="Fetch, make and look at data to train on.", no_args_is_help=True)
KINDS = ("speech", "questions", "pictures", "easy-vqa", "photos", "text", "talk")

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
_To = Annotated[
    Path | None, typer.Option("--to", help="Where; default: data/KIND under Omni's home.")
]


@data_app.command("list")
def list_sets(json: _Json = False) -> None:
    """List the sets that can be pulled: what they hold, their size and licence."""
    from omni.data.sets import SETS

    for s in SETS.values():
        mark = "✓" if s.path.exists() else " "
        use = "" if s.ships else " (to train with by choice, never shipped)"
        typer.echo(f"{mark} {s.name:<14} {s.size / 1e6:6.1f} MB  {s.licence}{use}\n    {s.holds}")
    typer.echo(f"\n✓ here, in {home() / 'data' / 'sets'}.")
    if json:
        _print_json(
            sets=[
                {
                    "name": s.name,
                    "holds": s.holds,
                    "bytes": s.size,
                    "licence": s.licence,
                    "attribution": s.attribution,
                    "ships": s.ships,
                    "path": str(s.path) if s.path.exists() else None,
                }
                for s in SETS.values()
            ]
        )


@data_app.command()
def pull(
    names: Annotated[
        list[str] | None, typer.Argument(help="Sets as `omni data list` shows them; default: all.")
    ] = None,
    json: _Json = False,
) -> None:
    """Download sets that are not here yet, check their sha256 and unpack them."""
    from omni.data import sets

    chosen = [sets.set_of(name) for name in names or sets.SETS]
    paths = {s.name: str(sets.pull(s.name)) for s in chosen}
    for name, path in paths.items():
        typer.echo(f"{name}: {path}")
    if json:
        _print_json(paths=paths)


@data_app.command()
def make(
    kinds: Annotated[list[str], typer.Argument(help=f"Any of: {', '.join(KINDS)}.")],
    part: Annotated[
        str,
        typer.Option(
            help="train or held_out; of what is spoken also train_voices, held_out_voices."
        ),
    ] = "train",
    hours: Annotated[float, typer.Option(min=0.01, help="Of speech.")] = 1.0,
    count: Annotated[int, typer.Option(min=1, help="Samples of everything else, at least.")] = 2048,
    photos: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A folder of more photographs to label."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same data.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; default: the cores.")
    ] = None,
    to: _To = None,
    json: _Json = False,
) -> None:
    """Make training data; what was interrupted goes on at the shard it was in."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise InputError(f"there is no data {unknown[0]!r} to make; choose: {', '.join(KINDS)}")
    if to is not None and len(kinds) > 1:
        raise InputError("--to names the place of one kind of data; make them one by one")
    cores = workers or os.cpu_count() or 1
    made = {}
    for kind in kinds:
        folder = to or home() / "data" / kind
        typer.echo(f"{kind}, {part}: {folder / part}")
        index = _make(kind, folder, part, hours, count, photos, seed, cores)
        typer.echo(f"  {index.samples} samples in {len(index.shards)} shards")
        made[kind] = {"path": str(folder / part), "samples": index.samples}
    if json:
        _print_json(made=made)


@data_app.command()
def inspect(
    directory: Annotated[
        Path, typer.Argument(help="A folder with shards, or one of such folders.")
    ],
    sheet: Annotated[
        Path | None, typer.Option(help="Write a page with samples to see and hear there.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many samples the page shows.")] = 48,
    verify: Annotated[bool, typer.Option(help="Hash every shard.")] = False,
    json: _Json = False,
) -> None:
    """Say what data holds: counts, lengths, sources, licences; and show samples on a page."""
    from omni.data.inspect import contact_sheet, render, summarise
    from omni.data.shards import INDEX, verify_shards

    folders = [p.parent for p in sorted(directory.rglob(INDEX))]
    if not folders:
        raise InputError(f"there is no data in {directory}; make some with `omni data make`")
    summaries = {}
    for folder in folders:
        if verify:
            verify_shards(folder)
        summaries[str(folder)] = summary = summarise(folder)
        typer.echo(render(folder, summary))
    if sheet is not None:
        sheet.write_text(contact_sheet(folders, samples), encoding="utf-8")
        typer.echo(f"samples: {sheet}")
    if json:
        _print_json(data=summaries)


def _make(
    kind: str,
    folder: Path,
    part: str,
    hours: float,
    count: int,
    photos: Path | None,
    seed: int,
    workers: int,
) -> Any:
    from omni.data import conversations, pictures, speech
    from omni.data.shards import Shard, make_shards, write_shards

    def told(shard: Shard) -> None:
        typer.echo(f"  {shard.name}: {shard.samples} samples, {shard.bytes / 1e6:.1f} MB")

    _check_part(part, speech.PARTS if kind in ("speech", "questions") else ("train", "held_out"))
    if kind == "speech":
        return speech.make_speech(folder, hours, part=part, seed=seed, workers=workers, done=told)
    if kind in ("easy-vqa", "photos"):
        found: Iterable[Sample] = (
            pictures.easy_vqa(part) if kind == "easy-vqa" else pictures.photos(part, photos)
        )
        recipe = {"data": kind, "part": part, "photos": str(photos) if photos else None}
        return write_shards(found, folder / part, size=512, recipe=recipe)
    if kind == "talk":
        from omni.data.talk import talk
        from omni.llm.model import load
        from omni.weights import DEFAULT_MODEL

        own = {"data": kind, "part": part, "seed": seed, "count": count, "llm": DEFAULT_MODEL}
        samples = talk(load(DEFAULT_MODEL), part, count, seed)
        return write_shards(samples, folder / part, size=64, recipe=own)
    makers: dict[str, Callable[..., Any]] = {
        "questions": conversations.Questions,
        "text": conversations.Text,
        "pictures": pictures.Pictures,
    }
    maker = makers[kind](part, seed)
    shards = -(-count // maker.size)
    return make_shards(
        maker, folder / part, shards, recipe=maker.recipe(), workers=workers, done=told
    )


def _check_part(part: str, parts: Iterable[str]) -> None:
    if part not in parts:
        raise InputError(f"there is no part {part!r}; choose: {', '.join(parts)}", param="part")


def _print_json(**values: Any) -> None:
    typer.echo(json_module.dumps(values, ensure_ascii=False))
