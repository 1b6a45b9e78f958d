"""Pictures -> what is where: EfficientNet's map read by the image adapter.

For drawings, icons, clip art and all that stands on a plain ground. Other pictures, photographs
above all, are named by EfficientNet itself: the adapter has learned from composed pictures alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from encoders.image import EfficientNetEncoder
from omni.adapters.image import AFTER, BEFORE, Scene, load_image_adapter, rows, text
from omni.types import Capabilities, ImageFrame, Pixels, Span

SHIPPED = "image.safetensors"


class SceneEncoder:
    """EfficientNet-Lite2 with an image adapter; serves all sessions."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """From ``plain`` on, a part of a picture's border, its ground is plain.

        With names that are less sure than ``sure`` the label is read where EfficientNet gives it
        ``label`` or more, and with names less sure than ``least`` in any case.
        """

        plain: float = 0.6
        sure: float = 0.7
        least: float = 0.3
        label: float = 0.3

    def __init__(
        self,
        network: EfficientNetEncoder,
        embed: Callable[[str], torch.Tensor] | None = None,
        path: Path | None = None,
        config: Config | None = None,
    ) -> None:
        """``embed`` gives the LLM's embeddings (T, D) of a text; None: its spans have words alone.

        ``path`` of what `omni.adapters.image.save_image_adapter` wrote; None: the one that ships.
        Raises `WeightsError`.
        """
        self.config = config or self.Config()
        self._network, self._embed = network, embed
        if path is None:
            with as_file(files("omni.adapters") / "data" / SHIPPED) as shipped:
                self.adapter, self.card = load_image_adapter(shipped)
        else:
            self.adapter, self.card = load_image_adapter(path)
        self.capabilities = Capabilities(
            inputs=frozenset({"image"}),
            bridge="embeds" if embed else "text",
            languages=frozenset({"en"}),
        )

    def encode(self, frames: Sequence[ImageFrame]) -> list[Span]:
        """One span per frame, with embeddings where the adapter knows what it shows."""
        return [self._encode(frame) for frame in frames]

    @torch.inference_mode()
    def _encode(self, frame: ImageFrame) -> Span:
        scene = self.read(frame)
        [sentence] = [[]] if scene is None else self.adapter.sentences(scene)
        if not sentence:
            return self._network.encode([frame])[0]
        embeds = rows([BEFORE, *sentence, AFTER], self._embed) if self._embed else None
        return Span("image", text(sentence), embeds, (frame.time, frame.time))

    @torch.inference_mode()
    def read(self, frame: ImageFrame) -> Scene | None:
        """What the adapter sees, a batch of one; None where EfficientNet's label says more."""
        config = self.config
        if ground_share(frame.pixels) < config.plain:
            return None
        map_1PE = torch.from_numpy(self._network.features(frame.pixels))[None]
        scene: Scene = self.adapter(map_1PE)
        [sure] = self.adapter.sureness(scene)
        if sure < config.least:
            return None
        if sure < config.sure and self._network.probabilities([frame]).max() >= config.label:
            return None
        return scene


def ground_share(pixels: Pixels) -> float:
    """The part of a picture's border that is of one colour, give or take some shading."""
    small = np.asarray(Image.fromarray(pixels).resize((28, 28), Image.Resampling.BOX), np.float32)
    edges = (small[:2], small[-2:], small[2:-2, :2], small[2:-2, -2:])
    border = np.concatenate([edge.reshape(-1, 3) for edge in edges])
    middle = np.median(border, axis=0)
    apart = np.abs(border - middle).max(axis=1)
    return float((apart < 0.13 * max(float(middle.max()), 80.0)).mean())
