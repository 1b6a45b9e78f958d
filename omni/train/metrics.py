"""Where a run can be watched: progress bars, a JSONL file, TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from omni.train.extra import need


class Metrics:
    """One stage's figures. A process that is not the first one writes nothing."""

    def __init__(
        self,
        directory: Path,
        *,
        stage: str,
        step: int,
        steps: int,
        tensorboard: bool = False,
        quiet: bool = False,
        console: Console | None = None,
    ) -> None:
        """Go on after ``step``: lines of later steps, which a killed run wrote, are dropped."""
        self._quiet = quiet
        self._file = None
        self._board: Any = None
        self._console = console or Console(stderr=True)
        columns = (
            *(TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn()),
            TextColumn("{task.fields[figures]}"),
            *(TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
        )
        show = not quiet and self._console.is_terminal
        self._progress = Progress(*columns, console=self._console, disable=not show)
        self._task = self._progress.add_task(stage, total=steps, completed=step, figures="")
        if quiet:
            return
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "metrics.jsonl"
        kept = [json.dumps(line) + "\n" for line in read(path) if line["step"] <= step]
        scratch = path.with_suffix(".tmp")
        scratch.write_text("".join(kept), "utf-8")
        scratch.replace(path)
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            need("tensorboard")
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of a step, under names such as ``train/audio``."""
        if self._quiet:
            return
        self._line({"step": step, **figures})
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)

    def advance(self, step: int, text: str) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=step, figures=text)

    def say(self, text: str) -> None:
        """A line for who watches; between the bars on a terminal."""
        if not self._quiet:
            self._progress.console.print(text, highlight=False, markup=False)

    def _line(self, values: Mapping[str, Any]) -> None:
        assert self._file is not None
        finite = {
            k: v if not isinstance(v, float) or math.isfinite(v) else None
            for k, v in values.items()
        }
        self._file.write(json.dumps(finite) + "\n")
        self._file.flush()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``; one that a kill cut short is left out."""
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_text("utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
    return lines
