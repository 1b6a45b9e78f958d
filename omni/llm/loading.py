"""From a directory in Hugging Face layout to a `Decoder`, quickly and with little memory.

Weights stay memory-mapped; matrices are packed layer by layer and what was read is let go again.
8-bit tables are kept in a file beside the weights, so that the next start maps them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from omni.errors import WeightsError
from omni.llm.decoder import Decoder, Layer, SwiGLU
from omni.llm.experts import ExpertsConfig, RoutedExperts, Router
from omni.llm.linear import Int8Linear, Kernels, Linear, Quantization, choose

TABLES = "omni-int8.safetensors"
"""Name of the file with the 8-bit tables, beside the weights they were made from."""
_TABLES_VERSION = "1"


class Checkpoint:
    """The safetensors files of a directory, by tensor name, memory-mapped."""

    def __init__(self, directory: Path) -> None:
        self._files: dict[Path, Any] = {}
        self._where: dict[str, Path] = {}
        index = directory / "model.safetensors.index.json"
        if index.exists():
            names = json.loads(index.read_text())["weight_map"]
            self._where = {name: directory / file for name, file in names.items()}
        elif (single := directory / "model.safetensors").exists():
            self._where = {name: single for name in self._open(single).keys()}  # noqa: SIM118
        else:
            raise WeightsError(
                f"{directory} has no model.safetensors; expected a Hugging Face checkpoint"
            )

    def _open(self, path: Path) -> Any:
        if path not in self._files:
            try:
                self._files[path] = safe_open(path, framework="pt")
            except Exception as error:
                raise WeightsError(
                    f"{path} cannot be read ({error}); get the file again"
                ) from error
        return self._files[path]

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._where:
            raise WeightsError(f"the checkpoint has no tensor {name!r}; is the download complete?")
        tensor: Tensor = self._open(self._where[name]).get_tensor(name)
        return tensor

    def get(self, name: str) -> Tensor | None:
        """The tensor, or None."""
        return self[name] if name in self._where else None

    @property
    def stamp(self) -> str:
        """Changes when the files do."""
        stats = [(p.name, p.stat()) for p in sorted(set(self._where.values()))]
        return json.dumps([(name, s.st_size, s.st_mtime_ns) for name, s in stats])


class Tables:
    """The 8-bit tables of a checkpoint: read from the file beside it, or made and written there."""

    def __init__(self, directory: Path, stamp: str, *, wanted: bool) -> None:
        self._path = directory / TABLES
        self._stamp = {"version": _TABLES_VERSION, "of": stamp}
        self._old: dict[str, Tensor] = {}
        self.new: dict[str, Tensor] = {}
        self._wanted = wanted
        if wanted and self._path.exists():
            # A file that is damaged or of other weights is only made anew.
            with contextlib.suppress(Exception), safe_open(self._path, framework="pt") as file:
                if file.metadata() == self._stamp:
                    self._old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def get(self, name: str) -> Tensor | None:
        """The table of a matrix if it was stored."""
        return self._old.get(name)

    def make(self, name: str, weight_MK: Tensor) -> Tensor:
        """Quantise a matrix and remember the table for `save`."""
        self.new[name] = Int8Linear.quantise(weight_MK)
        return self.new[name]

    def save(self) -> None:
        """Write what was made, atomically; a directory that cannot be written to is left alone."""
        if not self.new:
            return
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            save_file(self.new, temporary, self._stamp)
            temporary.replace(self._path)
        except Exception:
            # The file only saves time; the model in memory is whole without it.
            with contextlib.suppress(OSError):
                temporary.unlink()


def load_decoder(
    directory: Path,
    config: dict[str, Any],
    sizes: Decoder.Config,
    *,
    device: torch.device,
    quantization: Quantization,
    max_context: int,
) -> tuple[Decoder, Kernels, int]:
    """The decoder, its kernels and the bytes of its matrices.

    Raises `WeightsError` when tensors are missing or unreadable.
    """
    checkpoint = Checkpoint(directory)
    experts = sizes.experts
    routed = frozenset(experts.layers if experts else ())
    first = "mlp.experts.0" if 0 in routed else "mlp"
    gate = checkpoint[f"model.layers.0.{first}.gate_proj.weight"].shape
    mlps = sizes.layers + (len(routed) * (experts.experts - 1) if experts else 0)
    count = sizes.hidden * (4 * sizes.hidden * sizes.layers + 3 * gate[0] * mlps)
    # With two copies a weight takes 2 + 1.13 bytes; leave half as much again to everything else.
    room = psutil.virtual_memory().available > 1.5 * 3.13 * count
    kernels = choose(quantization, device, (2 * gate[0], gate[1]), two_copies=room)
    dtype = _activations(device, kernels)
    tables = Tables(directory, checkpoint.stamp, wanted=kernels.decode == "int8")
    built: list[Linear] = []

    def norm(name: str) -> Tensor:
        return checkpoint[name].to(device, dtype, copy=True)

    def matrix(name: str, parts: tuple[str, ...], pair: bool = True) -> Linear:
        weights = [checkpoint[f"{p}.weight"] for p in parts]
        biases = [checkpoint.get(f"{p}.bias") for p in parts]
        weight_MK = (weights[0] if len(weights) == 1 else torch.cat(weights)).to(device)
        bias_M = _fused_bias(biases, weights)
        bias_M = None if bias_M is None else bias_M.to(device)
        table = tables.get(name)
        if kernels.decode == "int8" and table is None:
            table = tables.make(name, weight_MK)
        # The head reads a row or a few: it needs no second copy for prompts.
        chosen = kernels if pair else Kernels(kernels.decode, kernels.decode)
        linear = chosen.build(weight_MK, bias_M, table)
        built.append(linear)
        return linear

    def dense(name: str, at: str) -> SwiGLU:
        return SwiGLU(
            matrix(f"{name}gate_up", (f"{at}.gate_proj", f"{at}.up_proj")),
            matrix(f"{name}down", (f"{at}.down_proj",)),
        )

    def mixture(i: int, at: str, config: ExpertsConfig) -> RoutedExperts:
        router = Router(config, sizes.hidden)
        router.weight.data = checkpoint[f"{at}.router.weight"].to(device, copy=True)
        if router.bias is not None:
            router.bias.data = checkpoint[f"{at}.router.bias"].to(device, copy=True)
        each = [dense(f"{i}.{j}.", f"{at}.experts.{j}") for j in range(config.experts)]
        return RoutedExperts(config, router, each)

    def layer(i: int) -> Layer:
        # Inference mode belongs to the thread, and so does this.
        with torch.inference_mode():
            at = f"model.layers.{i}"
            attention, mlp = f"{at}.self_attn", f"{at}.mlp"
            return Layer(
                norm(f"{at}.input_layernorm.weight"),
                matrix(f"{i}.qkv", tuple(f"{attention}.{p}_proj" for p in "qkv")),
                matrix(f"{i}.out", (f"{attention}.o_proj",)),
                norm(f"{at}.post_attention_layernorm.weight"),
                mixture(i, mlp, experts) if experts and i in routed else dense(f"{i}.", mlp),
            )

    with torch.inference_mode():
        tied = config.get("tie_word_embeddings", False) or "lm_head.weight" not in checkpoint
        with _workers() as pool:
            head = pool.submit(
                torch.inference_mode()(matrix),
                "head",
                ("model.embed_tokens" if tied else "lm_head",),
                False,
            )
            layers = list(pool.map(layer, range(sizes.layers)))
        final = norm("model.norm.weight")
        tables.save()
        # A fresh mapping: the pages that packing has read go with the old one.
        checkpoint = Checkpoint(directory)
        embedding_VD = checkpoint["model.embed_tokens.weight"]
        if device.type != "cpu":
            embedding_VD = embedding_VD.to(device, dtype)
        decoder = Decoder(
            sizes, embedding_VD, layers, final, head.result(), max_context=max_context
        )
    _give_back_memory()
    return decoder, kernels, sum(m.bytes for m in built)


@contextlib.contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Threads for packing, which is mostly one-threaded inside torch."""
    threads = torch.get_num_threads()
    try:
        # One thread of torch in each: nested pools of threads would fight for the cores.
        with ThreadPoolExecutor(threads, "omni-load", torch.set_num_threads, (1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def _activations(device: torch.device, kernels: Kernels) -> torch.dtype:
    """bfloat16 where the device computes in it at full speed, else float32."""
    return torch.bfloat16 if device.type != "cpu" and kernels.decode == "bf16" else torch.float32


def _fused_bias(biases: list[Tensor | None], weights: list[Tensor]) -> Tensor | None:
    if all(b is None for b in biases):
        return None
    return torch.cat(
        [w.new_zeros(len(w)) if b is None else b for b, w in zip(biases, weights, strict=True)]
    )


def _give_back_memory() -> None:
    """Return what packing has freed to the system; glibc keeps it in its arenas otherwise."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
