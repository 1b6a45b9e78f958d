"""Sound into the LLM without a decoder in between: CTC over the LLM's own tokens.

Whisper's encoder gives a state every 20 ms. The adapter says for every 40 ms which token of the LLM
is spoken there, or none (CTC's blank). What the LLM reads is the expected embedding of each stretch
that is not blank: where the adapter is sure, that is the token's own embedding; where it wavers,
a mean of what it may have been, weighted by probability. One pass, nothing autoregressive.

Sources: Graves et al., Connectionist Temporal Classification (ICML 2006); the blocks are those of
Gulati et al., Conformer (2020), without relative positions, since Whisper's states know theirs.

Shape letters: B recordings, T states, S = T / 2 positions, E width of a state, W width of the
adapter, U units with blank, N rows for the LLM, D width of the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        expansion: int = 3
        dropout: float = 0.1

        def build(self) -> AudioAdapter:
            """An adapter with random weights."""
            return AudioAdapter(self)

    def __init__(self, config: AudioAdapter.Config) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.LayerNorm(config.states)
        self.reduce = nn.Conv1d(config.states, config.width, 5, stride=2, padding=2)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.leave = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, len(config.units) + 1)
        self.register_buffer("units", torch.tensor((-1, *config.units)), persistent=False)

    def forward(self, states_BTE: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, S, U) and how many of the S positions count, (B,).

        ``lengths_B`` says how many of the T states count.
        """
        x = self.reduce(self.enter(states_BTE).transpose(1, 2))
        x = F.silu(x).transpose(1, 2)
        counts_B = (lengths_B + 1) // 2
        real_BS = torch.arange(x.shape[1], device=x.device) < counts_B[:, None]
        for block in self.blocks:
            x = block(x, real_BS)
        return F.log_softmax(self.head(self.leave(x)).float(), -1), counts_B

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
