"""The model in training: an LLM of transformers, LoRA or all of it, with bridges before it.

Shape letters: B rows of a batch, T tokens of a row, D width of the LLM, V vocabulary, N rows of
embeddings of a medium.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni.errors import WeightsError
from omni.llm.experts import Routing, losses, set_modalities, upcycle
from omni.llm.model import find
from omni.llm.tokenizer import ChatTokenizer
from omni.sequence import (
    IGNORE,
    MODALITIES,
    PADDING,
    Batch,
    Boundaries,
    Interleaved,
    Piece,
    Text,
    boundary_tokens,
    clip,
    collate,
    inputs,
    interleave,
    modalities,
    pack,
)
from omni.train.bridges import Bridge, BridgeConfig, Term
from omni.train.config import config, positive
from omni.train.contrastive import Contrastive
from omni.train.data import Clip, Example, Media
from omni.train.extra import need
from omni.types import Modality, Span
from omni.weights import DEFAULT_MODEL

T = TypeVar("T")
Part = Literal["bridges", "heads", "llm"]


@config
class LoRA:
    """Low-rank updates of the LLM's matrices (Hu et al., 2021), by `peft`.

    ``layers`` from that index on learn. With ``after`` they act from the first medium of that
    modality on, as in `omni.llm.updates`; before it the LLM is what it was.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    layers: int = 0
    after: Modality | None = None
    targets: tuple[str, ...] = (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    )

    def __post_init__(self) -> None:
        """Raise `InputError` for numbers out of range."""
        positive(self, "rank", "alpha")


@config
class MixtureOfExperts:
    """Feed-forward layers to be upcycled, as `omni.llm.experts.upcycle` takes them.

    ``balance`` and ``z`` are the weights of the router's losses. Experts and routers learn in full
    wherever the LLM learns, also beside LoRA.
    """

    layers: tuple[int, ...]
    experts: int = 4
    top_k: int = 2
    capacity: float | None = None
    routing: Routing = "shared"
    balance: float = 0.01
    z: float = 0.001


class OmniModel(nn.Module):
    """The LLM with its bridges and heads; ``forward`` runs a piece of work on the whole."""

    @config
    class Config:
        """``llm``: a name, directory or hub id. ``lora`` None: all of it learns where a stage says.

        ``bridges`` is by modality. ``checkpointing`` computes activations twice to save memory.
        ``boundaries`` puts the LLM's boundary tokens around media, ``rate`` gives media positions
        by their times (see `omni.sequence`).
        """

        llm: str = DEFAULT_MODEL
        bridges: Mapping[str, BridgeConfig]
        lora: LoRA | None = LoRA()
        contrastive: Contrastive.Config | None = None
        experts: MixtureOfExperts | None = None
        checkpointing: bool = False
        boundaries: bool = True
        rate: float | None = None

        def build(self, seed: int) -> OmniModel:
            """With the LLM's weights and random bridges. Raises `WeightsError`, `InputError`."""
            directory = find(self.llm)
            llm = load_llm(directory)
            rows = llm.get_input_embeddings().num_embeddings
            tokens = boundary_tokens(ChatTokenizer(directory), rows) if self.boundaries else {}
            return OmniModel(self, llm, seed, tokens)

    def __init__(
        self, config: Config, llm: Any, seed: int, boundaries: Boundaries | None = None
    ) -> None:
        """``llm`` is a causal language model of transformers, ``seed`` of the bridges' weights."""
        super().__init__()
        self.anchored = False
        """Whether every backward pass reaches every bridge, as sharded processes must do alike."""
        self.config, self.boundaries = config, boundaries or {}
        width = llm.config.hidden_size
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            if config.experts is not None:
                upcycle(
                    llm,
                    layers=config.experts.layers,
                    experts=config.experts.experts,
                    top_k=config.experts.top_k,
                    capacity=config.experts.capacity,
                    routing=config.experts.routing,
                    seed=seed,
                )
            if config.lora is not None:
                llm = _with_lora(llm, config.lora, config.experts is not None)
            self.llm = llm
            self.bridges = nn.ModuleDict(
                {name: config.bridges[name].build(width) for name in sorted(config.bridges)}
            )
            self.heads = nn.ModuleDict()
            if config.contrastive is not None:
                self.heads["contrastive"] = config.contrastive.build(width)
        self.lora = config.lora is not None
        self._acting_BT1: Tensor | None = None
        if config.lora is not None and config.lora.after is not None:
            for name, module in self.llm.named_modules():
                if name.endswith("lora_A.default"):
                    module.register_forward_hook(lambda m, x, y: y * self._acting_BT1)
        if config.checkpointing:
            with warnings.catch_warnings():
                # Newer versions of transformers have another name for it.
                warnings.simplefilter("ignore", FutureWarning)
                self.causal.gradient_checkpointing_enable({"use_reentrant": False})
        self.freeze(())

    @property
    def causal(self) -> Any:
        """The causal language model itself, without what LoRA wraps around it."""
        return self.llm.get_base_model() if self.lora else self.llm

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def freeze(self, but: Sequence[Part]) -> None:
        """Let only these parts learn; of an LLM with LoRA, the LoRA and its experts."""
        learned = self.learned()
        for name, p in self.named_parameters():
            p.requires_grad_(name.partition(".")[0] in but and name in learned)

    def learned(self) -> dict[str, nn.Parameter]:
        """Every parameter that some stage may train, by name: all but an LLM below LoRA."""
        small = ("lora_", ".mlp.router.", ".mlp.experts.")
        return {
            name: p
            for name, p in self.named_parameters()
            if not (self.lora and name.startswith("llm.") and not any(s in name for s in small))
        }

    def forward(self, work: Callable[[OmniModel], T]) -> T:
        """Run ``work`` here, so that sharded parameters are whole while it runs."""
        return work(self)

    def bridge(self, media: Sequence[Media]) -> tuple[list[Tensor], dict[str, Term]]:
        """Rows (N, D) of each medium in the order given, and the bridges' own losses."""
        embedding_VD = self.causal.get_input_embeddings().weight
        rows: dict[int, Tensor] = {}
        terms: dict[str, Term] = {}
        for name, bridge in self.bridges.items():
            assert isinstance(bridge, Bridge)
            own = [i for i, m in enumerate(media) if m.modality == name]
            if own:
                found, losses = bridge([media[i] for i in own], embedding_VD)
                rows |= dict(zip(own, found, strict=True))
                terms |= losses
        missing = {m.modality for i, m in enumerate(media) if i not in rows}
        if missing:
            raise WeightsError(
                f"the model has no bridge for {', '.join(sorted(missing))}; name one in "
                "model.bridges"
            )
        return [rows[i] for i in range(len(media))], terms

    def bridge_losses(self, media: Sequence[Media]) -> dict[str, Term]:
        """The bridges' own losses, without rows for the LLM."""
        terms: dict[str, Term] = {}
        for name, bridge in self.bridges.items():
            own = [m for m in media if m.modality == name]
            if own:
                terms |= bridge(own, None)[1]
        return terms

    def lay_out(self, examples: Sequence[Example], rows: Sequence[Tensor]) -> list[Interleaved]:
        """Each example as one sequence; ``rows`` are those of all their media, in order."""
        supply = iter(rows)

        def span(media: Media) -> Span:
            return Span(media.modality, embeds=next(supply), times=media.times)

        def piece(part: Text | Media | Clip) -> Piece:
            if isinstance(part, Text):
                return part
            if isinstance(part, Media):
                return span(part)
            return clip([span(m) for m in part.frames], [span(m) for m in part.sound])

        return [
            interleave(
                [piece(p) for p in example.pieces],
                self.boundaries,
                rate=self.config.rate,
                hashed=False,
            )
            for example in examples
        ]

    def batch(self, sequences: Sequence[Interleaved], *, packed: bool) -> Batch:
        """All in one row, or (not ``packed``) each in its own, in order."""
        groups = [sequences] if packed else [[s] for s in sequences]
        batch = collate([r for g in groups for r in pack(g, sum(map(len, g)))])
        return replace(
            batch,
            ids_BT=batch.ids_BT.to(self.device),
            positions_BT=batch.positions_BT.to(self.device),
            segment_BT=batch.segment_BT.to(self.device),
            labels_BT=batch.labels_BT.to(self.device),
        )

    def hidden(self, batch: Batch) -> Tensor:
        """The LLM's last states (B, T, D); every sequence reads only its own past."""
        given = inputs(batch, self.causal.get_input_embeddings())
        del given["labels"]
        if self.anchored:
            own = [
                p.sum() for n, p in self.named_parameters() if n[:4] != "llm." and p.requires_grad
            ]
            given["inputs_embeds"] = given["inputs_embeds"] + 0.0 * sum(own)
        if self.config.experts is not None:
            kinds_BT = modalities(batch.ids_BT)
            set_modalities(self.llm, kinds_BT.masked_fill(batch.segment_BT == PADDING, -1))
        if self.config.lora is not None and self.config.lora.after is not None:
            self._acting_BT1 = after(batch, self.config.lora.after)[..., None].float()
        states: Tensor = self.causal.model(**given, use_cache=False).last_hidden_state
        return states

    def router_terms(self) -> dict[str, Term]:
        """The losses of the routers in the last pass, when there are experts and they learn."""
        options = self.config.experts
        if options is None or not self.training:
            return {}
        weights = {"balance": options.balance, "z": options.z}
        return {f"router_{n}": Term(mean, weights[n]) for n, mean in losses(self.llm).items()}

    def nll(self, batch: Batch, hidden_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of each label in float32, and the rows that they are in."""
        labels_BT = batch.labels_BT[:, 1:]
        same_BT = batch.segment_BT[:, 1:] == batch.segment_BT[:, :-1]
        rows, at = ((labels_BT != IGNORE) & same_BT).nonzero(as_tuple=True)
        logits = self.causal.lm_head(hidden_BTD[rows, at]).float()
        return F.cross_entropy(logits, labels_BT[rows, at], reduction="none"), rows

    @contextmanager
    def with_values(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Compute with other values of `learned` parameters, without gradients or dropout."""
        own = {name: p.detach().clone() for name, p in self.learned().items() if name in values}
        training = self.training
        self.eval()
        try:
            self.put(values)
            with torch.no_grad():
                yield
        finally:
            self.put(own)
            self.train(training)

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Write these values into the `learned` parameters."""
        for name, p in self.learned().items():
            if name in values:
                p.copy_(values[name])


def after(batch: Batch, modality: Modality) -> Tensor:
    """Where in each sequence of a batch a medium of this modality has begun, (B, T) bool."""
    began_BT = torch.zeros_like(batch.ids_BT, dtype=torch.bool)
    is_BT = modalities(batch.ids_BT) == MODALITIES.index(modality)
    for row, (is_T, segment_T) in enumerate(zip(is_BT, batch.segment_BT, strict=True)):
        for number in segment_T.unique():
            own = segment_T == number
            began_BT[row, own] = is_T[own].cumsum(0) > 0
    return began_BT


def load_llm(directory: Path) -> Any:
    """A causal language model of transformers in float32. Raises `WeightsError`."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    except Exception as error:
        raise WeightsError(
            f"transformers cannot load {directory} as a causal language model: {error}"
        ) from error


def _with_lora(llm: Any, lora: LoRA, experts: bool) -> Any:
    peft = need("peft")
    options = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        layers_to_transform=list(range(lora.layers, llm.config.num_hidden_layers)),
        exclude_modules=r".*\.mlp\.experts\..*" if experts else None,
    )
    with warnings.catch_warnings():
        # peft asks transformers for a property by its old name.
        warnings.simplefilter("ignore", FutureWarning)
        return peft.get_peft_model(llm, options)
