"""``omni index``: make an index of pictures and things, keep it up to date, search it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omni.errors import InputError

if TYPE_CHECKING:
    from omni.search import Index, Item, Report, Unusable

index_app = typer.Typer(
    help="Find pictures and things by description: index them, then search.", no_args_is_help=True
)

_Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="SOURCE...", help="Folders of pictures, pictures, .csv or .jsonl files."
    ),
]
_Directory = Annotated[
    Path | None,
    typer.Option("--index", help="Directory of the index; default: in OMNI_HOME."),
]
_Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")
]


@index_app.command()
def build(
    sources: _Sources,
    index: _Directory = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget the index that is there, and make it anew.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Index just what the sources hold; run it again after a change, or to go on."""
    items = _items(sources)
    opened = _open(index, create=True, fresh=fresh)
    _change(opened, opened.build, items, as_json)


@index_app.command()
def add(sources: _Sources, index: _Directory = None, as_json: _Json = False) -> None:
    """Add what the index does not have yet."""
    items = _items(sources)
    opened = _open(index, create=True)
    _change(opened, opened.add, items, as_json)


@index_app.command()
def update(sources: _Sources, index: _Directory = None, as_json: _Json = False) -> None:
    """Look again at what the index has where it has changed."""
    items = _items(sources)
    opened = _open(index)
    _change(opened, opened.update, items, as_json)


@index_app.command()
def delete(
    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID|SOURCE...", help="Ids, or sources whose items are taken out."),
    ],
    index: _Directory = None,
    as_json: _Json = False,
) -> None:
    """Take items out of the index; their files stay."""
    from omni.search import Item, read_items

    def named() -> Iterator[str]:
        for given in ids:
            if Path(given).is_dir() or Path(given).suffix.lower() in (".csv", ".tsv", ".jsonl"):
                yield from (i.id for i in read_items(Path(given)) if isinstance(i, Item))
            else:
                yield given
                yield Path(given).resolve().as_posix()

    opened = _open(index)
    count = opened.delete(named())
    typer.echo(f"{count} deleted; {len(opened)} items are left.", err=as_json)
    if as_json:
        typer.echo(json.dumps({"deleted": count, "items": len(opened)}))
    if not count:
        raise typer.Exit(1)


@index_app.command()
def info(index: _Directory = None, as_json: _Json = False) -> None:
    """Say what an index holds and which models made it."""
    about = _open(index).about()
    typer.echo(
        f"{about['directory']}: {about['items']} items, {about['with_picture']} with a picture, "
        f"{about['with_price']} with a price; {about['bytes'] / 1e6:.1f} MB",
        err=as_json,
    )
    for role, model in about["models"].items():
        typer.echo(f"  {role}: {model}", err=as_json)
    if as_json:
        typer.echo(json.dumps(about, ensure_ascii=False))


@index_app.command()
def search(
    request: Annotated[
        str | None,
        typer.Argument(help="What to find, in English or Chinese: 'red dress, long, under 50'."),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A picture to find alike ones.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100, help="Results at most.")
    ] = 10,
    index: _Directory = None,
    as_json: _Json = False,
) -> None:
    """Find what fits a description, a picture, or both; prices and negations are conditions."""
    if request is None and image is None:
        raise InputError("say what to find, or give a picture with --image", param="request")
    picture = None
    if image is not None:
        from encoders.media import load_image

        picture = load_image(image, max_side=512)
    found = _open(index).search(request, picture, limit=limit)
    for note in found.notes:
        typer.echo(f"Note: {note}", err=True)
    if as_json:
        typer.echo(
            json.dumps(
                {"results": [hit.wire() for hit in found.hits], "notes": list(found.notes)},
                ensure_ascii=False,
            )
        )
        return
    for hit in found.hits:
        price = "" if hit.price is None else f"{hit.price:g} {hit.currency or ''}".strip()
        about = ", ".join(
            part
            for part in (hit.title or hit.text[:60] or hit.seen, price, *hit.attributes.values())
            if part
        )
        typer.echo(f"{hit.score:.3f}  {hit.picture or hit.id}{'  ' + about if about else ''}")
    if not found.hits:
        typer.echo("Nothing fits.")


def _open(directory: Path | None, **options: bool) -> Index:
    from runtime.search import open_index

    return open_index(directory, **options)


def _items(sources: list[Path]) -> Iterator[Item | Unusable]:
    """What the sources hold; the first is read now, so that wrong ones leave no empty index."""
    from itertools import chain

    from omni.search import read_items

    missing = [str(source) for source in sources if not source.exists()]
    if missing:
        raise InputError(f"there is no folder or file {', '.join(missing)}", param="source")
    items = chain.from_iterable(read_items(source) for source in sources)
    return chain([next(items)], items)


def _change(
    index: Index,
    change: Callable[[Iterable[Item | Unusable], Callable[[Report], None]], Report],
    items: Iterable[Item | Unusable],
    as_json: bool,
) -> None:
    from rich.console import Console

    with Console(stderr=True).status("Indexing …") as status:

        def told(report: Report) -> None:
            made = report.added + report.updated
            rate = made / report.seconds if report.seconds else 0.0
            status.update(f"Indexing … {made} ({rate:.0f} a second), {report.unchanged} unchanged")

        report = change(items, told)
    for problem in report.problems:
        typer.echo(f"✗ {problem.name}: {problem.why}", err=True)
    if report.unusable > len(report.problems):
        typer.echo(f"✗ … and {report.unusable - len(report.problems)} more", err=True)
    counts: dict[str, Any] = {
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "left_out": report.left_out,
        "deleted": report.deleted,
        "unusable": report.unusable,
    }
    parts = [f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count]
    typer.echo(
        f"{', '.join(parts) or 'nothing to do'} in {report.seconds:.1f} s; "
        f"the index in {index.directory} has {len(index)} items.",
        err=as_json,
    )
    if as_json:
        seconds = round(report.seconds, 2)
        typer.echo(json.dumps({**counts, "seconds": seconds, "items": len(index)}))
    if report.unusable and not len(index):
        raise typer.Exit(1)
