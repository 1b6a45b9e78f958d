"""Whisper's weights from CTranslate2's format into PyTorch's, so that both run the same model.

The format is that of ``ctranslate2.specs.model_spec``: a version, the name of the spec and its
revision, then each variable with its name, shape, type and bytes, then the aliases.
"""

from __future__ import annotations

import struct
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from omni.errors import WeightsError

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
Array = NDArray[np.float32]


def read_variables(path: Path) -> dict[str, Array]:
    """The variables of a ``model.bin`` in float32; WeightsError when it is something else."""
    try:
        with path.open("rb") as file:
            _number(file, "I")
            _name(file)
            _number(file, "I")
            variables = dict(_variable(file) for _ in range(_number(file, "I")))
            for _ in range(_number(file, "I")):
                alias, name = _name(file), _name(file)
                variables[alias] = variables[name]
    except (struct.error, KeyError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a model of CTranslate2 in float ({error}); fetch it again with "
            "`omni models pull whisper-base`"
        ) from error
    return variables


def _number(file: BinaryIO, format: str) -> int:
    return int(struct.unpack(f"<{format}", file.read(struct.calcsize(format)))[0])


def _name(file: BinaryIO) -> str:
    return file.read(_number(file, "H")).rstrip(b"\0").decode()


def _variable(file: BinaryIO) -> tuple[str, Array]:
    name = _name(file)
    shape = [_number(file, "I") for _ in range(_number(file, "B"))]
    type = _TYPES[_number(file, "B")]
    data = np.frombuffer(file.read(_number(file, "I")), type)
    return name, data.reshape(shape).astype(np.float32)


def torch_state(variables: dict[str, Array]) -> tuple[dict[str, int], dict[str, Array]]:
    """The dimensions and the state that ``whisper.model.Whisper`` takes."""
    state: dict[str, Array] = {}

    def copy(to: str, source: str) -> None:
        state[f"{to}.weight"] = variables[f"{source}/weight"]
        state[f"{to}.bias"] = variables[f"{source}/bias"]

    def norm(to: str, source: str) -> None:
        state[f"{to}.weight"] = variables[f"{source}/gamma"]
        state[f"{to}.bias"] = variables[f"{source}/beta"]

    def split(to: str, source: str, names: tuple[str, ...]) -> None:
        """One matrix for several projections; that of the keys has no bias."""
        for kind in ("weight", "bias"):
            parts = np.split(variables[f"{source}/{kind}"], len(names))
            for name, part in zip(names, parts, strict=True):
                if (name, kind) != ("key", "bias"):
                    state[f"{to}.{name}.{kind}"] = part

    layers = {"encoder": 0, "decoder": 0}
    for side in layers:
        while f"{side}/layer_{layers[side]}/ffn/linear_0/weight" in variables:
            source, to = f"{side}/layer_{layers[side]}", f"{side}.blocks.{layers[side]}"
            split(f"{to}.attn", f"{source}/self_attention/linear_0", ("query", "key", "value"))
            copy(f"{to}.attn.out", f"{source}/self_attention/linear_1")
            norm(f"{to}.attn_ln", f"{source}/self_attention/layer_norm")
            if side == "decoder":
                copy(f"{to}.cross_attn.query", f"{source}/attention/linear_0")
                split(f"{to}.cross_attn", f"{source}/attention/linear_1", ("key", "value"))
                copy(f"{to}.cross_attn.out", f"{source}/attention/linear_2")
                norm(f"{to}.cross_attn_ln", f"{source}/attention/layer_norm")
            copy(f"{to}.mlp.0", f"{source}/ffn/linear_0")
            copy(f"{to}.mlp.2", f"{source}/ffn/linear_1")
            norm(f"{to}.mlp_ln", f"{source}/ffn/layer_norm")
            layers[side] += 1
    copy("encoder.conv1", "encoder/conv1")
    copy("encoder.conv2", "encoder/conv2")
    norm("encoder.ln_post", "encoder/layer_norm")
    norm("decoder.ln", "decoder/layer_norm")
    state["encoder.positional_embedding"] = variables["encoder/position_encodings/encodings"]
    state["decoder.positional_embedding"] = variables["decoder/position_encodings/encodings"]
    state["decoder.token_embedding.weight"] = variables["decoder/embeddings/weight"]
    vocabulary, width = state["decoder.token_embedding.weight"].shape
    dimensions = {
        "n_mels": state["encoder.conv1.weight"].shape[1],
        "n_audio_ctx": len(state["encoder.positional_embedding"]),
        "n_audio_state": width,
        "n_audio_head": width // 64,
        "n_audio_layer": layers["encoder"],
        "n_vocab": vocabulary,
        "n_text_ctx": len(state["decoder.positional_embedding"]),
        "n_text_state": width,
        "n_text_head": width // 64,
        "n_text_layer": layers["decoder"],
    }
    return dimensions, state


def torch_whisper(path: Path) -> Any:
    """``openai-whisper``'s model with the weights in the folder ``path``."""
    import torch

    package: Any = import_module("whisper.model")
    dimensions, state = torch_state(read_variables(path / "model.bin"))
    model = package.Whisper(package.ModelDimensions(**dimensions))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return model.eval()
