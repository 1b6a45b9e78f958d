"""How a long download or conversion tells that it moves."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichBars


class Progress(Protocol):
    """Told about one file at a time: ``start``, any number of ``update``, then ``finish``.

    Sizes are bytes. ``finish`` also follows a failure, so an implementation can clean up.
    """

    def start(self, label: str, total: int, done: int = 0) -> None:
        """Begin ``label``, of ``total`` bytes, ``done`` of which are there already."""

    def update(self, done: int) -> None:
        """So many bytes are there now (not: were added)."""

    def finish(self) -> None:
        """End the file: it is complete, or was given up."""

    def note(self, message: str) -> None:
        """One line for the user: which source, why it was left, what is waited for."""


class SilentProgress:
    """Says nothing."""

    def start(self, label: str, total: int, done: int = 0) -> None:
        """Ignore it."""

    def update(self, done: int) -> None:
        """Ignore it."""

    def finish(self) -> None:
        """Ignore it."""

    def note(self, message: str) -> None:
        """Ignore it."""


class BarProgress:
    """A bar with bytes, rate and remaining time, for a terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: RichBars | None = None

    def start(self, label: str, total: int, done: int = 0) -> None:
        """Show a new bar."""
        self.finish()
        self._bars = RichBars(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._bars.add_task(label, total=total, completed=done)
        self._bars.start()

    def update(self, done: int) -> None:
        """Move the bar."""
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], completed=done)

    def finish(self) -> None:
        """Leave the bar as it is and stop drawing."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def note(self, message: str) -> None:
        """Print above the bar."""
        self._console.print(message, markup=False, highlight=False)


class LineProgress:
    """Plain lines, a handful per file, where there is no terminal to draw on."""

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._every = every
        self._label, self._total, self._done = "", 0, 0
        self._said = 0.0

    def start(self, label: str, total: int, done: int = 0) -> None:
        """Print what begins."""
        self._label, self._total, self._done = label, total, done
        self._said = time.monotonic()
        rest = f", {done / 1e6:.1f} MB of it here already" if done else ""
        self.note(f"{label}: {total / 1e6:.1f} MB{rest}")

    def update(self, done: int) -> None:
        """Print, at most every ``every`` seconds."""
        self._done = done
        now = time.monotonic()
        if now - self._said >= self._every:
            self._said = now
            self.note(f"{self._label}: {done / 1e6:.1f} of {self._total / 1e6:.1f} MB")

    def finish(self) -> None:
        """Print the end, when it was reached."""
        if self._total and self._done >= self._total:
            self.note(f"{self._label}: done")
        self._total = 0

    def note(self, message: str) -> None:
        """Print one line."""
        print(message, file=self._stream, flush=True)


def default_progress() -> Progress:
    """Bars when stderr is a terminal, lines otherwise."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()
