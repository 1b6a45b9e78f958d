"""A lean forward pass for the Qwen2 and Llama families.

All sequences' new tokens, prompts and single tokens mixed, go through the matrices as one (N, D)
block; attention runs per sequence against its own KV cache. Shape letters: N new tokens of all
sequences, M new tokens of one, T tokens in its cache with them, D width of the model, H query
heads, J heads of keys and values, E width of a head, I width of the MLP, V vocabulary, R rows
of logits.

A sequence's result does not depend on what else is in the batch, up to float rounding: the kernel
for one row and the one for many may add in a different order (see `linear`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.errors import InputError, WeightsError
from omni.llm.cache import Cache, Feed, KVCache, Output, check_feed
from omni.llm.experts import ExpertsConfig
from omni.llm.linear import Linear
from omni.llm.updates import Acting, UpdatedLinear, Updates, acting_rows
from omni.sequence import modalities


class Mlp(Protocol):
    """A feed-forward layer: dense, or of experts."""

    def __call__(self, x_ND: Tensor, modality_N: Tensor) -> Tensor:
        """Apply it to every row; ``modality_N`` are indices of `omni.sequence.MODALITIES`."""
        ...


@dataclass(frozen=True, slots=True)
class SwiGLU:
    """The dense layer of these families; gate and up are fused. Source: Shazeer (2020)."""

    gate_up: Linear
    down: Linear

    def __call__(self, x_ND: Tensor, modality_N: Tensor | None = None) -> Tensor:
        """See `Mlp`; the modality does not matter."""
        gate, up = self.gate_up(x_ND).chunk(2, -1)
        return self.down(F.silu(gate).mul_(up))


@dataclass(slots=True)
class Layer:
    """The weights of one layer; q, k and v are fused."""

    norm1: Tensor
    qkv: Linear
    out: Linear
    norm2: Tensor
    mlp: Mlp


class Decoder:
    """Layers, embeddings and head as one callable; build it with `omni.llm.loading`."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """Sizes of the model, from the ``config.json`` of a checkpoint."""

        hidden: int
        layers: int
        heads: int
        kv_heads: int
        head_width: int
        vocabulary: int
        max_positions: int
        norm_eps: float
        rope_theta: float
        rope_scaling: tuple[tuple[str, Any], ...] = ()
        experts: ExpertsConfig | None = None

        @classmethod
        def of(cls, config: dict[str, Any]) -> Decoder.Config | None:
            """Read a ``config.json``; None when it asks for something this pass does not do."""
            rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
            kind = rope.get("rope_type") or rope.get("type") or "default"
            supported = (
                config.get("model_type") in ("qwen2", "llama")
                and config.get("hidden_act", "silu") == "silu"
                and kind in ("default", "linear", "llama3")
                and not config.get("use_sliding_window")
                and not config.get("quantization_config")
                and rope.get("partial_rotary_factor", 1.0) == 1.0
            )
            if not supported:
                return None
            heads = config["num_attention_heads"]
            return cls(
                hidden=config["hidden_size"],
                layers=config["num_hidden_layers"],
                heads=heads,
                kv_heads=config.get("num_key_value_heads") or heads,
                head_width=config.get("head_dim") or config["hidden_size"] // heads,
                vocabulary=config["vocab_size"],
                max_positions=config.get("max_position_embeddings", 2048),
                norm_eps=config.get("rms_norm_eps", 1e-6),
                rope_theta=rope.get("rope_theta") or config.get("rope_theta", 10000.0),
                rope_scaling=tuple(sorted(rope.items())) if kind != "default" else (),
                experts=ExpertsConfig.of(config),
            )

    def __init__(
        self,
        config: Decoder.Config,
        embedding_VD: Tensor,
        layers: list[Layer],
        norm_D: Tensor,
        head: Linear,
        *,
        max_context: int,
    ) -> None:
        """``embedding_VD`` may be memory-mapped; norms are in the dtype of the activations."""
        self.config = config
        self.vocabulary, self.width = config.vocabulary, config.hidden
        self._embedding = embedding_VD
        self._layers = layers
        self._norm = norm_D
        self._head = head
        self._dtype, self._device = norm_D.dtype, norm_D.device
        cos, sin = rope_tables(config, max_context)
        self._cos = cos.to(self._device, self._dtype)
        self._sin = sin.to(self._device, self._dtype)
        self.max_context = max_context
        self._acting: Acting | None = None

    def adapt(self, updates: Updates) -> int:
        """From now on, let ``updates`` act from the first picture of every sequence on.

        Gives the bytes that they take. Raises `WeightsError` where they do not fit.
        """
        acting, size = Acting(), 0
        try:
            for i, own in updates.layers.items():
                layer = self._layers[i]
                if not isinstance(layer.mlp, SwiGLU):
                    raise ValueError(f"layer {i} has experts")
                matrices = {
                    "qkv": layer.qkv,
                    "out": layer.out,
                    "gate_up": layer.mlp.gate_up,
                    "down": layer.mlp.down,
                }
                for name, (down, up) in own.items():
                    pair = down.to(self._device, self._dtype), up.to(self._device, self._dtype)
                    matrices[name] = UpdatedLinear(matrices[name], pair, acting)
                    size += pair[0].nbytes + pair[1].nbytes
                layer.qkv, layer.out = matrices["qkv"], matrices["out"]
                layer.mlp = SwiGLU(matrices["gate_up"], matrices["down"])
        except (IndexError, ValueError) as error:
            raise WeightsError(
                f"the updates are those of {updates.llm}; they do not fit this model ({error})"
            ) from error
        self._acting = acting
        return size

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Input embeddings of tokens (T, D), in float32."""
        return self._embedding[torch.tensor(ids, device=self._embedding.device)].float()

    def new_cache(self) -> KVCache:
        """An empty cache for one sequence."""
        c = self.config
        return KVCache(c.layers, c.kv_heads, c.head_width, self._dtype, self._device)

    @torch.inference_mode()
    def run(
        self, feeds: Sequence[Feed], *, all_logits: bool = False, hidden: bool = False
    ) -> Output:
        """Append each feed to its cache. See `Output` for what comes back.

        Raises `InputError` for a feed that is empty or too long for its cache; no cache has changed
        then.
        """
        spans = self._check(feeds)
        if self._acting is not None:
            pictures = [
                (begin, end, cache.pictures_from(feed))
                for feed, (begin, end, cache) in zip(feeds, spans, strict=True)
            ]
            self._acting.rows = acting_rows(pictures, self._device)
        c = self.config
        ids_N = torch.tensor([t for feed in feeds for t in feed.tokens])
        x_ND = self._embed(ids_N, feeds)
        modality_N = modalities(ids_N).to(self._device)
        positions = torch.tensor(
            [p for f, (_, _, cache) in zip(feeds, spans, strict=True) for p in cache.positions(f)]
        )
        cos = self._cos[positions].unsqueeze(1)
        sin = self._sin[positions].unsqueeze(1)
        for _, end, cache in spans:
            cache.reserve(end)
        masks = [self._mask(begin, end) for begin, end, _ in spans]
        for i, layer in enumerate(self._layers):
            h_ND = F.rms_norm(x_ND, (c.hidden,), layer.norm1, c.norm_eps)
            qkv = layer.qkv(h_ND).view(len(x_ND), -1, c.head_width)
            a_ND = self._attend(i, qkv, cos, sin, spans, masks)
            x_ND = x_ND + layer.out(a_ND)
            h_ND = F.rms_norm(x_ND, (c.hidden,), layer.norm2, c.norm_eps)
            x_ND = x_ND + layer.mlp(h_ND, modality_N)
        for (_, _, cache), feed in zip(spans, feeds, strict=True):
            cache.append(feed)
        x_RD = x_ND[self._wanted(feeds, all_logits)]
        x_RD = F.rms_norm(x_RD, (c.hidden,), self._norm, c.norm_eps)
        if len(x_RD):
            logits = self._head(x_RD).float()
        else:
            logits = x_RD.new_empty(0, c.vocabulary, dtype=torch.float32)
        return Output(logits, x_RD if hidden else None)

    def _attend(
        self,
        index: int,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        spans: list[tuple[int, int, KVCache]],
        masks: list[Tensor | None],
    ) -> Tensor:
        c = self.config
        qk = qkv[:, : c.heads + c.kv_heads]
        first, second = qk.chunk(2, -1)
        # Rotation; sin carries the sign, so that the halves only swap places.
        qk = torch.cat((second, first), -1).mul_(sin).addcmul_(qk, cos)
        q = qk[:, : c.heads]
        kv = torch.stack((qk[:, c.heads :], qkv[:, c.heads + c.kv_heads :])).transpose(1, 2)
        outs = []
        row = 0
        for (begin, end, cache), mask in zip(spans, masks, strict=True):
            stored = cache.layers[index]
            stop = row + end - begin
            stored[:, :, begin:end] = kv[:, :, row:stop]
            k, v = stored[:, None, :, :end]
            o = F.scaled_dot_product_attention(
                q[None, row:stop].transpose(1, 2), k, v, attn_mask=mask, enable_gqa=True
            )
            outs.append(o[0].transpose(0, 1).reshape(end - begin, -1))
            row = stop
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def _mask(self, begin: int, end: int) -> Tensor | None:
        """True where a new token may look: nothing to hide from a single one."""
        if end - begin == 1:
            return None
        ones = torch.ones(end - begin, end, dtype=torch.bool, device=self._device)
        return ones.tril_(begin)

    def _embed(self, ids_N: Tensor, feeds: Sequence[Feed]) -> Tensor:
        rows = F.embedding(ids_N.clamp(min=0).to(self._embedding.device), self._embedding)
        x_ND = rows.to(self._device, self._dtype)
        given = [feed.embeds for feed in feeds if feed.embeds is not None]
        if given:
            x_ND[(ids_N < 0).to(self._device)] = torch.cat(
                [e.to(self._device, self._dtype) for e in given]
            )
        return x_ND

    def _wanted(self, feeds: Sequence[Feed], all_logits: bool) -> Tensor:
        wanted: list[int] = []
        row = 0
        for feed in feeds:
            stop = row + len(feed.tokens)
            if feed.logits:
                wanted.extend(range(row if all_logits else stop - 1, stop))
            row = stop
        return torch.tensor(wanted, dtype=torch.long, device=self._device)

    def _check(self, feeds: Sequence[Feed]) -> list[tuple[int, int, KVCache]]:
        spans: list[tuple[int, int, KVCache]] = []
        for feed in feeds:
            cache = own(feed.cache)
            check_feed(feed, cache, self.max_context, self.vocabulary, self.width)
            spans.append((cache.length, cache.length + len(feed.tokens), cache))
        if len({id(cache) for _, _, cache in spans}) != len(spans):
            raise InputError("two feeds share one cache; give each sequence its own")
        return spans


def own(cache: Cache) -> KVCache:
    """The cache, known to be one of `Decoder.new_cache`."""
    if not isinstance(cache, KVCache):
        raise InputError("the cache is of another model; use new_cache() of this one")
    return cache


def rope_tables(config: Decoder.Config, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines (length, E) of the rotary positions 0 .. ``length`` - 1.

    Source: Su et al., RoFormer (2021), in the half-split layout of transformers; "llama3" scaling
    as in Meta's Llama 3.1 reference code: long wavelengths are stretched by ``factor``, short ones
    kept.
    """
    half = torch.arange(0, config.head_width, 2, dtype=torch.float32) / config.head_width
    frequency = 1.0 / config.rope_theta**half
    scaling = dict(config.rope_scaling)
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind == "linear":
        frequency = frequency / scaling["factor"]
    elif kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_max_position_embeddings"] * frequency / (2 * math.pi)
        smooth = ((turns - low) / (high - low)).clamp(0, 1)
        frequency = frequency * (smooth + (1 - smooth) / scaling["factor"])
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequency)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
