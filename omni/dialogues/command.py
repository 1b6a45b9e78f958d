"""``omni test``: play dialogues and report what came of them."""

from __future__ import annotations

import asyncio
import contextlib
import json as json_module
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omni.errors import InputError, OmniError

if TYPE_CHECKING:
    from omni.dialogues.results import DialogueResult, Run

LIBRARY = Path(__file__).parent / "library"
_MARKS = {"passed": "✓", "failed": "✗", "known failure": "·", "unexpected pass": "!"}


def play_dialogues(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Dialogues, and folders with *.dialogue.yaml; default: those that Omni ships."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="A running server; default: one is started for the run.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="API key of that server.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model of a server that is started.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Only dialogues with this tag (repeatable).")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Play each so often, instead of as it says.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a JUnit report.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a page with all sound and times, and the run."),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="The --html DIR of an earlier run, to compare with."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the run as JSON only.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of dialogues, and end.")
    ] = False,
) -> None:
    """Play dialogues as tests: the exit status is 0 when all pass, 1 when not, 2 when none can."""
    if schema:
        from omni.dialogues.format import schema as make

        typer.echo(json_module.dumps(make(), indent=2))
        return
    from omni.dialogues.report import terminal, write_html, write_junit
    from omni.dialogues.results import load, save

    try:
        if compare is not None and html is None:
            raise InputError("--compare shows two runs side by side; it needs --html DIR, too")
        earlier = load(compare) if compare is not None else None
        with _played(paths or [LIBRARY], url, api_key, model, tag or [], repeats, json) as run:
            if html is not None:
                run = save(run, html)
                write_html(run, html, earlier)
            if junit is not None:
                write_junit(run, junit)
            if json:
                typer.echo(run.to_json())
            else:
                terminal(run)
    except OmniError as error:
        typer.echo(f"omni: {error}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"omni: a report cannot be written: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(0 if run.passed else 1)


@contextlib.contextmanager
def _played(
    paths: list[Path],
    url: str | None,
    api_key: str | None,
    model: str | None,
    tags: list[str],
    repeats: int | None,
    quiet: bool,
) -> Iterator[Run]:
    """Play; the recordings are there until the block ends."""
    from rich.console import Console

    from omni.dialogues.reading import find
    from omni.dialogues.runner import run
    from omni.dialogues.service import Service, local_server

    found = find(paths)
    console = Console(stderr=True, quiet=quiet)

    def tell(result: DialogueResult) -> None:
        mark = _MARKS[result.status]
        console.print(f" {mark} {result.name} ({result.seconds:.1f} s)", markup=False)

    async def play(address: str, folder: Path) -> Run:
        async with Service(address, api_key, folder) as service:
            return await run(found, service, repeats=repeats, tags=tags, on_result=tell)

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="omni-dialogues-"))
        if url is None:
            with console.status("Loading the models …"):
                url = stack.enter_context(local_server(model))
        played = asyncio.run(play(url, Path(folder)))
        if not played.dialogues:
            raise InputError(f"no dialogue has the tag {' or '.join(tags)}", param="tag")
        yield played
