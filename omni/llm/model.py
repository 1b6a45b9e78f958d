"""The shared LLM by name: what the engine sees of it, and how it is loaded."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from omni.errors import InputError, WeightsError
from omni.llm.cache import Cache, Feed, Output
from omni.llm.decoder import Decoder
from omni.llm.hf import HFModel
from omni.llm.linear import QUANTIZATIONS, Quantization
from omni.llm.loading import load_decoder
from omni.llm.tokenizer import ChatTokenizer
from omni.llm.updates import Updates
from omni.types import Capabilities


class _Network(Protocol):
    """What `Decoder` and `HFModel` have in common."""

    max_context: int
    width: int

    def new_cache(self) -> Cache: ...

    def embed(self, ids: Sequence[int]) -> Tensor: ...

    def run(
        self, feeds: Sequence[Feed], *, all_logits: bool = False, hidden: bool = False
    ) -> Output: ...


@dataclass(frozen=True, slots=True)
class Description:
    """What was loaded and how it computes."""

    name: str
    device: str
    kernels: str
    """The kernel for one token / for many, or transformers."""
    weight_bytes: int
    load_seconds: float
    measured: tuple[tuple[str, float], ...] = ()
    """Milliseconds that chose the kernels."""


class LanguageModel:
    """A causal language model with its tokenizer. One thread at a time may use it."""

    capabilities = Capabilities(
        inputs=frozenset({"text"}), outputs=frozenset({"text"}), bridge="embeds", streaming=True
    )

    def __init__(
        self, network: _Network, tokenizer: ChatTokenizer, description: Description
    ) -> None:
        self._network = network
        self._description = description
        self.tokenizer = tokenizer
        self.name = description.name
        self.max_context = network.max_context
        self.width = network.width

    def new_cache(self) -> Cache:
        """An empty KV cache for one session."""
        return self._network.new_cache()

    def embed(self, text: str) -> Tensor:
        """Input embeddings of the tokens of a text (T, D), in float32."""
        return self._network.embed(self.tokenizer.encode(text))

    def run(
        self, feeds: Sequence[Feed], *, all_logits: bool = False, hidden: bool = False
    ) -> Output:
        """Append each feed to its cache, all in one pass. Raises `InputError` for a bad feed."""
        return self._network.run(feeds, all_logits=all_logits, hidden=hidden)

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Logits (B, V) in float32 after the last token of every feed that wants them."""
        return self.run(feeds).logits

    def adapt(self, updates: Updates) -> None:
        """Let low-rank updates act from the first picture of every sequence on, from now on.

        Raises `WeightsError` where they are of another model.
        """
        if updates.llm != self.name or not isinstance(self._network, Decoder):
            raise WeightsError(
                f"the updates are those of {updates.llm}, the model is {self.name}; use that one, "
                "or train others as docs/training.md says"
            )
        self._network.adapt(updates)

    def describe(self) -> Description:
        """What was loaded and how it computes."""
        return self._description

    def warm_up(self) -> None:
        """Touch all weights and kernels once, so that the first turn is as fast as the others."""
        cache = self.new_cache()
        self.run([Feed(cache, [0] * 16)])
        self.run([Feed(cache, [0])])


def load(
    model: str | Path,
    *,
    device: str = "auto",
    quantization: Quantization = "auto",
    max_context: int = 4096,
    threads: int | None = None,
) -> LanguageModel:
    """Load a model: a name of the weights catalog, a directory, or a hub id ("owner/name").

    Args:
        model: What to load.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1" ...
        quantization: Of the weights, on the CPU; "auto" measures which kernels are fastest here.
        max_context: Tokens that one conversation may hold, at most what the model was made for.
        threads: CPU threads of torch for the whole process; None leaves them.

    Raises:
        InputError: an unknown name or option.
        WeightsError: the weights cannot be had, read, or are of another kind of model.

    """
    if quantization not in QUANTIZATIONS:
        raise InputError(
            f"quantization is {quantization!r}; use one of {', '.join(QUANTIZATIONS)}",
            param="quantization",
        )
    if threads is not None:
        if threads < 1:
            raise InputError(f"threads is {threads}; expected 1 or more", param="threads")
        torch.set_num_threads(threads)
    if max_context < 16:
        raise InputError(f"max_context is {max_context}; expected 16 or more", param="max_context")
    target = _device(device)
    directory = find(model)
    begin = time.perf_counter()
    config = _config(directory)
    sizes = Decoder.Config.of(config)
    tokenizer = ChatTokenizer(directory)
    network: _Network
    if sizes is not None and any(directory.glob("model*.safetensors")):
        network, kernels, size = load_decoder(
            directory,
            config,
            sizes,
            device=target,
            quantization=quantization,
            max_context=min(max_context, sizes.max_positions),
        )
        how, measured = f"{kernels.decode} / {kernels.prefill}", kernels.milliseconds
    elif "experts" in config:
        raise WeightsError(
            f"{directory} has experts; they run in the Qwen2 and Llama families with safetensors"
        )
    else:
        dtype = _plain_dtype(quantization, target)
        network = HFModel.load(directory, device=target, dtype=dtype, max_context=max_context)
        size, how, measured = network.bytes, f"transformers, {dtype}", ()
    seconds = round(time.perf_counter() - begin, 2)
    return LanguageModel(
        network,
        tokenizer,
        Description(_name(model), str(target), how, size, seconds, measured),
    )


def find(model: str | Path) -> Path:
    """The directory of a model in Hugging Face layout; downloads and converts when needed.

    Raises `InputError` when there is no such name, `WeightsError` when it cannot be had.
    """
    if isinstance(model, Path) or Path(model).is_dir() or model.startswith(("/", ".", "~")):
        model = Path(model).expanduser()
        if not model.is_dir():
            raise InputError(
                f"{model} is no directory; give one with config.json and *.safetensors",
                param="model",
            )
        return model
    if "/" not in model or model.endswith(".gguf"):
        from omni.llm.gguf_convert import converted

        return converted(model)
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                model, allow_patterns=["*.json", "*.jinja", "*.safetensors", "*.model", "*.txt"]
            )
        )
    except Exception as error:
        raise WeightsError(
            f"{model} cannot be had from the Hugging Face hub ({error}); check the id and the "
            "connection, or give a local directory"
        ) from error


def _name(model: str | Path) -> str:
    return model.name if isinstance(model, Path) else model.rstrip("/").rsplit("/", 1)[-1]


def _config(directory: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((directory / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{directory} has no readable config.json ({error}); expected a model in Hugging Face "
            "layout"
        ) from error
    return config


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise InputError(
            f"device is {device!r}; use 'auto', 'cpu' or 'cuda'", param="device"
        ) from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device is {device!r}, but torch finds no GPU; use 'auto' or 'cpu'", param="device"
        )
    return target


def _plain_dtype(quantization: Quantization, device: torch.device) -> torch.dtype:
    """Of models that transformers runs: there is no packed kernel for these."""
    if quantization in ("int8", "fp16"):
        raise InputError(
            f"quantization {quantization!r} works for the Qwen2 and Llama families only; "
            "use 'auto', 'bf16' or 'fp32'",
            param="quantization",
        )
    return torch.float32 if quantization == "fp32" else torch.bfloat16
