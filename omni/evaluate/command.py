"""``omni eval``: measure what the assistant hears, sees and knows."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from omni.errors import InputError
from omni.weights import DEFAULT_MODEL
from omni.weights.store import home

if TYPE_CHECKING:
    from omni.evaluate.run import Show

PARTS = (
    "hearing", "questions", "photographs", "pictures", "easy-vqa", "text", "drawing", "search",
    "latency",
)  # fmt: skip
SLOW = ("drawing", "search")
"""Parts that take minutes however few their samples."""


def evaluate(
    parts: Annotated[
        list[str] | None,
        typer.Argument(help=f"What to measure: {', '.join(PARTS)}; default: all."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute's sample, without drawing and search.")
    ] = False,
    bridge: Annotated[
        Literal["text", "adapter", "all"],
        typer.Option(help="How media reach the language model: as words, by adapters, or each."),
    ] = "all",
    ear: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="The audio adapter to measure; see `omni serve`."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="The language model, as of `omni serve`.")
    ] = DEFAULT_MODEL,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads for each model; default: the cores.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Samples of a measure at most.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the samples and the intervals.")] = 0,
    data: Annotated[
        Path | None,
        typer.Option(help="Where the held-out sets are; default: data below OMNI_HOME."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown.")
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Write what was asked, what came, and the mark."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line.")
    ] = False,
) -> None:
    """Measure what is heard, seen and known on held-out data, by each bridge, with intervals."""
    chosen = list(dict.fromkeys(parts or [p for p in PARTS if not quick or p not in SLOW]))
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        raise InputError(
            f"there is no part {unknown[0]!r} to measure; choose: {', '.join(PARTS)}", param="parts"
        )
    if log is not None and (log.is_dir() or not log.absolute().parent.is_dir()):
        raise InputError(f"cannot write to {log}; --log takes a file in a directory that exists")
    from omni.evaluate import report
    from omni.evaluate.bridges import load
    from omni.evaluate.parts import PARTS as MEASURES
    from omni.evaluate.run import Run
    from omni.evaluate.samples import check

    where = data or home() / "data"
    check(where, chosen)
    began = time.monotonic()
    bridges, missing = load(model, bridge, ear=ear, threads=threads)
    with ExitStack() as stack:
        show, say = stack.enter_context(_progress())
        run = Run(bridges, where, seed, quick, limit, show, lambda row: say(report.line(row)))
        if log is not None:
            file = stack.enter_context(log.open("w", encoding="utf-8"))
            run.log = lambda entry: print(
                json_module.dumps(entry, ensure_ascii=False), file=file, flush=True
            )
        for name in chosen:
            MEASURES[name](run)
    typer.echo((report.markdown if markdown else report.render)(run.rows))
    for why in missing:
        typer.echo(f"Left out: {why}", err=True)
    if run.problems:
        typer.echo(
            f"{len(run.problems)} could not be measured; the first: {run.problems[0]}", err=True
        )
    if json:
        result = {
            "model": bridges[0].llm.name,
            "kernels": bridges[0].llm.describe().kernels,
            "seed": seed,
            "quick": quick,
            "seconds": round(time.monotonic() - began, 1),
            "bridges": [b.name for b in bridges],
            "left_out": missing,
            "problems": run.problems,
            "rows": report.plain(run.rows),
        }
        typer.echo(json_module.dumps(result, ensure_ascii=False))


@contextmanager
def _progress() -> Iterator[tuple[Show, Callable[[str], None]]]:
    """Bars on a terminal, and a way to say something above them."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not sys.stderr.isatty()
    ) as bars:

        def show(what: str, total: int) -> Callable[[], None]:
            for task in bars.task_ids:
                bars.remove_task(task)  # only what goes on now
            task = bars.add_task(what, total=total)
            return lambda: bars.advance(task)

        yield show, partial(console.print, markup=False, highlight=False, soft_wrap=True)
