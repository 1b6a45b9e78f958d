"""Matrix-product kernels: one small class each, the fastest for this machine chosen by measurement.

Shape letters: N rows (new tokens), K input width, M output width, G groups of columns, B columns in
a group. Activations are float32 on the CPU and are never quantised: that costs answers. Weights are
float16, bfloat16 or 8 bit with a scale per group.

Decoding one token reads every weight once, so the smallest weights win; a prompt of many tokens is
bound by arithmetic, so the best blocked product wins. Where these are two kernels, both hold the
same (rounded) weights, so that a model is the same model alone, in a batch and in a prompt.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.errors import InputError

Kernel = Literal["int8", "fp16", "bf16", "fp32"]
Quantization = Literal["auto", "int8", "fp16", "bf16", "fp32"]
QUANTIZATIONS: tuple[Quantization, ...] = ("auto", "int8", "fp16", "bf16", "fp32")

GROUP = 64
"""Output columns that share a scale per input channel; fits the registers of an AVX2 kernel."""
HEAD_GROUP = 128
"""The same for very wide matrices, where the index stream of smaller groups costs more."""


class Linear(Protocol):
    """y_NM = x_NK @ W_MK^T + bias_M."""

    bytes: int
    """Memory that the weights take."""

    def __call__(self, x_NK: Tensor) -> Tensor:
        """Apply the matrix to every row; the result has the dtype of ``x_NK``."""
        ...


def has_fbgemm() -> bool:
    """Whether torch was built with FBGEMM (x86 builds are)."""
    return "fbgemm" in torch.backends.quantized.supported_engines


class DenseLinear:
    """Plain weights of one dtype (bf16 or fp32), any device."""

    def __init__(self, weight_MK: Tensor, bias_M: Tensor | None, dtype: torch.dtype) -> None:
        self._weight = weight_MK.to(dtype, copy=True)
        self._bias = None if bias_M is None else bias_M.to(dtype)
        self.bytes = self._weight.nbytes

    def __call__(self, x_NK: Tensor) -> Tensor:
        """See `Linear`."""
        weight = self._weight
        if x_NK.dtype == weight.dtype:
            return F.linear(x_NK, weight, self._bias)
        return F.linear(x_NK.to(weight.dtype), weight, self._bias).to(x_NK.dtype)


class Fp16Linear:
    """float16 weights packed by FBGEMM, float32 activations and sums: exact, good at any N."""

    def __init__(self, weight_MK: Tensor, bias_M: Tensor | None) -> None:
        bias = None if bias_M is None else bias_M.float()
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight_MK.float(), bias)
        self._run = torch.ops.quantized.linear_dynamic_fp16
        self.bytes = weight_MK.numel() * 2

    def __call__(self, x_NK: Tensor) -> Tensor:
        """See `Linear`."""
        y_NM: Tensor = self._run(x_NK, self._packed)
        return y_NM


_indices = torch.empty(0, dtype=torch.int32)


def _first_indices(count: int) -> Tensor:
    """0, 1, .. ``count`` - 1 as int32; one growing buffer serves all matrices."""
    global _indices
    if len(_indices) < count:
        _indices = torch.arange(count, dtype=torch.int32)
    return _indices[:count]


class Int8Linear:
    """8-bit weights read through FBGEMM's embedding-bag kernel.

    y = sum over k of x[k] * W[:, k] is a weighted sum of table rows. The table holds, for each
    group of B output columns, K rows of B bytes with a float32 scale and offset each; one bag per
    group sums them. It streams the weights once, in order, and took 0.6-0.7 of the float16
    product's time for one row on AVX2; the relative error of a product is about 0.005. Several rows
    go one by one.
    """

    Many = 8
    """From so many rows on, unpacking the weights costs less than reading them row by row."""

    def __init__(self, table: Tensor, width: int, bias_M: Tensor | None) -> None:
        """``table`` and the output width M as `quantise` made them."""
        self.table = table
        self._width = width
        self._bias = None if bias_M is None else bias_M.float()
        self._group = table.shape[1] - 8
        groups = -(-width // self._group)
        self._k = table.shape[0] // groups
        self._shape = (groups, self._k)
        self._index = _first_indices(table.shape[0])
        self._offsets = torch.arange(groups, dtype=torch.int32) * self._k
        self._run = torch.ops.quantized.embedding_bag_byte_rowwise_offsets
        self.bytes = table.nbytes

    @staticmethod
    def quantise(weight_MK: Tensor) -> Tensor:
        """Table (G * K, B + 8) uint8 of a matrix."""
        width, k = weight_MK.shape
        group = HEAD_GROUP if width >= 65536 else GROUP
        if width % group:
            weight_MK = F.pad(weight_MK, (0, 0, 0, group - width % group))
        rows = weight_MK.view(-1, group, k).transpose(1, 2).reshape(-1, group).float()
        table: Tensor = torch.ops.quantized.embedding_bag_byte_prepack(rows)
        return table

    def dequantise(self) -> Tensor:
        """The matrix (M, K) in float32 as the kernel uses it."""
        return self._groups().transpose(1, 2).reshape(-1, self._k)[: self._width]

    def _groups(self) -> Tensor:
        rows: Tensor = torch.ops.quantized.embedding_bag_byte_unpack(self.table)
        return rows.view(*self._shape, self._group)

    def __call__(self, x_NK: Tensor) -> Tensor:
        """See `Linear`."""
        n = len(x_NK)
        if n >= self.Many:
            y_NM = torch.matmul(x_NK, self._groups()).transpose(0, 1).reshape(n, -1)
        else:
            y_NM = torch.cat([self._row(x_K) for x_K in x_NK]) if n != 1 else self._row(x_NK)
        y_NM = y_NM[:, : self._width]
        return y_NM if self._bias is None else y_NM + self._bias

    def _row(self, x_K: Tensor) -> Tensor:
        weights = x_K.expand(self._shape).reshape(-1)
        y_GB: Tensor = self._run(
            self.table, self._index, self._offsets, False, 0, False, weights, None, False
        )
        return y_GB.view(1, -1)


class PairLinear:
    """One kernel for a single row, another for more; both hold the same weights."""

    def __init__(self, one: Linear, many: Linear) -> None:
        self._one, self._many = one, many
        self.bytes = one.bytes + many.bytes

    def __call__(self, x_NK: Tensor) -> Tensor:
        """See `Linear`."""
        return self._one(x_NK) if len(x_NK) == 1 else self._many(x_NK)


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels of a model: for one row, for many, and what choosing them measured."""

    decode: Kernel
    prefill: Kernel
    milliseconds: tuple[tuple[str, float], ...] = ()
    """(kernel and rows, shortest time on the largest matrix), where they were measured."""

    def build(self, weight_MK: Tensor, bias_M: Tensor | None, table: Tensor | None) -> Linear:
        """A matrix of a layer. ``table`` may hold what `Int8Linear.quantise` gave before."""
        one = build(self.decode, weight_MK, bias_M, table)
        if self.decode == self.prefill:
            return one
        if isinstance(one, Int8Linear):
            weight_MK = one.dequantise()
        return PairLinear(one, build(self.prefill, weight_MK, bias_M, None))


def build(
    kernel: Kernel, weight_MK: Tensor, bias_M: Tensor | None, table: Tensor | None = None
) -> Linear:
    """One matrix for one kernel."""
    if kernel == "int8":
        if table is None:
            table = Int8Linear.quantise(weight_MK)
        return Int8Linear(table, len(weight_MK), bias_M)
    if kernel == "fp16":
        return Fp16Linear(weight_MK, bias_M)
    return DenseLinear(weight_MK, bias_M, torch.bfloat16 if kernel == "bf16" else torch.float32)


def choose(
    quantization: Quantization,
    device: torch.device,
    shape: tuple[int, int],
    *,
    two_copies: bool = True,
) -> Kernels:
    """Kernels for ``quantization``; "auto" measures on matrices of ``shape`` (about a second).

    A second copy of the weights is kept only if ``two_copies`` and one token gets at least 15 %
    faster by it. Raises `InputError` when the machine has no such kernel.
    """
    if quantization not in QUANTIZATIONS:
        raise InputError(
            f"quantization is {quantization!r}; use one of {', '.join(QUANTIZATIONS)}",
            param="quantization",
        )
    if device.type != "cpu":
        if quantization in ("int8", "fp16"):
            raise InputError(
                f"quantization {quantization!r} works on the CPU only, the device is {device}; "
                "use 'auto' or 'bf16'",
                param="quantization",
            )
        kernel: Kernel = "fp32" if quantization == "fp32" else "bf16"
        return Kernels(kernel, kernel)
    if quantization == "auto" and not has_fbgemm():
        return Kernels("bf16", "bf16")
    if quantization != "auto":
        if quantization in ("int8", "fp16") and not has_fbgemm():
            raise InputError(
                f"quantization {quantization!r} needs a torch built with FBGEMM (x86); use 'bf16'",
                param="quantization",
            )
        return Kernels(quantization, quantization)
    return _measured(shape, two_copies)


def _measured(shape: tuple[int, int], two_copies: bool) -> Kernels:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul_(0.02)
    table = Int8Linear.quantise(weight)
    makers: dict[Kernel, Callable[[], Linear]] = {
        "int8": lambda: Int8Linear(table.clone(), len(weight), None),
        "fp16": lambda: Fp16Linear(weight, None),
        "bf16": lambda: DenseLinear(weight, None, torch.bfloat16),
    }
    # As in a whole pass, no matrix is still in a cache when its turn comes again: the kernels take
    # turns, so that a part each is enough.
    needed = _cache_bytes() / 2
    linears: dict[Kernel, list[Linear]] = {}
    for kernel, make in makers.items():
        linears[kernel] = [make(), make()]
        while sum(one.bytes for one in linears[kernel]) < needed:
            linears[kernel].append(make())
    trials = [(k, n) for n in (1, 16) for k in linears if (k, n) != ("int8", 16)]
    best = _shortest(linears, trials, shape[1])
    prefill: Kernel = "fp16" if best["fp16", 16] <= best["bf16", 16] else "bf16"
    # For prompts 8 bit is far behind, so that one copy alone is never that.
    smaller = two_copies and best["int8", 1] < 0.85 * best[prefill, 1]
    seen = tuple((f"{k} x{n}", round(1000 * s, 2)) for (k, n), s in best.items())
    return Kernels("int8" if smaller else prefill, prefill, seen)


def _shortest(
    linears: dict[Kernel, list[Linear]], trials: list[tuple[Kernel, int]], k: int
) -> dict[tuple[Kernel, int], float]:
    """Shortest seconds of each (kernel, rows), with another copy of the weights every time.

    The shortest, in turns, because whatever else runs on the machine only ever adds.
    """
    best = dict.fromkeys(trials, math.inf)
    inputs = {n: torch.randn(n, k) for _, n in trials}
    supply = {kernel: itertools.cycle(copies) for kernel, copies in linears.items()}
    for _ in range(15):
        for kernel, n in trials:
            linear = next(supply[kernel])
            begin = time.perf_counter()
            linear(inputs[n])
            best[kernel, n] = min(best[kernel, n], time.perf_counter() - begin)
    return best


def _cache_bytes() -> int:
    """Size of the processor's largest cache, where the system tells it."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = [64 << 20]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            text = file.read_text().strip()
            sizes.append(int(text[:-1]) * units[text[-1]])
    return min(max(sizes), 512 << 20)
