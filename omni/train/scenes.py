"""Pictures of known things: what the image adapter learns before any LLM reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.adapters.image import (
    AFTER,
    BEFORE,
    FIELDS,
    ImageAdapter,
    Part,
    load_image_adapter,
    rows,
    save_image_adapter,
)
from omni.errors import WeightsError
from omni.llm.model import find
from omni.llm.tokenizer import ChatTokenizer
from omni.sequence import IGNORE
from omni.train.bridges import Bridge, Term, trained
from omni.train.config import config
from omni.train.data import Media
from omni.weights import DEFAULT_MODEL


class Scenes(Bridge):
    """An `ImageAdapter` with the cross entropy of names, kinds, colours and grounds.

    The truth is in the ``facts`` of a medium: ``things`` as [name, kind, colour, [row, column]], of
    which name and colour may be None, and ``ground``. Half of the pictures are mirrored while it
    learns, and channels of the map hidden.
    """

    @config
    class Config:
        """``llm`` reads the sentences; ``blind`` is how likely a channel of a picture is hidden.

        ``start`` is the file of an adapter to begin with; None: random weights.
        """

        adapter: ImageAdapter.Config
        llm: str = DEFAULT_MODEL
        blind: float = 0.1
        start: str | None = None

        def build(self, width: int) -> Scenes:
            """Raises `WeightsError` where ``start`` is of other words or sizes."""
            scenes = Scenes(self)
            if self.start is not None:
                begun, _ = load_image_adapter(Path(self.start))
                if begun.config != self.adapter:
                    raise WeightsError(f"{self.start} has other words or sizes than the recipe")
                scenes.adapter.load_state_dict(begun.state_dict())
            return scenes

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.adapter = config.adapter.build()
        a = config.adapter
        self._choices = {
            "names": {name: i + 1 for i, name in enumerate(a.names)},
            "kinds": {kind: i for i, kind in enumerate(a.kinds)},
            "colours": {colour: i + 1 for i, colour in enumerate(a.colours)},
            "grounds": {colour: i for i, colour in enumerate(a.colours)},
        }

    def forward(
        self, media: Sequence[Media], embedding_VD: Tensor | None
    ) -> tuple[list[Tensor], dict[str, Term]]:
        """The rows of the adapter's sentence, and the losses in nats per field."""
        device = self.adapter.places.device
        map_BPE = torch.stack([m.features.float() for m in media]).to(device)
        mirrored = [False] * len(media)
        if self.training and self.adapter.places.requires_grad:
            mirrored = (torch.rand(len(media)) < 0.5).tolist()
            map_BPE = self._varied(map_BPE, mirrored)
        scene = self.adapter(map_BPE)
        truth = self._truth(media, mirrored).to(device)
        losses = {}
        for i, (part, logits) in enumerate(zip(_WEIGHTS, scene, strict=True)):
            target = truth[:, i] if part != "ground" else truth[:, i, 0]
            logits, target = logits.flatten(0, -2), target.flatten()
            loss = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum")
            losses[part] = Term(loss / max(int((target != IGNORE).sum()), 1), _WEIGHTS[part])
        if embedding_VD is None:
            return [], losses
        return [self._rows(parts, embedding_VD) for parts in self.adapter.sentences(scene)], losses

    def _rows(self, parts: Sequence[Part], embedding_VD: Tensor) -> Tensor:
        def embed(words: str) -> Tensor:
            return embedding_VD[self._tokenizer.encode(words)]

        return rows([BEFORE, *(parts or [" nothing"]), AFTER], embed)

    @cached_property
    def _tokenizer(self) -> ChatTokenizer:
        return ChatTokenizer(find(self.config.llm))

    def _truth(self, media: Sequence[Media], mirrored: Sequence[bool]) -> Tensor:
        """Choices (B, 4, fields) of names, kinds, colours and, in the first field, grounds."""
        truth = torch.zeros(len(media), 4, len(FIELDS), dtype=torch.long)
        # Nothing is learned of the kind and colour of nothing.
        truth[:, 1:] = IGNORE
        for own, medium, turn in zip(truth, media, mirrored, strict=True):
            facts: Mapping[str, Any] = medium.facts
            for name, kind, colour, (row, column) in facts["things"]:
                field = FIELDS.index((row, 2 - column if turn else column))
                own[0, field] = self._choices["names"].get(name, IGNORE)
                own[1, field] = self._choices["kinds"].get(kind, IGNORE)
                unknown = IGNORE if kind == "shape" else 0
                own[2, field] = self._choices["colours"].get(colour, unknown)
            if "ground" in facts:
                own[3, 0] = self._choices["grounds"][facts["ground"]]
        return truth

    def _varied(self, map_BPE: Tensor, mirrored: Sequence[bool]) -> Tensor:
        a = self.adapter.config
        map_BPE = self.adapter.mirrored(map_BPE, torch.tensor(mirrored, device=map_BPE.device))
        hidden_BE = torch.rand(len(map_BPE), a.channels) < self.config.blind
        hidden_BE = F.pad(hidden_BE, (0, a.fine)).to(map_BPE.device)
        return map_BPE.masked_fill(hidden_BE[:, None], 0.0)


_WEIGHTS = {"names": 1.0, "kinds": 0.3, "colours": 0.5, "ground": 0.3}


def ship(weights: Path, path: Path, adapter: ImageAdapter.Config, card: Mapping[str, str]) -> None:
    """Write what a stage left as the adapter that the runtime reads, with its ``card``.

    Raises `WeightsError` where the weights are of another adapter.
    """
    save_image_adapter(path, trained(weights, "image", adapter.build()), card)
