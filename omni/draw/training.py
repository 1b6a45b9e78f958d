"""Training of what draws: first the codec, then the tokens, each resumable from one file.

There is no schedule that must know the end: the learning rate stays, and what is kept is a moving
average of the weights, so that training may go on at any time for as long as there is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from omni.draw.codec import PictureCodec
from omni.draw.pictures import Drawing, drawings
from omni.draw.subjects import subjects
from omni.draw.tokens import PictureDecoder, masked
from omni.draw.words import PromptReader, padded
from omni.llm.model import load

Report = Callable[[str], None]


class Average:
    """A moving average of a network's weights, over about a tenth of the steps, 1000 at most."""

    def __init__(self, network: nn.Module) -> None:
        self.weights = {k: v.detach().clone().float() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after step number ``step``."""
        pace = max(10 / (step + 10), 1e-3)
        for name, value in network.state_dict().items():
            self.weights[name].lerp_(value.float(), pace)


class Run:
    """The state of one training: network, optimisers, average and step, in a file of its own."""

    def __init__(
        self, path: Path, network: nn.Module, optimisers: list[torch.optim.Optimizer]
    ) -> None:
        self.path, self.network, self.optimisers = path, network, optimisers
        self.step = 0
        self.average = Average(network)
        if path.exists():
            state = torch.load(path, weights_only=True)
            network.load_state_dict(state["network"])
            for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
            self.average.weights, self.step = state["average"], state["step"]

    def save(self) -> None:
        """Write the file; it appears whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "average": self.average.weights,
            "step": self.step,
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.path)

    def backward(self, loss: Tensor) -> None:
        """One step of the optimisers."""
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self.average.update(self.network, self.step)


def timed(run: Run, minutes: float, report: Report) -> Iterator[Callable[[float], None]]:
    """Steps until the time is up; the file is written every minute and at the end.

    What is given takes the step's loss, for the report.
    """
    end = time.monotonic() + 60 * minutes
    saved = time.monotonic()
    losses: list[float] = []
    while time.monotonic() < end:
        yield losses.append
        if time.monotonic() - saved > 60:
            run.save()
            saved = time.monotonic()
            report(f"step {run.step}: {np.mean(losses):.4f} over {len(losses)} steps")
            losses.clear()
    run.save()


WARM_UP = 300
"""Steps of the codec before its latents are quantised."""


def train_codec(
    folder: Path, minutes: float, report: Report, *, most: int | None = None, batch: int = 16
) -> PictureCodec:
    """Train the codec on the first ``most`` subjects, or go on; ``folder/codec`` is the result.

    Once there is a decoder that reads its tokens, these stay as they are, and only how pixels are
    made of them is trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    codec = PictureCodec.new()
    codec.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(codec.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=1e-4)
    run = Run(folder / "codec.pt", codec, [optimiser])
    fixed = (folder / "decoder.pt").exists()
    if fixed:
        codec.load_state_dict(run.average.weights)
        codec.fix_tokens()
    pictures = render([d for d in drawings(most) if not d.held_out])
    for note in timed(run, minutes, report):
        random = np.random.default_rng((1, run.step))
        chosen = pictures[random.integers(len(pictures), size=batch)]
        if run.step == WARM_UP and not fixed:
            place_codes(codec, pictures[random.integers(len(pictures), size=512)])
            run.average = Average(codec)
        wanted, made, codes = codec(chosen, quantize=run.step >= WARM_UP)
        run.backward(picture_loss(made, wanted) + codes)
        note(float(F.l1_loss(made.detach(), wanted)))
        if run.step > WARM_UP and run.step % 200 == 0 and not fixed:
            place_codes(codec, pictures[random.integers(len(pictures), size=256)], unused=True)
    codec.load_state_dict(run.average.weights)
    codec.eval().save(folder / "codec")
    return codec


def picture_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Of pixels, and of their differences to their neighbours, which keeps edges sharp."""
    loss = F.l1_loss(made, wanted) + F.mse_loss(made, wanted)
    for axis in (-1, -2):
        loss = loss + F.l1_loss(made.diff(dim=axis), wanted.diff(dim=axis))
    return loss


@torch.no_grad()
def place_codes(codec: PictureCodec, pictures: NDArray[np.uint8], unused: bool = False) -> None:
    """Put the codes (or those that nothing in ``pictures`` uses) where latents lie.

    A code that is near no latent is never chosen, and what is never chosen never moves.
    """
    from omni.draw.codec import _patches

    latents = codec.latents(_patches(pictures)).permute(0, 2, 3, 1).flatten(0, 2)
    table = codec.model.quantize.embedding.weight
    near = torch.cdist(latents, table).min(1)
    if unused:
        free = torch.bincount(near.indices, minlength=len(table)) == 0
        # Where the codes fit worst there should be more of them.
        chosen = latents[torch.multinomial(near.values.pow(2) + 1e-8, int(free.sum()))]
        table[free] = chosen
        return
    table.copy_(means(latents, len(table)))


def means(points: Tensor, count: int, rounds: int = 10) -> Tensor:
    """k-means from a random start."""
    centres = points[torch.randperm(len(points))[:count]].clone()
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        sizes = torch.bincount(nearest, minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return centres


def render(chosen: list[Drawing]) -> NDArray[np.uint8]:
    """All pictures (N, SIDE, SIDE, 3) of some drawings."""
    return np.stack([drawing.render() for drawing in chosen])


def train_tokens(
    folder: Path,
    llm: str,
    minutes: float,
    report: Report,
    *,
    most: int | None = None,
    batch: int = 32,
) -> PictureDecoder:
    """Train the decoder of tokens over the codec in ``folder``, or go on.

    The prompts' hidden states in the LLM and the pictures' tokens are computed once and kept.
    ``folder/decoder.safetensors`` and ``decoder.json`` are the result.
    """
    chosen = [d for d in drawings(most) if not d.held_out]
    names, states_PLD, real_PL = prompt_states(folder / "prompts.pt", llm, chosen)
    codec = PictureCodec.load(folder / "codec")
    tokens_BN = picture_tokens(codec, chosen)
    row = {name: i for i, name in enumerate(names)}
    rows_B = torch.tensor([row[d.prompts[0]] for d in chosen])
    weights_B = torch.tensor([3.0 if d.subject.emoji is None else 1 / d.count for d in chosen])
    torch.manual_seed(0)
    decoder = PictureDecoder.Config(
        features=states_PLD.shape[-1],
        codes=codec.codes,
        tokens=tokens_BN.shape[1],
    ).build()
    decoder.standardise(states_PLD[real_PL])
    run = Run(folder / "decoder.pt", decoder, optimisers(decoder))
    for note in timed(run, minutes, report):
        generator = torch.Generator().manual_seed(run.step)
        picked = torch.multinomial(weights_B, batch, replacement=True, generator=generator)
        words = rows_B[picked]
        # Without words one in ten, for guidance.
        kept = torch.rand(batch, 1, generator=generator) > 0.1
        given = masked(tokens_BN[picked], generator)
        logits = decoder(states_PLD[words], real_PL[words] & kept, given)
        hidden = given < 0
        loss = F.cross_entropy(logits[hidden], tokens_BN[picked][hidden])
        run.backward(loss)
        note(float(loss.detach()))
    decoder.load_state_dict(run.average.weights)
    known = [subject.name for subject in subjects()[:most]]
    decoder.eval().save(folder, llm=llm, known=known)
    return decoder


def optimisers(decoder: PictureDecoder, lr: float = 3e-3) -> list[torch.optim.Optimizer]:
    """Muon for the matrices within the blocks, Adam for all else.

    Source: Jordan et al., Muon (2024); the scale of its steps is that of Liu et al., Muon is
    Scalable for LLM Training (2025).
    """
    matrices = [p for p in decoder.blocks.parameters() if p.ndim == 2]
    inner = {id(p) for p in matrices}
    others = [p for p in decoder.parameters() if id(p) not in inner]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def prompt_states(path: Path, llm: str, chosen: list[Drawing]) -> tuple[list[str], Tensor, Tensor]:
    """The prompts, their hidden states (P, L, D) padded on the left, and what of them counts."""
    wanted = sorted({d.prompts[0] for d in chosen})
    kept = torch.load(path, weights_only=True) if path.exists() else {}
    if missing := [p for p in wanted if p not in kept]:
        reader = PromptReader(load(llm))
        kept |= {p: s.half() for p, s in reader.read_all(missing).items()}
        torch.save(kept, path)
    states_PLD, real_PL = padded([kept[p] for p in wanted])
    return wanted, states_PLD, real_PL


def picture_tokens(codec: PictureCodec, chosen: list[Drawing]) -> Tensor:
    """The tokens (B, N) of all drawings."""
    tokens = [codec.encode(render(chosen[i : i + 64])) for i in range(0, len(chosen), 64)]
    return torch.cat(tokens).flatten(1)
