"""What frozen encoders made of media, kept on disk, so that each medium is encoded once.

A file holds the features of one medium as float16, under the digest of its bytes, in a directory
of the encoder's name and version. Files are written beside their place and moved there when whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import threading
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omni.data.sample import Medium
from omni.errors import InputError


class Encoder(Protocol):
    """A frozen encoder, as a recipe names it ("module:factory")."""

    version: str
    """Changes when the features of the same medium do; part of a directory's name."""

    def features(self, medium: Medium) -> NDArray[np.float32]:
        """Features (T, E). Raises `MediaError` for a medium that cannot be read."""
        ...


class FeatureCache:
    """Features of one encoder, from disk or made now. Safe for several processes."""

    def __init__(self, directory: Path, encoder: str) -> None:
        """``encoder`` is "module:factory"; it is only called when something is not there yet.

        Raises `InputError` when there is no such factory.
        """
        self._root, self._name = directory, encoder
        module, _, factory = encoder.partition(":")
        try:
            self._factory: Any = getattr(importlib.import_module(module), factory)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(
                f"there is no encoder {encoder!r} ({error}); name one as module:factory",
                param="encoders",
            ) from error
        self._encoder: Encoder | None = None
        self.made = 0

    @property
    def _ready(self) -> Encoder:
        if self._encoder is None:
            self._encoder = self._factory()
        return self._encoder

    def path(self, medium: Medium) -> Path:
        """Where the features of a medium are, or will be."""
        digest = hashlib.sha256(medium.data).hexdigest()
        kind = f"{self._name.replace(':', '.')}-{self._ready.version}"
        return self._root / kind / digest[:2] / f"{digest}.npy"

    def get(self, medium: Medium) -> Tensor:
        """Features (T, E) in float16. Raises `MediaError` when the encoder does."""
        path = self.path(medium)
        # A file that is damaged is made anew.
        with contextlib.suppress(OSError, ValueError, EOFError):
            return torch.from_numpy(np.load(path, allow_pickle=False))
        features = self._ready.features(medium).astype(np.float16)
        self.made += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        try:
            with scratch.open("wb") as file:
                np.save(file, features)
            scratch.replace(path)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise InputError(
                f"features cannot be kept in {self._root} ({error.strerror}); make room, or name "
                "another directory with `cache`",
                param="cache",
            ) from error
        return torch.from_numpy(features)
