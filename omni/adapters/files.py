"""Trained adapters as files: weights in float16, and all that is needed to use them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from omni.errors import WeightsError


def write_adapter(
    path: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], card: Mapping[str, str]
) -> None:
    """Write weights with the options that they need; ``card`` says where they come from."""
    tensors = {name: t.detach().half().contiguous() for name, t in weights.items()}
    save_file(tensors, path, metadata={"config": json.dumps(config), **card})


def read_adapter(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
    """Options, weights in float32, and card. Raises `WeightsError` for any other file."""
    try:
        with safe_open(path, "pt") as file:
            card = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        return json.loads(card.pop("config")), tensors, card
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise not_an_adapter(path, error) from error


def not_an_adapter(path: Path, error: Exception) -> WeightsError:
    """What to raise when a file does not hold what was expected."""
    return WeightsError(
        f"{path} is no such adapter of this version ({type(error).__name__}: {error}); train one "
        "as docs/training.md says, or install Omni again"
    )
