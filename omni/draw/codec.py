"""Pictures as discrete tokens and back: a VQ autoencoder (diffusers' `VQModel`).

The model sees each 4 x 4 pixels as one position of 48 channels (space to depth), which makes it an
order of magnitude cheaper than convolutions over pixels, and halves that grid once: 64 x 64 pixels
are 8 x 8 tokens.

Sources: van den Oord et al., Neural Discrete Representation Learning (2017); Esser et al., Taming
Transformers (2021), whose autoencoder diffusers has; the last step from channels to pixels is the
sub-pixel convolution of Shi et al. (2016).

Shape letters: B pictures, S side in pixels, G side of the grid of tokens, C channels.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from omni.errors import WeightsError

PATCH = 4
CONFIG = {
    "in_channels": 3 * PATCH**2,
    "out_channels": 3 * PATCH**2,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (64, 128),
    "latent_channels": 16,
    "vq_embed_dim": 8,
    "num_vq_embeddings": 1024,
    "sample_size": 16,
}
"""Of the model that is trained here."""


class PictureCodec(nn.Module):
    """Pictures in 0 .. 255 <-> tokens (B, G, G)."""

    def __init__(self, model: Any) -> None:
        """``model`` is a `diffusers.VQModel` over patches."""
        super().__init__()
        self.model = model
        self.codes = int(model.config.num_vq_embeddings)
        self.factor = PATCH * 2 ** (len(model.config.block_out_channels) - 1)
        """Pixels to one token, along a side."""

    @classmethod
    def new(cls, **config: Any) -> PictureCodec:
        """With random weights; ``config`` are changes to `CONFIG`."""
        model = _vq_model()(**CONFIG | config)
        model.quantize.legacy = False
        return cls(model)

    @classmethod
    def load(cls, folder: Path) -> PictureCodec:
        """From a directory that `save` wrote. Raises WeightsError where there is none."""
        try:
            model = _vq_model().from_pretrained(folder, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise WeightsError(f"{folder} holds no picture codec ({error})") from error
        return cls(model.eval())

    def save(self, folder: Path) -> None:
        """As diffusers does, in float16."""
        import copy

        copy.deepcopy(self.model).half().save_pretrained(folder)

    def fix_tokens(self) -> None:
        """From now on training leaves alone what decides the tokens of a picture."""
        for part in (self.model.encoder, self.model.quant_conv, self.model.quantize):
            part.requires_grad_(False)

    @torch.inference_mode()
    def encode(self, pictures_BSS3: NDArray[np.uint8]) -> Tensor:
        """Pictures -> tokens (B, G, G)."""
        latents_BCGG = self.latents(_patches(pictures_BSS3))
        *_, (_, _, tokens) = self.model.quantize(latents_BCGG)
        b, _, g, _ = latents_BCGG.shape
        return torch.as_tensor(tokens).view(b, g, g)

    @torch.inference_mode()
    def decode(self, tokens_BGG: Tensor) -> NDArray[np.uint8]:
        """Tokens -> pictures (B, S, S, 3)."""
        codes_BCGG = self.model.quantize.embedding(tokens_BGG).permute(0, 3, 1, 2)
        pixels = self.pixels(codes_BCGG.contiguous()).permute(0, 2, 3, 1)
        return ((pixels + 1) * 127.5).clamp(0, 255).round().to(torch.uint8).numpy()

    def latents(self, patches_BCGG: Tensor) -> Tensor:
        """What the quantizer sees of space-to-depth patches in -1 .. 1."""
        latents: Tensor = self.model.encode(patches_BCGG).latents
        return latents

    def pixels(self, codes_BCGG: Tensor) -> Tensor:
        """Codes (B, C, G, G) -> pixels (B, 3, S, S) in -1 .. 1."""
        out = self.model.decode(codes_BCGG, force_not_quantize=True).sample
        return F.pixel_shuffle(out, PATCH)

    def forward(
        self, pictures_BSS3: NDArray[np.uint8], quantize: bool = True
    ) -> tuple[Tensor, ...]:
        """For training: pixels as they are and as they come back (B, 3, S, S), loss of the codes.

        ``quantize`` False trains a plain autoencoder, to find where the codes should lie.
        """
        patches = _patches(pictures_BSS3)
        latents = self.latents(patches)
        loss = latents.pow(2).mean() * 1e-2
        if quantize:
            latents, loss, _ = self.model.quantize(latents)
        return F.pixel_shuffle(patches, PATCH), self.pixels(latents), loss


def _patches(pictures_BSS3: NDArray[np.uint8]) -> Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(pictures_BSS3)).permute(0, 3, 1, 2)
    return F.pixel_unshuffle(pixels.float() / 127.5 - 1, PATCH)


def _vq_model() -> Any:
    """The class; its modules look for the hub's optional parts when they are imported."""
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    from diffusers import VQModel

    return VQModel
