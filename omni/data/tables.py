"""pyarrow, or the word of how to get it."""

from omni.errors import MissingExtraError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError(
        "training data lies in Parquet files, which need pyarrow; install it with: "
        "pip install 'omni-assistant[data]'"
    ) from error

__all__ = ["pa", "pq"]
