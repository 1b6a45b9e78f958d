"""Several processes, each with its own models, for machines with many cores."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, Self

from omni.batch.options import Options
from omni.batch.records import Record, Unusable
from omni.errors import OmniError
from runtime.batch.models import cores
from runtime.batch.pipeline import Batch

_TICK = 0.2


class Processes:
    """`Batch` in ``options.workers`` processes; records go to whoever has room."""

    def __init__(self, options: Options) -> None:
        options.check()
        share = max(1, cores() // options.workers)
        self._options = replace(options, threads=options.threads or share)
        context = multiprocessing.get_context("spawn")
        self._records: Any = context.Queue(2 * options.workers)
        self._results: Any = context.Queue()
        # No Event: a process that dies while it waits for one would block whoever sets it.
        self._stop: Any = context.RawValue("b", 0)
        self._processes = [
            context.Process(
                target=_work,
                args=(self._options, self._records, self._results, self._stop),
                name=f"omni-batch-{number}",
                daemon=True,
            )
            for number in range(options.workers)
        ]
        self.heard = 0.0
        self._tokens = 0

    @property
    def written(self) -> int:
        """Tokens of answers so far."""
        return self._tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End soon; from any thread."""
        self._stop.value = 1

    def run(self, records: Iterable[Record | Unusable]) -> Generator[dict[str, Any]]:
        """The results, as `Batch.run`; once."""
        feeder = threading.Thread(target=self._feed, args=(records,), name="omni-feed")
        for process in self._processes:
            process.start()
        feeder.start()
        ended = 0
        try:
            while ended < len(self._processes):
                try:
                    result = self._results.get(timeout=_TICK)
                except queue.Empty:
                    if dead := [p for p in self._processes if p.exitcode not in (None, 0)]:
                        raise OmniError(
                            f"a worker process ended with status {dead[0].exitcode}, perhaps for "
                            "want of memory; use fewer --workers and run it again to go on"
                        ) from None
                    continue
                if result is None:
                    ended += 1
                elif isinstance(result, BaseException):
                    raise result
                else:
                    self.heard += sum(
                        one.get("seconds", 0.0) for one in result["media"] if "transcript" in one
                    )
                    self._tokens += result["usage"]["output_tokens"]
                    yield result
        finally:
            self.stop()
            feeder.join()
            for process in self._processes:
                process.join(5)
                if process.is_alive():
                    process.terminate()
                    process.join()
            for channel in (self._records, self._results):
                channel.cancel_join_thread()
                channel.close()

    def _feed(self, records: Iterable[Record | Unusable]) -> None:
        try:
            for record in chain(records, [None] * len(self._processes)):
                while not self._stop.value:
                    with contextlib.suppress(queue.Full):
                        self._records.put(record, timeout=_TICK)
                        break
                if self._stop.value:
                    return
        except BaseException as error:
            self._results.put(error if isinstance(error, OmniError) else OmniError(repr(error)))


def _work(options: Options, records: Any, results: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop

    def given() -> Iterator[Record | Unusable]:
        while not stop.value:
            try:
                record = records.get(timeout=_TICK)
            except queue.Empty:
                continue
            if record is None:
                return
            yield record

    try:
        with Batch(options) as batch:

            def watch() -> None:
                while not stop.value:
                    time.sleep(_TICK)
                batch.stop()

            threading.Thread(target=watch, daemon=True).start()
            for result in batch.run(given()):
                results.put(result)
        results.put(None)
    except Exception as error:
        results.put(error if isinstance(error, OmniError) else OmniError(repr(error)))
