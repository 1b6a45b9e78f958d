"""``omni models``: see, download, find and check the model weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from omni.errors import OmniError
from omni.weights import store
from omni.weights.catalog import DEFAULT_NAMES
from omni.weights.progress import default_progress

models_app = typer.Typer(
    help="See, download, find and check the model weights.", no_args_is_help=True
)

_Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")
]
_Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAMES", help="Names as `omni models list` shows them."),
]


@models_app.command("list")
def list_models(as_json: _Json = False) -> None:
    """List the known weights: what they are for, their size, licence and whether they are here."""
    found = store.status()
    if as_json:
        return _print_json(home=str(store.home()), models=[_as_dict(entry) for entry in found])
    for entry in found:
        mark = "*" if entry.default else " "
        have = f" ({entry.present / entry.size:.0%})" if entry.state == "partial" else ""
        typer.echo(
            f"{mark} {entry.name:<20} {entry.size / 1e6:7.1f} MB  {entry.state + have:<13} "
            f"{entry.licence:<13} {entry.purpose}"
        )
    typer.echo(f"\n* needed by `omni demo`. Kept in {store.home()} (set OMNI_HOME to change it).")


@models_app.command()
def pull(names: _Names = None, as_json: _Json = False) -> None:
    """Download weights that are not here yet; without NAMES, all that `omni demo` needs."""
    with _errors(as_json):
        paths = store.ensure_all(names or DEFAULT_NAMES)
    if as_json:
        return _print_json(paths={name: str(path) for name, path in paths.items()})
    for name, path in paths.items():
        typer.echo(f"{name}: {path}")


@models_app.command()
def path(
    name: Annotated[str, typer.Argument(help="A name as `omni models list` shows it.")],
    as_json: _Json = False,
) -> None:
    """Print where the file or directory of NAME is; fails when it is not downloaded yet."""
    with _errors(as_json):
        found = store.status([name])[0]
        if found.state not in ("ready", "unverified"):
            raise OmniError(f"{name} is {found.state}; get it with `omni models pull {name}`")
    if as_json:
        return _print_json(name=name, path=str(found.path))
    typer.echo(str(found.path))


@models_app.command()
def verify(names: _Names = None, as_json: _Json = False) -> None:
    """Hash what is here again; sets wrong files aside, and then exits with 1."""
    with _errors(as_json):
        found = store.verify(names or None, default_progress())
    broken = [entry.name for entry in found if entry.state == "corrupt"]
    if as_json:
        _print_json(ok=not broken, models=[_as_dict(entry) for entry in found])
    else:
        for entry in found:
            typer.echo(f"{entry.name}: {'ok' if entry.state == 'ready' else entry.state}")
        if broken:
            typer.echo(f"get them anew with `omni models pull {' '.join(broken)}`", err=True)
    if broken:
        raise typer.Exit(1)


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """Print an error of Omni and exit with 1."""
    try:
        yield
    except OmniError as error:
        typer.echo(f"error: {error}", err=True)
        if as_json:
            _print_json(error=str(error))
        raise typer.Exit(1) from error


def _as_dict(entry: store.Status) -> dict[str, Any]:
    return {**dataclasses.asdict(entry), "path": str(entry.path)}


def _print_json(**values: Any) -> None:
    typer.echo(json.dumps(values))
