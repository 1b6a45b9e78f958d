"""``omni batch``."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from omni.batch.journal import Journal, read_results
from omni.batch.options import Options
from omni.batch.outputs import (
    check_directory,
    check_parquet,
    write_captions,
    write_csv,
    write_parquet,
)
from omni.batch.records import Record, Unusable, read_records
from omni.batch.schema import SCHEMA
from omni.errors import InputError
from omni.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.progress import Progress

    from runtime.batch import Batch, Processes


def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Recordings, clips, pictures, texts; folders of them; patterns like "
            "'calls/*.wav'; manifests (.jsonl); - for standard input."
        ),
    ] = [],  # noqa: B006  # typer copies it
    ask: Annotated[
        list[str] | None,
        typer.Option(help="What to ask about each of them (repeatable). Default: only transcribe."),
    ] = None,
    answer: Annotated[
        bool, typer.Option("--answer", help="What is said in a recording is itself a question.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="File for the results, a JSON object a line; default: standard output."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Of the recordings, like 'en'; default: it is detected.")
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="The time of every word, too.")] = False,
    speakers: Annotated[bool, typer.Option("--speakers", help="Label who speaks.")] = False,
    speaker_count: Annotated[
        int | None, typer.Option(min=1, help="How many speak; default: as many as are heard.")
    ] = None,
    srt: Annotated[Path | None, typer.Option(help="Directory for subtitles (SubRip).")] = None,
    vtt: Annotated[Path | None, typer.Option(help="Directory for subtitles (WebVTT).")] = None,
    txt: Annotated[Path | None, typer.Option(help="Directory for plain transcripts.")] = None,
    speak: Annotated[Path | None, typer.Option(help="Directory for spoken answers (WAV).")] = None,
    voice: Annotated[str | None, typer.Option(help="Of spoken answers.")] = None,
    draw: Annotated[
        Path | None,
        typer.Option(help="Directory for pictures (PNG) that are asked for."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all results as a table, too.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="The same as Parquet.")] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="The language model, as for `omni serve`.")
    ] = DEFAULT_MODEL,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quantization: Annotated[
        Literal["auto", "fp16", "int8", "bf16", "fp32"], typer.Option(help="Of the weights.")
    ] = "auto",
    context: Annotated[int, typer.Option(min=512, help="Tokens that the model reads.")] = 4096,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads for each model.")] = None,
    instructions: Annotated[str | None, typer.Option(help="How to answer.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of each answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0: always the same.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="For a temperature above 0.")] = 0,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes, each with its own models: for many cores.")
    ] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of a result.")
    ] = False,
) -> None:
    """Transcribe, look at and ask about many files; a second run goes on where one stopped."""
    if schema:
        typer.echo(json.dumps(SCHEMA, indent=2))
        return
    if not inputs:
        raise typer.BadParameter(
            "give files, folders, patterns, a manifest, or -", param_hint="INPUTS"
        )
    options = Options(
        model=model,
        device=device,
        quantization=quantization,
        context=context,
        threads=threads,
        language=language,
        words=words,
        speakers=speakers or speaker_count is not None,
        speaker_count=speaker_count,
        answer=answer,
        instructions=instructions,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        speak=speak,
        draw=draw,
        voice=voice,
        workers=workers,
    )
    captions = {k: d for k, d in (("srt", srt), ("vtt", vtt), ("txt", txt)) if d is not None}
    for name, directory in {**captions, "speak": speak, "draw": draw}.items():
        if directory is not None:
            check_directory(directory, f"--{name}")
    if (csv or parquet) and out is None:
        raise InputError("--csv and --parquet are made of the file of results; add --out")
    if parquet:
        check_parquet()
    summary = _run(inputs, tuple(ask or ()), out, options, captions)
    if out is not None:
        if csv:
            write_csv(csv, read_results(out))
        if parquet:
            write_parquet(parquet, read_results(out))
    typer.echo(summary.line(), err=True)
    if as_json:
        typer.echo(json.dumps(summary.as_dict()))
    if summary.interrupted:
        raise typer.Exit(130)
    if summary.failed:
        raise typer.Exit(1)


@dataclass
class Summary:
    """What a run came to."""

    done: int = 0
    failed: int = 0
    skipped: int = 0
    total: int = 0
    seconds: float = 0.0
    heard: float = 0.0
    """Seconds of sound."""
    tokens: int = 0
    interrupted: bool = False

    @property
    def left(self) -> int:
        """Records that were not come to."""
        return self.total - self.done - self.failed - self.skipped

    @property
    def real_time(self) -> float:
        """Seconds of work for a second of sound; 0 without sound."""
        return self.seconds / self.heard if self.heard else 0.0

    def line(self) -> str:
        """In words."""
        parts = [f"{self.done} done"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.skipped:
            parts.append(f"{self.skipped} were done before")
        if self.left:
            parts.append(f"{self.left} left")
        text = f"{', '.join(parts)} in {self.seconds:.1f} s"
        if self.heard:
            text += (
                f"; {self.heard:.0f} s of sound, {1 / self.real_time:.1f} times real time "
                f"with loading the models (factor {self.real_time:.3f})"
            )
        if self.tokens:
            text += f"; {self.tokens} tokens written, {self.tokens / self.seconds:.1f} a second"
        return text + (". Interrupted: run it again to go on." if self.interrupted else ".")

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "done": self.done,
            "failed": self.failed,
            "skipped": self.skipped,
            "left": self.left,
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 2),
            "audio_seconds": round(self.heard, 2),
            "real_time_factor": round(self.real_time, 4),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens / self.seconds, 2) if self.seconds else 0.0,
        }


def _run(
    inputs: list[str],
    asks: tuple[str, ...],
    out: Path | None,
    options: Options,
    captions: dict[str, Path],
) -> Summary:
    from runtime.batch import make_batch

    options.check()
    summary = Summary()
    with ExitStack() as stack:
        if out is not None and any(_same(out, Path(given)) for given in inputs):
            raise InputError(f"{out} is also an input; choose another file with --out", param="out")
        journal = stack.enter_context(Journal(out)) if out is not None else None
        spool = Path(stack.enter_context(TemporaryDirectory(prefix="omni-batch-")))
        records = list(read_records(inputs, asks, spool=spool))
        summary.total = len(records)
        if journal is not None:
            records = _left(journal, records, options, summary)
            _catch_up(journal, {record.id for record in records}, captions)
        began = time.monotonic()
        work = make_batch(options)
        stop = stack.enter_context(_interrupts(work))
        progress, show = _progress(summary)
        stack.enter_context(progress)
        stack.enter_context(work)
        results = stack.enter_context(closing(work.run(records)))
        for result in results:
            # The line comes last: what it says is done is done.
            write_captions(result, captions)
            if journal is not None:
                journal.write(result)
            else:
                typer.echo(json.dumps(result, ensure_ascii=False))
            if result["error"]:
                summary.failed += 1
                message = result["error"]["message"]
                progress.console.print(f"✗ {result['id']}: {message}", markup=False, soft_wrap=True)
            else:
                summary.done += 1
            _note(summary, work, began)
            show()
            if stop:
                break
        _note(summary, work, began)
        summary.interrupted = bool(stop)
        if journal is not None:
            journal.compact()
    return summary


def _note(summary: Summary, work: Batch | Processes, began: float) -> None:
    summary.seconds = time.monotonic() - began
    summary.heard, summary.tokens = work.heard, work.written


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _left(
    journal: Journal, records: list[Record | Unusable], options: Options, summary: Summary
) -> list[Record | Unusable]:
    """What is still to do."""
    settings = options.settings
    states = {
        record.id: journal.state(
            record.id, record.digest(settings) if isinstance(record, Record) else ""
        )
        for record in records
    }
    left = [record for record in records if states[record.id] != "done"]
    summary.skipped = len(records) - len(left)
    changed = sum(state == "changed" for state in states.values())
    if changed:
        typer.echo(
            f"{changed} results are made again: their files, questions or settings have changed.",
            err=True,
        )
    return left


def _catch_up(journal: Journal, left: set[str], captions: dict[str, Path]) -> None:
    """Write the subtitles that an earlier run was not asked for."""
    if captions:
        for result in read_results(journal.path):
            if result["id"] not in left:
                write_captions(result, captions)


@contextmanager
def _interrupts(work: Batch | Processes) -> Iterator[list[bool]]:
    """Ctrl-C fills the list and stops the work; a second one ends at once."""
    pressed: list[bool] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)
        typer.echo("\nFinishing what is being written; Ctrl-C again ends at once.", err=True)
        work.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _progress(summary: Summary) -> tuple[Progress, Callable[[], None]]:
    """A bar on the terminal; elsewhere nothing but the failures."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not sys.stderr.isatty(),
    )
    task = progress.add_task("Batch", total=summary.total, completed=summary.skipped, rate="")

    def show() -> None:
        rate = f"{1 / summary.real_time:.1f}x real time" if summary.real_time else ""
        done = summary.skipped + summary.done + summary.failed
        progress.update(task, completed=done, rate=rate)

    return progress, show
