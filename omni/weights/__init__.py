"""Where the model weights come from: asked for by name, downloaded once, verified, cached.

>>> from omni.weights import ensure
>>> path = ensure("smart-turn-v3.2")  # doctest: +SKIP
"""

from omni.weights.catalog import CATALOG, DEFAULT_MODEL, DEFAULT_NAMES, Entry
from omni.weights.progress import Progress, default_progress
from omni.weights.store import Status, ensure, ensure_all, home, sha256_of, status, verify

__all__ = [
    "CATALOG",
    "DEFAULT_MODEL",
    "DEFAULT_NAMES",
    "Entry",
    "Progress",
    "Status",
    "default_progress",
    "ensure",
    "ensure_all",
    "home",
    "sha256_of",
    "status",
    "verify",
]
