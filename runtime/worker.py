"""A thread with a queue of jobs."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

STOP = object()
"""The job that ends a thread."""


class Call(Generic[T]):
    """A function that another thread runs, and the ``future`` of what it returns or raises."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self.future: Future[T] = Future()
        self.future.set_running_or_notify_cancel()  # who stops waiting does not take it back

    def __call__(self) -> None:
        """Run it."""
        try:
            self.future.set_result(self._function())
        except BaseException as error:
            self.future.set_exception(error)


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

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have ``function`` run in its turn among the jobs; never blocks."""
        call = Call(function)
        self._jobs.put(call)
        return call.future

    def stop(self) -> None:
        """Stop after the job in progress and wait for the thread."""
        if self._thread.is_alive():
            self._jobs.put(STOP)
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not STOP:
            try:
                if isinstance(job, Call):
                    job()
                else:
                    self._work(job)
            except Exception:
                # A session's failure must not take the thread from the others.
                log.exception("%s failed", self._thread.name)
