"""What the optional extra ``train`` installs."""

from __future__ import annotations

import importlib
from typing import Any

from omni.errors import MissingExtraError


def need(module: str) -> Any:
    """Import an optional module. Raises `MissingExtraError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} is not installed; get it with `pip install 'omni-assistant[train]'`"
        ) from error
