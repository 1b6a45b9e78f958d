"""Pictures -> words: EfficientNet-Lite2's labels, and plain facts about colour and size.

The published weights are a PyTorch state dict. PyTorch runs such depthwise networks slowly on a
CPU, so the graph is written down as ONNX here, batch normalisation folded into the convolutions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoders.colour import plain_colour, tones
from encoders.vad import onnx_session
from omni.data.sample import Medium
from omni.errors import WeightsError
from omni.types import Capabilities, ImageFrame, Pixels, Span

Floats = NDArray[np.float32]

GRID = 7
"""Rows and columns of the map."""
FINE = 4
"""Rows and columns of colours in a cell of the map."""
CHANNELS = 1280
FEATURES = CHANNELS + 3 * FINE * FINE
"""Of a cell: the channels of the map, then the mean colours (red, green, blue) of its parts."""

_STRIDED = (1, 4, 7, 15)  # blocks that halve the picture
_EPSILON = 1e-3


class EfficientNetEncoder:
    """EfficientNet-Lite2 trained on ImageNet-1000, bridged by text; serves all sessions."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        From ``confident`` on a thing is named as seen, from ``possible`` on as a possibility, and
        below it the text says that nothing was recognised. ``size`` is the input's side in pixels.
        """

        threads: int = 2
        size: int = 224
        confident: float = 0.5
        possible: float = 0.3

    def __init__(self, path: Path, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._session = onnx_session(efficientnet_onnx(load_state(path)), self.config.threads)
        table = json.loads((files("encoders") / "data" / "imagenet_labels.json").read_text("utf-8"))
        self._labels: list[str] = table["labels"]
        self._no_article = frozenset(table["no_article"])
        grouped = {i: name for name, members in table["groups"].items() for i in members}
        names = [grouped.get(i, label) for i, label in enumerate(self._labels)]
        self._names = list(dict.fromkeys(names))
        index = {name: i for i, name in enumerate(self._names)}
        self._group = np.array([index[name] for name in names])
        self.capabilities = Capabilities(
            inputs=frozenset({"image"}), bridge="text", languages=frozenset({"en"})
        )

    def encode(self, frames: Sequence[ImageFrame]) -> list[Span]:
        """One span per frame: what it shows, as an English phrase, how sure in parentheses."""
        return [
            Span("image", text=self._describe(frame.pixels, p), times=(frame.time, frame.time))
            for frame, p in zip(frames, self.probabilities(frames), strict=True)
        ]

    def probabilities(self, frames: Sequence[ImageFrame]) -> Floats:
        """Probabilities of the 1000 labels, shape (len(frames), 1000)."""
        out = np.zeros((len(frames), len(self._labels)), np.float32)
        for i, frame in enumerate(frames):
            # Two views: the centre as in training, and all of it for what stands at the edge.
            batch = np.stack(
                [view(frame.pixels, self.config.size, whole) for whole in (False, True)]
            )
            logits = self._session.run(["logits"], {"pixels": batch})[0].mean(axis=0)
            exp = np.exp(logits - logits.max())
            out[i] = exp / exp.sum()
        return out

    def features(self, pixels: Pixels) -> Floats:
        """Where things are and in which colours: the cells of a grid, (GRID², FEATURES).

        Of the ``whole`` `view`, from the upper left: the map after the last convolution, and beside
        it the mean colours of the parts of each cell.
        """
        seen = view(pixels, self.config.size, whole=True)
        [cells] = self._session.run(["map"], {"pixels": seen[None]})
        side = seen.shape[-1] // (GRID * FINE)
        # channel, row and column of the cell, of the part, of the pixel
        parts = seen.reshape(3, GRID, FINE, side, GRID, FINE, side).mean(axis=(3, 6))
        colours = parts.transpose(1, 3, 2, 4, 0).reshape(GRID * GRID, -1)
        return np.concatenate([cells.reshape(CHANNELS, -1).T, colours], axis=1)

    def _describe(self, pixels: Pixels, probabilities: Floats) -> str:
        colour = plain_colour(pixels)
        if colour:
            return f"nothing but plain {colour}"
        sums = np.bincount(self._group, weights=probabilities, minlength=len(self._names))
        best = int(sums.argmax())
        noun, sure = self._noun(self._names[best]), f"({sums[best]:.0%} sure)"
        if sums[best] >= self.config.confident:
            members = np.flatnonzero(self._group == best)
            label = members[probabilities[members].argmax()]
            fine = self._labels[label]
            if fine != self._names[best] and probabilities[label] >= self.config.possible:
                noun += f", most likely {self._noun(fine)}"
            return f"{noun} {sure}; {tones(pixels)}"
        if sums[best] >= self.config.possible:
            return f"possibly {noun}, but this is uncertain {sure}; {tones(pixels)}"
        return f"something that could not be recognised with confidence; {tones(pixels)}"

    def _noun(self, name: str) -> str:
        if name in self._no_article:
            return name
        return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


class Eye:
    """The encoder as training reads it (`omni.train.features.Encoder`)."""

    def __init__(self, path: Path | None = None) -> None:
        """``path`` of EfficientNet-Lite2's state dict; None: fetched where it is not there."""
        from omni.weights import ensure

        path = path or ensure("efficientnet-lite2")
        self.version = f"2-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
        config = EfficientNetEncoder.Config(threads=1)
        self._encoder = EfficientNetEncoder(path, config)

    def features(self, medium: Medium) -> Floats:
        """As `EfficientNetEncoder.features`. Raises `MediaError`."""
        return self._encoder.features(medium.pixels())


def view(pixels: Pixels, size: int, whole: bool = False) -> Floats:
    """The network's input (3, ``size``, ``size``): the centre, or the ``whole`` picture padded."""
    image = Image.fromarray(pixels)
    height, width = pixels.shape[:2]
    scale = size / max(height, width) if whole else size / (0.875 * min(height, width))
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(image.resize(shape, Image.Resampling.BICUBIC), np.float32)
    canvas = np.full((size, size, 3), 127.0, np.float32)
    h, w = min(size, small.shape[0]), min(size, small.shape[1])
    top, left = (small.shape[0] - h) // 2, (small.shape[1] - w) // 2
    y, x = (size - h) // 2, (size - w) // 2
    canvas[y : y + h, x : x + w] = small[top : top + h, left : left + w]
    return np.ascontiguousarray(((canvas - 127.0) / 128.0).transpose(2, 0, 1))


def load_state(path: Path) -> dict[str, Floats]:
    """The state dict at ``path`` as arrays; WeightsError when it is something else."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value.float().numpy() for name, value in state.items()}
    except Exception as error:  # torch.load raises nearly anything on a broken file
        raise WeightsError(
            f"{path} is not the state dict of EfficientNet-Lite2 ({error}); "
            "fetch it again with: omni models pull efficientnet-lite2"
        ) from error


def efficientnet_onnx(state: Mapping[str, Floats]) -> bytes:
    """The ONNX graph of an EfficientNet-Lite2 state dict: pixels (B, 3, S, S) -> logits (B, 1000).

    ``map`` (B, 1280, S / 32, S / 32) is an output, too: what is pooled for the logits. Sizes come
    from the weights; the strides and the padding ("same", more at the lower right) are those of Tan
    and Le, 2019 (arXiv 1905.11946), in their Lite variant. WeightsError when a weight is missing.
    """
    graph = _Graph(state)
    try:
        x = graph.conv("pixels", "_conv_stem", "_bn0", stride=2, relu6=True)
        block = 0
        while f"_blocks.{block}._depthwise_conv.weight" in state:
            name, before = f"_blocks.{block}.", x
            if f"{name}_expand_conv.weight" in state:
                x = graph.conv(x, f"{name}_expand_conv", f"{name}_bn0", relu6=True)
            stride = 2 if block in _STRIDED else 1
            x = graph.conv(x, f"{name}_depthwise_conv", f"{name}_bn1", stride, relu6=True)
            x = graph.conv(x, f"{name}_project_conv", f"{name}_bn2")
            if stride == 1 and graph.channels[x] == graph.channels[before]:
                x = graph.node("Add", [x, before], channels=graph.channels[x])
            block += 1
        x = graph.conv(x, "_conv_head", "_bn1", relu6=True, output="map")
        x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x])])
        graph.node(
            "Gemm",
            [x, graph.add("w", state["_fc.weight"]), graph.add("b", state["_fc.bias"])],
            output="logits",
            transB=1,
        )
    except KeyError as error:
        raise WeightsError(f"the state dict has no {error}; it is not EfficientNet-Lite2") from None
    return graph.serialised()


class _Graph:
    """Writes an ONNX graph down node by node."""

    def __init__(self, state: Mapping[str, Floats]) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy = helper, numpy_helper
        self._state = state
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self.channels: dict[str, int] = {"pixels": 3}
        self._six = self.add("six", np.array(6.0, np.float32))
        self._zero = self.add("zero", np.array(0.0, np.float32))

    def add(self, name: str, array: Floats) -> str:
        self._weights.append(self._numpy.from_array(np.ascontiguousarray(array), name))
        return name

    def node(
        self, kind: str, inputs: list[str], output: str = "", channels: int = 0, **options: Any
    ) -> str:
        output = output or f"x{len(self._nodes)}"
        self._nodes.append(self._helper.make_node(kind, inputs, [output], **options))
        self.channels[output] = channels
        return output

    def conv(
        self,
        x: str,
        conv: str,
        norm: str,
        stride: int = 1,
        relu6: bool = False,
        output: str = "",
    ) -> str:
        """A convolution with the batch normalisation that follows folded in."""
        state = self._state
        weight = state[f"{conv}.weight"]
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + _EPSILON)
        bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
        channels, kernel = weight.shape[0], weight.shape[2]
        inputs = [
            x,
            self.add(f"{conv}.w", weight * scale[:, None, None, None]),
            self.add(f"{conv}.b", bias),
        ]
        out = self.node(
            "Conv",
            inputs,
            channels=channels,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            auto_pad="SAME_UPPER",
            group=self.channels[x] // weight.shape[1],
        )
        if not relu6:
            return out
        return self.node("Clip", [out, self._zero, self._six], output, channels)

    def serialised(self) -> bytes:
        h = self._helper
        pixels = h.make_tensor_value_info("pixels", 1, ["batch", 3, "height", "width"])
        logits = h.make_tensor_value_info("logits", 1, ["batch", "classes"])
        cells = h.make_tensor_value_info("map", 1, ["batch", "channels", "rows", "columns"])
        outputs = [logits, cells]
        graph = h.make_graph(self._nodes, "efficientnet", [pixels], outputs, self._weights)
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
        return bytes(model.SerializeToString())
