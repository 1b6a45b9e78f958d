"""What the picture decoder reads of a prompt: the shared LLM's final hidden states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from omni.llm.cache import Feed, common_prefix
from omni.llm.model import LanguageModel

_BEFORE = "Draw"
"""Read first and left out: the state of a first token says nothing of it."""


class PromptReader:
    """Prompts -> hidden states; has a small KV cache of the LLM for itself."""

    def __init__(self, llm: LanguageModel, longest: int = 64) -> None:
        self._llm, self._longest = llm, longest
        self._cache = llm.new_cache()

    def read(self, prompt: str) -> Tensor:
        """The states (L, D) of the prompt's tokens, or of its last ones."""
        before = self._llm.tokenizer.encode(_BEFORE)
        own = self._llm.tokenizer.encode(f" {prompt}")[-self._longest :]
        self._cache.crop(0)
        out = self._llm.run([Feed(self._cache, [*before, *own])], all_logits=True, hidden=True)
        assert out.hidden is not None
        return out.hidden[len(before) :]

    def read_all(self, prompts: Iterable[str]) -> dict[str, Tensor]:
        """Of many prompts; what two begin with is read once, so that sorting makes it fast."""
        states: dict[str, Tensor] = {}
        kept = torch.empty(0, self._llm.width)
        before = self._llm.tokenizer.encode(_BEFORE)
        self._cache.crop(0)
        for prompt in sorted(set(prompts)):
            ids = [*before, *self._llm.tokenizer.encode(f" {prompt}")[-self._longest :]]
            same = min(common_prefix(self._cache.tokens, ids), len(ids) - 1, len(kept))
            self._cache.crop(same)
            out = self._llm.run([Feed(self._cache, ids[same:])], all_logits=True, hidden=True)
            assert out.hidden is not None
            kept = torch.cat((kept[:same], out.hidden.float()))
            states[prompt] = kept[len(before) :]
        return states


def padded(states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Several prompts as one (B, L, D), padded on the left, and which rows count (B, L)."""
    longest = max(len(s) for s in states)
    out = torch.zeros(len(states), longest, states[0].shape[1])
    real = torch.zeros(len(states), longest, dtype=torch.bool)
    for i, s in enumerate(states):
        out[i, longest - len(s) :] = s
        real[i, longest - len(s) :] = True
    return out, real
