"""From features of frozen encoders to rows of the LLM's input, with each bridge's own loss.

Shape letters: B media, T feature positions, E width of the encoder, S positions of the adapter,
U units, N rows for the LLM, D width of the LLM.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from omni.adapters.audio import AudioAdapter
from omni.errors import WeightsError
from omni.train.config import config
from omni.train.data import Media


class Term(NamedTuple):
    """A loss beside the main one: a mean that counts ``weight``."""

    mean: Tensor
    weight: float


class Bridge(nn.Module, ABC):
    """Media of one modality -> rows of the LLM's input."""

    @abstractmethod
    def forward(
        self, media: Sequence[Media], embedding_VD: Tensor | None
    ) -> tuple[list[Tensor], dict[str, Term]]:
        """Rows (N, D) for each medium, and the bridge's own losses by name.

        ``embedding_VD`` is the LLM's; without it only the losses are made.
        """


class BridgeConfig(Protocol):
    """What a recipe names: the options of a bridge."""

    def build(self, width: int) -> Bridge:
        """A bridge with random weights into an LLM of this width."""
        ...


class Projector(Bridge):
    """Every ``stride`` feature positions become one row by a two-layer perceptron, as in LLaVA."""

    @config
    class Config:
        """``features`` is the width of the encoder."""

        features: int
        stride: int = 1

        def build(self, width: int) -> Projector:
            """With random weights."""
            return Projector(self, width)

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.stride = config.stride
        self.norm = nn.LayerNorm(config.features * config.stride)
        self.up = nn.Linear(config.features * config.stride, width)
        self.down = nn.Linear(width, width)

    def forward(
        self, media: Sequence[Media], embedding_VD: Tensor | None
    ) -> tuple[list[Tensor], dict[str, Term]]:
        """Rows (N, D) with N = T / stride rounded up; no losses."""
        rows = []
        for medium in media:
            x_TE = medium.features.to(self.up.weight.device, self.up.weight.dtype)
            x_TE = F.pad(x_TE, (0, 0, 0, -len(x_TE) % self.stride))
            x = self.norm(x_TE.reshape(-1, self.stride * x_TE.shape[1]))
            rows.append(self.down(F.gelu(self.up(x))))
        return rows, {}


class CTC(Bridge):
    """An `AudioAdapter` with its CTC loss over the transcript's tokens.

    A token that is no unit of the adapter is left out of the target. While it learns, stretches of
    time and whole features are hidden (Park et al., SpecAugment, 2019).
    """

    @config
    class Config:
        """``weight`` of the CTC loss beside the language loss.

        ``middle`` of it is the loss after half of the adapter's blocks. In each ``stretch`` states
        up to ``hide`` in a row are hidden, and each feature of a recording with the probability
        ``blind``.
        """

        adapter: AudioAdapter.Config
        weight: float = 1.0
        middle: float = 0.3
        stretch: int = 100
        hide: int = 16
        blind: float = 0.05

        def build(self, width: int) -> CTC:
            """With random weights; the rows are mixtures of the LLM's own embeddings."""
            return CTC(self)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.adapter = config.adapter.build()
        self.config = config
        self.unit_of = {token: i + 1 for i, token in enumerate(config.adapter.units)}

    def forward(
        self, media: Sequence[Media], embedding_VD: Tensor | None
    ) -> tuple[list[Tensor], dict[str, Term]]:
        """Expected embeddings of what is heard, and the loss ``ctc`` in nats per target token."""
        device = self.adapter.head.weight.device
        states_BTE = pad_sequence([m.features.float() for m in media], batch_first=True).to(device)
        lengths_B = torch.tensor([len(m.features) for m in media], device=device)
        if self.training:
            states_BTE = self._hidden(states_BTE, lengths_B)
        (middle_BSU, log_BSU), counts_B = self.adapter.levels(states_BTE, lengths_B)
        rows = []
        if embedding_VD is not None:
            rows = [
                self.adapter.rows(log_SU[:n], embedding_VD)
                for log_SU, n in zip(log_BSU, counts_B.tolist(), strict=True)
            ]
        targets = [[self.unit_of[t] for t in m.words if t in self.unit_of] for m in media]
        units = torch.tensor([u for target in targets for u in target], device=device)
        sizes_B = torch.tensor([len(target) for target in targets], device=device)

        def ctc(log_BSU: Tensor) -> Tensor:
            return F.ctc_loss(
                log_BSU.transpose(0, 1),
                units,
                counts_B,
                sizes_B,
                reduction="sum",
                zero_infinity=True,
            ) / max(len(units), 1)

        losses = {"ctc": Term(ctc(log_BSU), self.config.weight)}
        if self.config.middle:
            losses["middle"] = Term(ctc(middle_BSU), self.config.weight * self.config.middle)
        return rows, losses

    def _hidden(self, states_BTE: Tensor, lengths_B: Tensor) -> Tensor:
        keep_BE = torch.rand(len(states_BTE), states_BTE.shape[2]) >= self.config.blind
        states_BTE = states_BTE * keep_BE[:, None].to(states_BTE.device)
        for states_TE, length in zip(states_BTE, lengths_B.tolist(), strict=True):
            for _ in range(length // self.config.stretch):
                begin = int(torch.randint(length, ()))
                states_TE[begin : begin + int(torch.randint(self.config.hide + 1, ()))] = 0
        return states_BTE


M = TypeVar("M", bound=nn.Module)


def trained(weights: Path, modality: str, adapter: M) -> M:
    """The ``adapter`` with what a stage left in its bridge. Raises `WeightsError`."""
    prefix = f"bridges.{modality}.adapter."
    try:
        with safe_open(weights, "pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            adapter.load_state_dict({n.removeprefix(prefix): file.get_tensor(n) for n in names})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{weights} holds no such {modality} adapter: {error}") from error
    return adapter
