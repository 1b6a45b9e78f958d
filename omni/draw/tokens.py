"""The picture decoder: hidden states of the words of a prompt -> tokens of a picture, in parallel.

A bidirectional transformer reads the prompt's hidden states and a picture of which part is masked,
and says for each masked token what it may be. Drawing begins with all masked and keeps the surest
tokens of each step, first one or two, then more and more, so that ten steps make a picture, and
each gives a coarse version of it.

Sources: Chang et al., MaskGIT (2022), for training, schedule and sampling; Chang et al., Muse
(2023), for text and guidance; Ho and Salimans, Classifier-Free Diffusion Guidance (2022).

Shape letters: B pictures, L tokens of a prompt, D width of the LLM, N tokens of a picture, T = L +
N positions, W width of the decoder, V codes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from omni.errors import WeightsError


class PictureDecoder(nn.Module):
    """(hidden states, tokens with -1 for masked) -> logits of each token."""

    mean: Tensor
    scale: Tensor

    @dataclass(frozen=True, slots=True)
    class Config:
        """Sizes; ``features`` is the width of the LLM."""

        features: int
        codes: int = 1024
        tokens: int = 64
        width: int = 256
        layers: int = 6
        heads: int = 4
        expansion: int = 4
        words: int = 12
        """Tokens of a prompt that are read: its last ones."""

        def build(self) -> PictureDecoder:
            """With random weights."""
            return PictureDecoder(self)

    def __init__(self, config: PictureDecoder.Config) -> None:
        super().__init__()
        self.config = config
        c = config
        # Of an LLM's states some dimensions are large in every one and say nothing.
        self.register_buffer("mean", torch.zeros(c.features))
        self.register_buffer("scale", torch.ones(c.features))
        self.read = nn.Linear(c.features, c.width)
        self.words = nn.Parameter(torch.randn(c.words, c.width) * 0.02)
        self.nothing = nn.Parameter(torch.randn(c.width) * 0.02)
        self.codes = nn.Embedding(c.codes + 1, c.width)  # the last one is the mask
        self.places = nn.Parameter(torch.randn(c.tokens, c.width) * 0.02)
        self.blocks = nn.ModuleList(_Block(c) for _ in range(c.layers))
        self.leave = nn.RMSNorm(c.width)
        self.head = nn.Linear(c.width, c.codes)
        nn.init.normal_(self.codes.weight, std=0.02)
        nn.init.zeros_(self.head.weight)

    @classmethod
    def load(cls, folder: Path) -> tuple[PictureDecoder, dict[str, Any]]:
        """From a directory that `save` wrote, with what was noted there."""
        try:
            notes = json.loads((folder / "decoder.json").read_text("utf-8"))
            decoder = cls.Config(**notes.pop("config")).build()
            decoder.load_state_dict(load_file(folder / "decoder.safetensors"))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise WeightsError(f"{folder} holds no picture decoder ({error})") from error
        return decoder.eval(), notes

    def save(self, folder: Path, **notes: Any) -> None:
        """``decoder.safetensors`` in float16, and ``decoder.json`` with the sizes and ``notes``."""
        weights = {k: v.half().contiguous() for k, v in self.state_dict().items()}
        save_file(weights, folder / "decoder.safetensors")
        text = json.dumps({"config": asdict(self.config), **notes}, indent=1)
        (folder / "decoder.json").write_text(text + "\n", "utf-8")

    def standardise(self, states_ND: Tensor) -> None:
        """Measure what hidden states are like, before training."""
        self.mean.copy_(states_ND.mean(0))
        self.scale.copy_(states_ND.std(0).clamp(min=1e-3))

    def forward(self, states_BLD: Tensor, real_BL: Tensor, tokens_BN: Tensor) -> Tensor:
        """Logits (B, N, V). ``real_BL`` says which words count; none asks for any picture."""
        c = self.config
        states = (states_BLD[:, -c.words :].float() - self.mean) / self.scale
        real = real_BL[:, -c.words :]
        # Counted from the end, where the words that say most stand.
        words = self.read(states) + self.words[-states.shape[1] :]
        none_B = ~real.any(1)
        words = torch.where(none_B[:, None, None], self.nothing, words)
        real = real | none_B[:, None]
        tokens = torch.where(tokens_BN < 0, c.codes, tokens_BN)
        x = torch.cat((words, self.codes(tokens) + self.places), 1)
        see = F.pad(real, (0, tokens.shape[1]), value=True)[:, None, None]
        for block in self.blocks:
            x = block(x, see)
        out: Tensor = self.head(self.leave(x[:, words.shape[1] :]))
        return out


class _Block(nn.Module):
    """Attention and MLP, each normalised first and added; queries and keys are normalised."""

    def __init__(self, config: PictureDecoder.Config) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, config.expansion * width, bias=False)
        self.down = nn.Linear(config.expansion * width, width, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, see: Tensor) -> Tensor:
        b, t, w = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, w // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = (F.rms_norm(y, (w // self.heads,)) for y in (q, k))
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=see)
        x = x + self.out(a.transpose(1, 2).reshape(b, t, w))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return out


def masked(tokens_BN: Tensor, generator: torch.Generator) -> Tensor:
    """Tokens with a random part masked, by the cosine schedule: of most pictures most of it."""
    b, n = tokens_BN.shape
    share_B = torch.cos(torch.rand(b, 1, generator=generator) * math.pi / 2)
    order = torch.rand(b, n, generator=generator).argsort(1).argsort(1)
    return torch.where(order < (share_B * n).ceil(), -1, tokens_BN)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw: ``guidance`` keeps close to the words, ``temperature`` varies the picture."""

    steps: int = 10
    guidance: float = 3.0
    temperature: float = 1.0
    choice: float = 3.0
    """Noise in which tokens are kept, in the first step; none in the last."""


@torch.inference_mode()
def draw(
    decoder: PictureDecoder,
    states_BLD: Tensor,
    real_BL: Tensor,
    generator: torch.Generator,
    how: Sampling,
) -> Iterator[Tensor]:
    """Draw a picture for each of B prompts: the tokens (B, N) after each step.

    What is not decided yet is there as it was last guessed; a draw that is dropped has no effect.
    """
    b, n = len(states_BLD), decoder.config.tokens
    states = torch.cat((states_BLD, states_BLD))
    real = torch.cat((real_BL, torch.zeros_like(real_BL)))
    tokens = torch.full((b, n), -1)
    for step in range(1, how.steps + 1):
        with_words, without = decoder(states, real, tokens.repeat(2, 1)).chunk(2)
        logits = without + how.guidance * (with_words - without)
        noise = torch.rand(logits.shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
        gumbel = -(-noise.log()).log()
        guess = (logits + how.temperature * gumbel).argmax(-1)
        sure = logits.log_softmax(-1).gather(-1, guess[..., None])[..., 0]
        rest = 1 - step / how.steps
        jitter = torch.rand(sure.shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
        sure = sure - how.choice * rest * (-jitter.log()).log()
        sure = sure.masked_fill(tokens >= 0, torch.inf)
        guess = torch.where(tokens >= 0, tokens, guess)
        keep = n - math.floor(n * math.cos(math.pi / 2 * step / how.steps) + 1e-6)
        chosen = sure.topk(max(keep, step), -1).indices
        tokens = torch.full_like(tokens, -1).scatter(1, chosen, guess.gather(1, chosen))
        yield guess


@torch.inference_mode()
def agreement(
    decoder: PictureDecoder, states_BLD: Tensor, real_BL: Tensor, tokens_BN: Tensor
) -> Tensor:
    """How much better the words explain each picture than no words do, (B,), in nats a token.

    Each half of the picture, in a chequerboard, is guessed from the other.
    """
    n = tokens_BN.shape[1]
    side = math.isqrt(n)
    place = torch.arange(n)
    even = (place // side + place % side) % 2 == 0
    score = torch.zeros(len(tokens_BN))
    for hidden in (even, ~even):
        given = torch.where(hidden, -1, tokens_BN).repeat(2, 1)
        real = torch.cat((real_BL, torch.zeros_like(real_BL)))
        logits = decoder(torch.cat((states_BLD, states_BLD)), real, given)
        likely = logits.log_softmax(-1).gather(-1, tokens_BN.repeat(2, 1)[..., None])[..., 0]
        with_words, without = (likely * hidden).sum(1).chunk(2)
        score += with_words - without
    return score / n
