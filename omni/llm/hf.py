"""The interface of `omni.llm.decoder` over transformers' own modules: every other causal LM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omni.errors import InputError, WeightsError
from omni.llm.cache import Cache, Feed, Output
from omni.llm.decoder import check_tokens


class HFCache:
    """A transformers ``DynamicCache`` with the ids that are in it."""

    def __init__(self, config: Any) -> None:
        from transformers import DynamicCache

        self._config = config
        self.inner = DynamicCache(config=config)
        self.tokens: list[int] = []
        self.ahead: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of tokens in the cache."""
        return len(self.tokens)

    @property
    def bytes(self) -> int:
        """Memory that the cache takes."""
        tensors = [
            t
            for layer in self.inner.layers
            for t in (getattr(layer, "keys", None), getattr(layer, "values", None))
        ]
        return sum(t.nbytes for t in tensors if isinstance(t, Tensor))

    def crop(self, length: int) -> None:
        """Forget everything from position ``length`` on; longer than the cache is no change.

        A sliding-window or recurrent cache has already let go of its past: it is emptied, and the
        prompt is read again from its beginning.
        """
        if length < 0:
            raise ValueError(f"length is {length}; expected 0 or more")
        if length >= self.length:
            return
        plain = all(type(layer).__name__ == "DynamicLayer" for layer in self.inner.layers)
        if length == 0 or not plain:
            from transformers import DynamicCache

            self.inner = DynamicCache(config=self._config)
            self.tokens.clear()
            return
        self.inner.crop(length - self.length)  # negative: so many tokens off the end
        del self.tokens[length:]


class HFModel:
    """A causal LM of transformers, one sequence after the other."""

    def __init__(self, model: Any, *, max_context: int) -> None:
        """``model`` is an ``AutoModelForCausalLM`` in eval mode on its device."""
        self._model = model
        self._config = model.config.get_text_config()
        self.max_context = max_context
        self.vocabulary = int(self._config.vocab_size)

    @classmethod
    def load(
        cls, directory: Path, *, device: torch.device, dtype: torch.dtype, max_context: int
    ) -> HFModel:
        """Load from a directory. Raises `WeightsError` when transformers cannot."""
        from transformers import AutoModelForCausalLM

        try:
            model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
        except Exception as error:
            raise WeightsError(
                f"transformers cannot load {directory} as a causal language model: {error}"
            ) from error
        model.to(device).eval()
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", max_context)
        return cls(model, max_context=min(max_context, limit))

    @property
    def bytes(self) -> int:
        """Memory of the weights."""
        return sum(int(p.nbytes) for p in self._model.parameters())

    def new_cache(self) -> HFCache:
        """An empty cache for one sequence."""
        return HFCache(self._config)

    @torch.inference_mode()
    def run(
        self, feeds: Sequence[Feed], *, all_logits: bool = False, hidden: bool = False
    ) -> Output:
        """As `omni.llm.decoder.Decoder.run`, one feed after the other."""
        caches = [_own(feed.cache) for feed in feeds]
        for feed, cache in zip(feeds, caches, strict=True):
            if not feed.tokens:
                raise InputError("a feed has no tokens; expected at least one", param="tokens")
            if cache.length + len(feed.tokens) > self.max_context:
                raise InputError(
                    f"{cache.length + len(feed.tokens)} tokens do not fit into the context of "
                    f"{self.max_context}; shorten the prompt",
                    param="tokens",
                    code="context_length_exceeded",
                )
            check_tokens(feed, self.vocabulary, self._config.hidden_size)
        logits, states = [], []
        for feed, cache in zip(feeds, caches, strict=True):
            keep = len(feed.tokens) if all_logits and feed.logits else 1
            out = self._model(
                **self._inputs(feed),
                past_key_values=cache.inner,
                use_cache=True,
                logits_to_keep=keep,
                output_hidden_states=hidden,
            )
            cache.tokens.extend(feed.tokens)
            if feed.logits:
                logits.append(out.logits[0, -keep:].float())
                if hidden:
                    states.append(out.hidden_states[-1][0, -keep:])
        empty = torch.empty(0, self.vocabulary)
        return Output(torch.cat(logits) if logits else empty, torch.cat(states) if states else None)

    def _inputs(self, feed: Feed) -> dict[str, Tensor]:
        device = self._model.device
        ids = torch.tensor(feed.tokens, device=device)
        if feed.embeds is None:
            return {"input_ids": ids[None]}
        rows = self._model.get_input_embeddings()(ids.clamp(min=0)).clone()
        rows[ids < 0] = feed.embeds.to(device, rows.dtype)
        return {"inputs_embeds": rows[None]}


def _own(cache: Cache) -> HFCache:
    if not isinstance(cache, HFCache):
        raise InputError("the cache is of another model; use new_cache() of this one")
    return cache
