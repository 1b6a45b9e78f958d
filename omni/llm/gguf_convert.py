"""GGUF -> a Hugging Face directory, once, so that every later start reads plain safetensors.

Transformers can read GGUF itself, but takes most of a minute at every start, and what it loads
cannot be saved. Here the file is dequantised tensor by tensor into ``model.safetensors`` beside
``config.json``, ``tokenizer.json`` and their companions. Peak memory is one slice of one tensor.

Weights are stored as float16, not bfloat16: a dequantised Q4_K, Q5_0, Q6_K or Q8_0 value has up to
21 significant bits, so the eight times finer float16 loses eight times less, and its smaller range
is checked for every value. Norms and biases come from bfloat16 originals and fit without loss.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from omni.errors import WeightsError
from omni.llm.gguf_tokenizer import build_tokenizer, special_tokens
from omni.weights import CATALOG, ensure, home, sha256_of
from omni.weights.progress import Progress, default_progress

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

FORMAT = 1
"""Written into every conversion; raise it when this file changes what it writes."""

MARKER = "conversion.json"
SLICE_VALUES = 8 << 20
FLOAT16_MAX = float(np.finfo(np.float16).max)

_MODEL_CLASS = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}

_TENSOR = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK_TENSOR = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def converted(name_or_path: str | Path, progress: Progress | None = None) -> Path:
    """Give the Hugging Face directory of a GGUF model, converting it on the first call.

    ``name_or_path`` is a name of the weights catalog, downloaded when it is not here yet, or the
    path of a ``.gguf`` file. The directory lies under :func:`omni.weights.home`.

    Raises:
        InputError: it is neither a known name nor a file.
        WeightsError: the file cannot be had, or is a model that cannot be converted.

    """
    name = str(name_or_path)
    if name not in CATALOG and Path(name).is_file():
        path = Path(name)
        name, digest = path.stem, sha256_of(path)
    else:
        path = ensure(name, progress)
        digest = CATALOG[name].files[0].sha256
    out = home() / "converted" / f"{name}-{digest[:8]}"
    convert_gguf(path, out, progress, digest=digest)
    return out


def convert_gguf(
    gguf_path: Path, out_dir: Path, progress: Progress | None = None, *, digest: str | None = None
) -> None:
    """Convert a GGUF file of a Qwen2 or Llama model into a Hugging Face directory.

    Nothing is done when ``out_dir`` already holds the conversion of this very file. The directory
    appears whole or not at all; two processes at once convert once. ``digest`` is the file's
    sha256, when the caller knows it already.

    Raises:
        WeightsError: another architecture, an unknown tensor or tokenizer, a value that float16
            cannot hold, or a full disk.

    """
    digest = digest or sha256_of(gguf_path)
    marker = {"format": FORMAT, "source": gguf_path.name, "sha256": digest}
    if _marker(out_dir) == marker:
        return
    progress = progress or default_progress()
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(out_dir.with_name(out_dir.name + ".lock")):
            if _marker(out_dir) == marker:  # another process did it meanwhile
                return
            work = out_dir.with_name(out_dir.name + ".partial")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                _convert(gguf_path, work, progress)
                (work / MARKER).write_text(json.dumps(marker, indent=2))
                shutil.rmtree(out_dir, ignore_errors=True)
                work.replace(out_dir)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        free = shutil.disk_usage(out_dir.parent).free
        raise WeightsError(
            f"no room to convert {gguf_path.name}: {out_dir.parent} has {free / 1e6:.0f} MB free; "
            "free some space or set OMNI_HOME to a larger disk"
        ) from error


def _marker(directory: Path) -> object:
    try:
        return json.loads((directory / MARKER).read_text())
    except (OSError, ValueError):
        return None


def _convert(gguf_path: Path, work: Path, progress: Progress) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(gguf_path)
    fields = Fields(reader)
    config = model_config(fields, tied=all(t.name != "output.weight" for t in reader.tensors))
    specials = special_tokens(fields.all)

    build_tokenizer(fields.all).save(str(work / "tokenizer.json"))
    _write_json(work / "tokenizer_config.json", specials.tokenizer_config())
    _write_json(work / "config.json", {**config, **specials.ids()})
    _write_json(
        work / "generation_config.json", {**specials.ids(), "eos_token_id": specials.stop_ids}
    )
    write_safetensors(
        work / "model.safetensors",
        [_Target.of(tensor, config) for tensor in reader.tensors],
        progress,
        label=f"converting {gguf_path.name}",
    )


class Fields:
    """The metadata of a GGUF file by key."""

    def __init__(self, reader: GGUFReader) -> None:
        self.all: dict[str, Any] = {k: f.contents() for k, f in reader.fields.items()}
        self.architecture: str = self.all.get("general.architecture", "")

    def model(self, key: str, default: Any = None) -> Any:
        """Look up ``<architecture>.<key>``; without a default it must be there."""
        value = self.all.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise WeightsError(f"the GGUF file says nothing about {self.architecture}.{key}")
        return value


def model_config(fields: Fields, tied: bool) -> dict[str, Any]:
    """Build ``config.json``; ``tied`` when the output matrix is the embedding matrix."""
    architecture = fields.architecture
    if architecture not in _MODEL_CLASS:
        known = ", ".join(_MODEL_CLASS)
        raise WeightsError(f"cannot convert a GGUF model of type {architecture!r}; only {known}")
    if fields.model("rope.scaling.type", "none") != "none":
        raise WeightsError("cannot convert a GGUF model with scaled rotary positions")
    heads, width = fields.model("attention.head_count"), fields.model("embedding_length")
    config = {
        "model_type": architecture,
        "architectures": [_MODEL_CLASS[architecture]],
        "dtype": "float16",
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": fields.model("feed_forward_length"),
        "num_hidden_layers": fields.model("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.model("attention.head_count_kv", heads),
        "head_dim": fields.model("attention.key_length", width // heads),
        "max_position_embeddings": fields.model("context_length"),
        # GGUF holds a float32: give back what was meant, 1e-06 and not 9.99999997e-07
        "rms_norm_eps": float(str(np.float32(fields.model("attention.layer_norm_rms_epsilon")))),
        "rope_theta": float(fields.model("rope.freq_base", 10000.0)),
        "vocab_size": len(fields.all["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
    }
    if architecture == "llama":
        config |= {"attention_bias": False, "mlp_bias": False}
    return config


@dataclass(frozen=True)
class _Target:
    """A tensor of the GGUF file and what becomes of it."""

    tensor: ReaderTensor
    name: str
    shape: tuple[int, ...]
    rope_heads: int  # > 0: rows are interleaved for llama.cpp's rotary layout, by so many heads

    @classmethod
    def of(cls, tensor: ReaderTensor, config: dict[str, Any]) -> _Target:
        heads = 0
        if config["model_type"] == "llama" and ".attn_q." in tensor.name:
            heads = config["num_attention_heads"]
        elif config["model_type"] == "llama" and ".attn_k." in tensor.name:
            heads = config["num_key_value_heads"]
        # GGUF lists dimensions fastest first
        shape = tuple(int(n) for n in reversed(tensor.shape))
        return cls(tensor, hugging_face_name(tensor.name), shape, heads)

    @property
    def nbytes(self) -> int:
        return 2 * int(np.prod(self.shape))

    def slices(self) -> Iterator[NDArray[np.float16]]:
        """Yield the values in order, a bounded number of rows at a time."""
        from gguf import dequantize

        data = self.tensor.data
        rows = 1 if len(self.shape) == 1 else max(1, SLICE_VALUES // self.shape[-1])
        if len(self.shape) == 1 or self.rope_heads:
            rows = data.shape[0]  # small, and the rope order needs all rows at once
        for start in range(0, data.shape[0], rows):
            values = dequantize(data[start : start + rows], self.tensor.tensor_type)
            if self.rope_heads:
                values = undo_rope_order(values, self.rope_heads)
            largest = float(np.abs(values).max())
            if not largest <= FLOAT16_MAX:  # also true for NaN
                raise WeightsError(f"{self.tensor.name} holds {largest}, more than float16 can")
            yield values.astype(np.float16)


def hugging_face_name(name: str) -> str:
    """Translate a tensor's name, e.g. ``blk.3.attn_q.bias``."""
    if found := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
        layer, part, kind = found.groups()
        if part in _BLOCK_TENSOR:
            return f"model.layers.{layer}.{_BLOCK_TENSOR[part]}.{kind}"
    elif found := re.fullmatch(r"(\w+)\.(weight)", name):
        part, kind = found.groups()
        if part in _TENSOR:
            return f"{_TENSOR[part]}.{kind}"
    raise WeightsError(f"cannot convert the GGUF tensor {name!r}: its meaning is not known here")


def undo_rope_order(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder rows of a query or key matrix from llama.cpp's rotary layout to Hugging Face's.

    llama.cpp rotates neighbouring rows (0, 1), (2, 3), ...; Hugging Face rotates row i of a head
    with row i + head_dim / 2. Shape (heads * head_dim, D), unchanged.
    """
    half = weight.shape[0] // heads // 2
    paired = weight.reshape(heads, half, 2, *weight.shape[1:])
    return paired.swapaxes(1, 2).reshape(weight.shape)


def write_safetensors(
    path: Path, targets: list[_Target], progress: Progress, label: str = "converting"
) -> None:
    """Write ``targets`` one after the other in the safetensors format, as float16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for target in targets:
        start, end = end, end + target.nbytes
        header[target.name] = {
            "dtype": "F16",
            "shape": list(target.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if shutil.disk_usage(path.parent).free < end + len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    progress.start(label, end)
    try:
        with path.open("wb") as out:
            out.write(struct.pack("<Q", len(text)))
            out.write(text)
            written = 0
            for target in targets:
                for values in target.slices():
                    out.write(values.tobytes())
                    written += values.nbytes
                    progress.update(written)
            out.flush()
            os.fsync(out.fileno())
    finally:
        progress.finish()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
