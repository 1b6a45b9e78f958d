"""The interface of `omni.llm.decoder` over transformers' own modules: every other causal LM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omni.errors import InputError, WeightsError
from omni.llm.cache import Cache, Feed, Ids, Output, check_feed
from omni.sequence import embed


class HFCache(Ids):
    """A transformers ``DynamicCache`` with the ids that are in it."""

    def __init__(self, config: Any) -> None:
        from transformers import DynamicCache

        super().__init__()
        self._config = config
        self.inner = DynamicCache(config=config)

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
            self.forget(0)
            return
        self.inner.crop(length - self.length)  # negative: so many tokens off the end
        self.forget(length)


class HFModel:
    """A causal LM of transformers, one sequence after the other."""

    def __init__(self, model: Any, *, max_context: int) -> None:
        """``model`` is an ``AutoModelForCausalLM`` in eval mode on its device."""
        self._model = model
        self._config = model.config.get_text_config()
        self.max_context = max_context
        self.vocabulary = int(self._config.vocab_size)
        self.width = int(self._config.hidden_size)

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

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> Tensor:
        """Input embeddings of tokens (T, D), in float32."""
        rows: Tensor = self._model.get_input_embeddings()(
            torch.tensor(ids, device=self._model.device)
        )
        return rows.float()

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
            check_feed(feed, cache, self.max_context, self.vocabulary, self.width)
        logits, states = [], []
        for feed, cache in zip(feeds, caches, strict=True):
            keep = len(feed.tokens) if all_logits and feed.logits else 1
            out = self._model(
                **self._inputs(feed, cache),
                past_key_values=cache.inner,
                use_cache=True,
                logits_to_keep=keep,
                output_hidden_states=hidden,
            )
            cache.append(feed)
            if feed.logits:
                logits.append(out.logits[0, -keep:].float())
                if hidden:
                    states.append(out.hidden_states[-1][0, -keep:])
        empty = torch.empty(0, self.vocabulary)
        return Output(torch.cat(logits) if logits else empty, torch.cat(states) if states else None)

    def _inputs(self, feed: Feed, cache: HFCache) -> dict[str, Tensor]:
        device = self._model.device
        ids = torch.tensor(feed.tokens, device=device)
        inputs = {"input_ids": ids[None]}
        if feed.embeds is not None:
            embedding = self._model.get_input_embeddings()
            inputs = {"inputs_embeds": embed(ids, feed.embeds, embedding)[None]}
        if feed.positions is not None or cache.end != cache.length:
            # Only then: models without rotary positions take none.
            inputs["position_ids"] = torch.tensor([list(cache.positions(feed))], device=device)
        return inputs


def _own(cache: Cache) -> HFCache:
    if not isinstance(cache, HFCache):
        raise InputError("the cache is of another model; use new_cache() of this one")
    return cache
