"""Sound into the LLM without a decoder in between: CTC over the LLM's own tokens.

Whisper's encoder gives a state every 20 ms. The adapter says for every 80 ms which token of the LLM
is spoken there, or none (CTC's blank). What the LLM reads is the expected embedding of each stretch
that is not blank: where the adapter is sure, that is the token's own embedding; where it wavers,
a mean of what it may have been, weighted by probability. One pass, nothing autoregressive.

Sources: Graves et al., Connectionist Temporal Classification (ICML 2006); the blocks are those of
Gulati et al., Conformer (2020), without relative positions, since Whisper's states know theirs; the
loss in the middle is that of Lee and Watanabe, Intermediate Loss Regularization (ICASSP 2021).

Shape letters: B recordings, T states, S = T / ``stride`` positions, E width of a state, W width of
the adapter, U units with blank, N rows for the LLM, D width of the LLM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni.adapters.files import not_an_adapter, read_adapter, write_adapter

BLANK = 0


class AudioAdapter(nn.Module):
    """Encoder states (B, T, E) -> log-probabilities (B, S, U) of units, each a token of the LLM."""

    units: Tensor

    @dataclass(frozen=True, slots=True)
    class Config:
        """Sizes; ``units`` are token ids of the LLM, in the order of the outputs from 1 on."""

        units: tuple[int, ...]
        states: int = 512
        width: int = 384
        layers: int = 4
        heads: int = 6
        kernel: int = 15
        stride: int = 4
        expansion: int = 3
        dropout: float = 0.1

        def build(self) -> AudioAdapter:
            """An adapter with random weights."""
            return AudioAdapter(self)

    def __init__(self, config: AudioAdapter.Config) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.LayerNorm(config.states)
        reach = 2 * (config.stride // 2 + 1) + 1
        self.reduce = nn.Conv1d(
            config.states, config.width, reach, stride=config.stride, padding=reach // 2
        )
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.leave = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, len(config.units) + 1)
        self.register_buffer("units", torch.tensor((-1, *config.units)), persistent=False)

    def forward(self, states_BTE: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, S, U) and how many of the S positions count, (B,).

        ``lengths_B`` says how many of the T states count.
        """
        (_, last), counts_B = self.levels(states_BTE, lengths_B)
        return last, counts_B

    def levels(self, states_BTE: Tensor, lengths_B: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """As `forward`, but the log-probabilities after half of the blocks come too, first."""
        real_BT = torch.arange(states_BTE.shape[1], device=states_BTE.device) < lengths_B[:, None]
        x = self.enter(states_BTE) * real_BT[..., None]
        x = F.silu(self.reduce(x.transpose(1, 2))).transpose(1, 2)
        counts_B = (lengths_B + self.config.stride - 1) // self.config.stride
        real_BS = torch.arange(x.shape[1], device=x.device) < counts_B[:, None]
        half = len(self.blocks) // 2
        for block in self.blocks[:half]:
            x = block(x, real_BS)
        middle = x
        for block in self.blocks[half:]:
            x = block(x, real_BS)
        return (self._read(middle), self._read(x)), counts_B

    def _read(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.head(self.leave(x)).float(), -1)

    def tokens(self, log_probs_SU: Tensor) -> list[int]:
        """The likeliest tokens of the LLM, by greedy CTC."""
        return [int(self.units[unit]) for unit, _, _ in stretches(log_probs_SU)]

    def rows(self, log_probs_SU: Tensor, embedding_VD: Tensor) -> Tensor:
        """What the LLM reads: an expected embedding (N, D) for each stretch that is no blank."""
        table_UD = embedding_VD[self.units[1:]]
        rows = []
        for _, begin, end in stretches(log_probs_SU):
            mean_U = log_probs_SU[begin:end, 1:].exp().sum(0)
            rows.append((mean_U / mean_U.sum()).to(table_UD.dtype) @ table_UD)
        return torch.stack(rows) if rows else table_UD.new_empty(0, table_UD.shape[1])


class _Block(nn.Module):
    """Attention, convolution and MLP, each normalised first and added."""

    def __init__(self, config: AudioAdapter.Config) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.spread = nn.Linear(width, 2 * width)
        self.near = nn.Conv1d(width, width, config.kernel, padding=config.kernel // 2, groups=width)
        self.join = nn.Linear(width, width)
        self.up = nn.Linear(width, config.expansion * width)
        self.down = nn.Linear(config.expansion * width, width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, real_BS: Tensor) -> Tensor:
        b, s, w = x.shape
        qkv = self.qkv(self.norms[0](x)).view(b, s, 3, self.heads, w // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=real_BS[:, None, None])
        x = x + self.drop(self.out(a.transpose(1, 2).reshape(b, s, w)))
        h = F.glu(self.spread(self.norms[1](x)), -1) * real_BS[..., None]
        h = self.near(h.transpose(1, 2)).transpose(1, 2)
        x = x + self.drop(self.join(F.silu(h)))
        out: Tensor = x + self.drop(self.down(F.silu(self.up(self.norms[2](x)))))
        return out


def stretches(log_probs_SU: Tensor) -> list[tuple[int, int, int]]:
    """Greedy CTC: (unit, begin, end) of each run of one unit that is no blank."""
    best: Sequence[int] = log_probs_SU.argmax(-1).tolist()
    found = []
    begin = 0
    for i in range(1, len(best) + 1):
        if i == len(best) or best[i] != best[begin]:
            if best[begin] != BLANK:
                found.append((best[begin], begin, i))
            begin = i
    return found


def save_adapter(
    path: Path, adapter: AudioAdapter, texts: Sequence[bytes], card: Mapping[str, str]
) -> None:
    """Write weights with their units.

    ``texts`` are the UTF-8 bytes of each unit; ``card`` says at least the ``languages``.
    """
    config = {**asdict(adapter.config), "texts": [text.hex() for text in texts]}
    write_adapter(path, adapter.state_dict(), config, card)


def load_adapter(path: Path) -> tuple[AudioAdapter, tuple[bytes, ...], dict[str, str]]:
    """What `save_adapter` wrote: the adapter in float32, ready to hear; texts; card.

    Raises `WeightsError` for any other file.
    """
    config, tensors, card = read_adapter(path)
    try:
        texts = tuple(bytes.fromhex(text) for text in config.pop("texts"))
        adapter = AudioAdapter.Config(**{**config, "units": tuple(config["units"])}).build()
        adapter.load_state_dict(tensors)
        if "languages" not in card:
            raise KeyError("languages")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise not_an_adapter(path, error) from error
    return adapter.eval(), texts, card
