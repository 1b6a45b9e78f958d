"""Streaming twins of the causal layers that neural codecs are made of, as transformers has them.

Each keeps what its next outputs need of the past, so that pieces give what the whole would give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = Callable[[Tensor, bool], Tensor]
"""Takes (B, C, T) and whether the input ends here; gives the outputs that are certain by now."""


def streaming(layer: nn.Module) -> Layer:
    """The streaming twin of one layer of EnCodec or Mimi, by what it is made of."""
    if hasattr(layer, "block"):
        return _Residual(layer)
    if hasattr(layer, "lstm"):
        return _Lstm(layer)
    inner = getattr(layer, "conv", None)
    if isinstance(inner, nn.ConvTranspose1d):
        return _Transposed(layer)
    if isinstance(inner, nn.Conv1d):
        return _Convolution(layer)
    return lambda x, last: torch.as_tensor(layer(x))


class _Convolution:
    """Keeps the inputs that the next outputs see too."""

    def __init__(self, layer: Any) -> None:
        self._conv = layer.conv
        self._context = int(layer.padding_total)
        self._mode = str(layer.pad_mode)
        self._held: Tensor | None = None
        self._begun = False

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        x = x if self._held is None else torch.cat([self._held, x], -1)
        size = x.shape[-1]
        if not self._begun:
            mirrored = self._mode == "reflect"
            if size == 0 or (mirrored and size <= self._context and not last):
                self._held = x
                return x.new_zeros(x.shape[0], self._conv.out_channels, 0)
            # As transformers does where there is too little to reflect.
            short = max(0, self._context - size + 1) if mirrored else 0
            x = F.pad(F.pad(x, (0, short)), (self._context, 0), self._mode)
            x = x[..., : self._context + size]
            self._begun = True
        self._held = x[..., x.shape[-1] - self._context :]
        if x.shape[-1] <= self._context:
            return x.new_zeros(x.shape[0], self._conv.out_channels, 0)
        return torch.as_tensor(self._conv(x))


class _Transposed:
    """Keeps what the last inputs add to the next outputs."""

    def __init__(self, layer: Any) -> None:
        self._conv = layer.conv
        self._tail: Tensor | None = None

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        if not x.shape[-1]:
            return x.new_zeros(x.shape[0], self._conv.out_channels, 0)
        whole = x.shape[-1] * self._conv.stride[0]
        y = self._conv(x)
        if self._tail is not None:
            y[..., : self._tail.shape[-1]] += self._tail
        # The next call adds the bias again.
        bias = self._conv.bias
        self._tail = y[..., whole:] if bias is None else y[..., whole:] - bias[:, None]
        return torch.as_tensor(y[..., :whole])


class _Lstm:
    """Keeps the state."""

    def __init__(self, layer: Any) -> None:
        self._lstm = layer.lstm
        self._state: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        if not x.shape[-1]:
            return x
        steps = x.permute(2, 0, 1)
        out, self._state = self._lstm(steps, self._state)
        return torch.as_tensor((out + steps).permute(1, 2, 0))


class _Residual:
    """Adds two branches, of which one may be behind the other at the beginning."""

    def __init__(self, layer: Any) -> None:
        self._block = [streaming(part) for part in layer.block]
        self._shortcut = streaming(layer.shortcut)
        self._wait: Tensor | None = None

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        beside = self._shortcut(x, last)
        for layer in self._block:
            x = layer(x, last)
        beside = beside if self._wait is None else torch.cat([self._wait, beside], -1)
        self._wait = beside[..., x.shape[-1] :]
        return x + beside[..., : x.shape[-1]]
