"""Batches: recordings, clips, pictures and texts transcribed, looked at and asked about."""

from omni.batch.options import Options
from runtime.batch.pipeline import Batch
from runtime.batch.processes import Processes

__all__ = ["Batch", "Processes", "make_batch"]


def make_batch(options: Options) -> Batch | Processes:
    """What does a batch: in this process, or in as many as ``options.workers`` says."""
    return Batch(options) if options.workers == 1 else Processes(options)
