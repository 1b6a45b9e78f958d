"""A thread with a queue of jobs."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

STOP = object()
"""The job that ends a thread."""


class Worker:
    """A thread that takes jobs from a queue, one after the other."""

    def __init__(self, name: str, work: Callable[[Any], None]) -> None:
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._work = work
        self._thread = threading.Thread(target=self._run, name=f"omni-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, job: Any) -> None:
        """Take a job; never blocks."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Stop after the job in progress and wait for the thread."""
        if self._thread.is_alive():
            self._jobs.put(STOP)
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not STOP:
            try:
                self._work(job)
            except Exception:
                # A session's failure must not take the thread from the others.
                log.exception("%s failed", self._thread.name)
