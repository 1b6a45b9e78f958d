"""Painters: a wish -> a picture, with what is there of it while it is made.

The default one writes picture tokens (`omni.draw`); any text-to-image pipeline of diffusers can
take its place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from omni.draw.codec import PictureCodec
from omni.draw.tokens import PictureDecoder, Sampling, agreement, draw
from omni.draw.wishes import Wish
from omni.draw.words import padded
from omni.errors import InputError, WeightsError
from omni.weights.store import home

SHIPPED = Path(__file__).parent / "data" / "pictures"
"""Where weights that come with the package lie."""
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Progress:
    """Step ``step`` of ``steps`` is done; ``pixels`` (H, W, 3) is what can be seen, if anything."""

    step: int
    steps: int
    pixels: Pixels | None = None


Report = Callable[[Progress], None]
"""Told after each step; to stop painting it raises."""


class Painter(Protocol):
    """Makes pictures. One thread at a time may use it."""

    name: str

    def knows(self, wish: Wish) -> bool:
        """Whether it has learnt what is wished for; it paints something in any case."""
        ...

    def paint(self, wish: Wish, *, seed: int, report: Report = lambda progress: None) -> Pixels:
        """The picture (H, W, 3). The same seed gives the same one."""
        ...


class TokenPainter:
    """The decoder of picture tokens over the shared LLM, and the best of several candidates."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """``candidates`` are drawn at once, and that which the words explain best is taken."""

        sampling: Sampling = field(default_factory=Sampling)
        candidates: int = 4
        side: int = 256
        """Pixels of the picture; it is made of fewer and enlarged."""

    def __init__(
        self,
        codec: PictureCodec,
        decoder: PictureDecoder,
        known: frozenset[str],
        read: Callable[[str], Tensor],
        config: TokenPainter.Config | None = None,
    ) -> None:
        """``read`` gives the LLM's hidden states (L, D) of a prompt."""
        self.name = "omni-pictures"
        self._codec, self._decoder, self._read = codec, decoder, read
        self.known = known
        """Names of the subjects that it was trained on."""
        self.config = config or self.Config()

    @classmethod
    def load(
        cls,
        folder: Path,
        llm: str,
        read: Callable[[str], Tensor],
        config: TokenPainter.Config | None = None,
    ) -> TokenPainter:
        """From a directory that ``omni draw train`` wrote.

        Raises WeightsError where there is none, or one for the hidden states of another LLM.
        """
        decoder, notes = PictureDecoder.load(folder)
        if notes["llm"] != llm:
            raise WeightsError(
                f"the picture decoder in {folder} reads the hidden states of {notes['llm']}, not "
                f"those of {llm}; use that model, or train one with: omni draw train --model {llm}"
            )
        codec = PictureCodec.load(folder / "codec")
        return cls(codec, decoder, frozenset(notes["known"]), read, config)

    def knows(self, wish: Wish) -> bool:
        """Whether it was trained on the subject; "anything" is known."""
        return not wish.words or (wish.subject is not None and wish.subject.name in self.known)

    def paint(self, wish: Wish, *, seed: int, report: Report = lambda progress: None) -> Pixels:
        """The picture; what is reported is the first candidate as far as it is."""
        how, count = self.config.sampling, self.config.candidates
        if wish.prompt:
            states_BLD, real_BL = padded([self._read(wish.prompt).float()] * count)
        else:
            width = self._decoder.config.features
            states_BLD, real_BL = torch.zeros(count, 1, width), torch.zeros(count, 1).bool()
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.empty(0)
        steps = draw(self._decoder, states_BLD, real_BL, generator, how)
        for step, tokens in enumerate(steps, 1):
            if step < how.steps:
                report(Progress(step, how.steps, self._pixels(tokens[:1])))
        best = int(agreement(self._decoder, states_BLD, real_BL, tokens).argmax())
        pixels = self._pixels(tokens[best : best + 1])
        report(Progress(how.steps, how.steps, pixels))
        return pixels

    def _pixels(self, tokens_1N: Tensor) -> Pixels:
        side = round(tokens_1N.shape[1] ** 0.5)
        small = self._codec.decode(tokens_1N.view(1, side, side))[0]
        return enlarged(small, self.config.side)


class PipelinePainter:
    """Any text-to-image pipeline of diffusers, on a GPU where there is one."""

    def __init__(self, pipeline: Any, name: str, *, steps: int | None = None) -> None:
        """``steps`` None leaves the pipeline's own number."""
        self.name = name
        self._pipeline, self._steps = pipeline, steps

    @classmethod
    def load(cls, source: str | Path, device: str = "auto", steps: int | None = None) -> Painter:
        """From a directory or a hub id. Raises WeightsError where there is no such pipeline."""
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
        from diffusers import DiffusionPipeline

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.float16 if device.startswith("cuda") else torch.float32
        try:
            load: Any = DiffusionPipeline.from_pretrained
            pipeline = load(str(source), dtype=dtype)
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{source} is no text-to-image pipeline of diffusers ({error}); give a directory "
                "with model_index.json, or the id of one on the hub"
            ) from error
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline.to(device), str(source), steps=steps)

    def knows(self, wish: Wish) -> bool:
        """It has no list of what it knows."""
        return True

    def paint(self, wish: Wish, *, seed: int, report: Report = lambda progress: None) -> Pixels:
        """The picture; what is reported are steps without pixels, and the picture."""
        steps = self._steps

        def after(pipeline: Any, step: int, time: Any, kept: dict[str, Any]) -> dict[str, Any]:
            total = int(pipeline.num_timesteps)
            if step + 1 < total:
                report(Progress(step + 1, total))
            return kept

        image = self._pipeline(
            wish.words or "a picture",
            generator=torch.Generator().manual_seed(seed),
            callback_on_step_end=after,
            output_type="np",
            **({"num_inference_steps": steps} if steps else {}),
        ).images[0]
        pixels = (np.asarray(image) * 255).round().clip(0, 255).astype(np.uint8)
        total = int(self._pipeline.num_timesteps)
        report(Progress(total, total, pixels))
        return pixels


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where a painter comes from, before it is loaded.

    ``source`` is a directory that ``omni draw train`` wrote, or a pipeline of diffusers, by
    directory or hub id. None is what was trained here for the shared LLM, whose name is ``llm``, or
    else what comes with the package.
    """

    source: str | None = None
    llm: str = ""
    device: str = "auto"

    @property
    def problem(self) -> str | None:
        """Why there is none, if so."""
        if self.source is not None or self._folder() is not None:
            return None
        return (
            f"there is no picture decoder for {self.llm or 'this model'}; train one with "
            "'omni draw train', or give --pictures a text-to-image pipeline of diffusers"
        )

    def load(self, read: Callable[[str], Tensor]) -> Painter:
        """The painter. Raises InputError where none is installed, WeightsError for a bad source."""
        folder = self._folder()
        if folder is not None:
            return TokenPainter.load(folder, self.llm, read)
        if self.source is None:
            raise InputError(self.problem or "", code="unsupported")
        return PipelinePainter.load(self.source, self.device)

    def _folder(self) -> Path | None:
        if self.source is not None:
            folder = Path(self.source).expanduser()
            return folder if (folder / "decoder.json").is_file() else None
        return next((p for p in (home() / "draw", SHIPPED) if self._made_for(p) == self.llm), None)

    @staticmethod
    def _made_for(folder: Path) -> str | None:
        """The LLM that the decoder in a folder reads, if there is one."""
        try:
            return str(json.loads((folder / "decoder.json").read_text("utf-8"))["llm"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def enlarged(pixels: Pixels, side: int) -> Pixels:
    """A square picture with another side, by Lanczos."""
    if pixels.shape[0] == side:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))
