"""Batches: recordings, clips, pictures and texts transcribed, looked at and asked about."""

from runtime.batch.pipeline import Batch

__all__ = ["Batch"]
