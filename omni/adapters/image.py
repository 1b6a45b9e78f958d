"""Pictures into the LLM as words that carry their own doubt: what is where, and in which colour.

EfficientNet's map after its last convolution keeps places, and small means of the pixels keep
colours, which the network pools away. Nine queries, one for each field of a grid of three by three,
and one for the whole read both and say which name, kind and colour the thing in their field has.

What the LLM reads is a sentence in its own embeddings. Its plain words are exact; a name or colour
is an expected embedding, the mean over all it may be, weighted by probability. Nothing is
autoregressive, the LLM stays as it is, and the likeliest words are the same sentence as text.

Shape letters: B pictures, P cells of the map, E features of a cell, Q queries, F fields, W width of
the adapter, C choices, K tokens of a word, D width of the LLM, N rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni.adapters.files import not_an_adapter, read_adapter, write_adapter
from omni.data.describe import Placed, article, plural
from omni.data.numbers import cardinal

FIELDS = tuple((row, column) for row in range(3) for column in range(3))
LEAST, MOST = 0.02, 8
"""An expected embedding is of so many words at most, none of them less probable than that."""
BEFORE, AFTER = "[Your camera shows", "]"
"""What the LLM reads around a sentence."""


class Scene(NamedTuple):
    """What may be in pictures, as logits; in names and colours the choice 0 is none."""

    names_BFC: Tensor
    kinds_BFC: Tensor
    colours_BFC: Tensor
    ground_BC: Tensor


class Choice(NamedTuple):
    """A word that may be one of several: the likeliest first, probabilities (C,) that sum to 1."""

    words: tuple[str, ...]
    probabilities: Tensor

    @classmethod
    def of(cls, words: Sequence[str], weights_C: Tensor) -> Choice:
        """Of the words that are likely enough; the weights need not sum to 1."""
        best, order = (weights_C / weights_C.sum()).topk(min(MOST, len(words)))
        count = max(1, int((best >= LEAST).sum()))
        return cls(
            tuple(words[i] for i in order[:count].tolist()), best[:count] / best[:count].sum()
        )


Part = str | Choice


def text(parts: Iterable[Part]) -> str:
    """A sentence in its likeliest words."""
    return "".join(part if isinstance(part, str) else part.words[0] for part in parts).strip()


def rows(parts: Iterable[Part], embed: Callable[[str], Tensor]) -> Tensor:
    """What the LLM reads of a sentence, (N, D): as many rows as its likeliest words have tokens.

    ``embed`` gives the LLM's embeddings (K, D) of the tokens of a text.
    """
    found = []
    for part in parts:
        if isinstance(part, str):
            found.append(embed(part))
            continue
        words = [embed(word) for word in part.words]
        for k in range(len(words[0])):
            # A word with fewer tokens says nothing about the later ones.
            having = [i for i, word_KD in enumerate(words) if k < len(word_KD)]
            p = part.probabilities[having]
            found.append((p / p.sum()) @ torch.stack([words[i][k] for i in having])[None])
    return torch.cat(found)


class ImageAdapter(nn.Module):
    """A map with colours (B, P, E) -> the names, kinds and colours in its fields."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """Sizes, and the words that it knows; ``channels`` of the map, ``fine`` of the colours."""

        names: tuple[str, ...]
        kinds: tuple[str, ...]
        colours: tuple[str, ...]
        channels: int = 1280
        fine: int = 48
        cells: int = 49
        width: int = 192
        layers: int = 2
        heads: int = 6
        expansion: int = 2
        dropout: float = 0.1

        def build(self) -> ImageAdapter:
            """An adapter with random weights."""
            return ImageAdapter(self)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.enter = nn.Linear(config.channels, width)
        self.paint = nn.Sequential(
            nn.Linear(config.fine, width), nn.GELU(), nn.Linear(width, width)
        )
        self.norm = nn.LayerNorm(width)
        self.places = nn.Parameter(torch.randn(config.cells, width) * 0.5)
        self.queries = nn.Parameter(torch.randn(len(FIELDS) + 1, width) * 0.5)
        self.blocks = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width,
                config.heads,
                config.expansion * width,
                config.dropout,
                "gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.layers)
        )
        self.leave = nn.LayerNorm(width)
        self.name = nn.Linear(width, len(config.names) + 1)
        self.kind = nn.Linear(width, len(config.kinds))
        self.colour = nn.Linear(width, len(config.colours) + 1)
        self.ground = nn.Linear(width, len(config.colours))

    def forward(self, map_BPE: Tensor) -> Scene:
        """What is seen in pictures of these features."""
        edge = self.config.channels
        channels_BPE, fine_BPE = map_BPE[..., :edge], map_BPE[..., edge:]
        cells_BPW = self.norm(self.enter(channels_BPE) + self.paint(fine_BPE))
        side = math.isqrt(self.config.cells)
        map_BWHH = cells_BPW.transpose(1, 2).unflatten(2, (side, side))
        # A query begins with the mean of its field, so that it need not learn where that is.
        fields_BQW = F.adaptive_avg_pool2d(map_BWHH, 3).flatten(2).transpose(1, 2)
        x_BQW = torch.cat([fields_BQW, cells_BPW.mean(1, keepdim=True)], 1) + self.queries
        cells_BPW = cells_BPW + self.places
        for block in self.blocks:
            x_BQW = block(x_BQW, cells_BPW)
        x_BQW = self.leave(x_BQW)
        fields, whole = x_BQW[:, :-1], x_BQW[:, -1]
        return Scene(self.name(fields), self.kind(fields), self.colour(fields), self.ground(whole))

    def mirrored(self, map_BPE: Tensor, which_B: Tensor) -> Tensor:
        """The maps with left and right exchanged where ``which_B`` says so."""
        side = math.isqrt(self.config.cells)
        parts = math.isqrt(self.config.fine // 3)
        square = map_BPE.reshape(len(map_BPE), side, side, -1)
        channels, fine = square[..., : self.config.channels], square[..., self.config.channels :]
        fine = fine.reshape(*fine.shape[:3], parts, parts, 3)
        turned = torch.cat([channels.flip(2), fine.flip(2).flip(-2).flatten(-3)], -1).flatten(1, 2)
        return torch.where(which_B[:, None, None], turned, map_BPE)

    def sureness(self, scene: Scene) -> list[float]:
        """How probable the likeliest names are, on average over the things of each picture."""
        names_BFC = scene.names_BFC.float().softmax(-1)
        full_BF = names_BFC[..., 0] < 0.5
        best_BF = names_BFC[..., 1:].amax(-1) / names_BFC[..., 1:].sum(-1)
        sure_B = (best_BF * full_BF).sum(1) / full_BF.sum(1).clamp(min=1)
        return [float(sure) for sure in sure_B]

    def sentences(self, scene: Scene) -> list[list[Part]]:
        """What each picture shows; nothing where no field has a thing."""
        found = zip(*(logits.float().softmax(-1).cpu() for logits in scene), strict=True)
        return [self._sentence(Scene(*picture)) for picture in found]

    def _sentence(self, seen: Scene) -> list[Part]:
        """Of one picture's probabilities."""
        config = self.config
        names_FC, kinds_FC, colours_FC, ground_C = seen
        full = [f for f in range(len(FIELDS)) if names_FC[f, 0] < 0.5]
        if not full:
            return []
        ground = Choice.of([f" {colour}" for colour in config.colours], ground_C)
        on: list[Part] = [f" on {_an(ground)}", ground, " background"]
        count = f" {cardinal(len(full))}"
        if len(full) > 1 and len(set(names_FC[full, 1:].argmax(-1).tolist())) == 1:
            # All alike: how many there are says more than where each is.
            things = Choice.of([f" {plural(n)}" for n in config.names], names_FC[full, 1:].mean(0))
            return [count, *self._colour(colours_FC[full].mean(0)), things, *on]
        said: list[Part] = []
        for f in full:
            name = Choice.of([f" {name}" for name in config.names], names_FC[f, 1:])
            colour = self._colour(colours_FC[f])
            said += ["," if said else "", f" {_an(colour[0] if colour else name)}", *colour, name]
            kind = config.kinds[int(kinds_FC[f].argmax())]
            if kind != "shape":
                said.append(f" ({article(kind)})")
            said.append(f" {Placed('', '', FIELDS[f]).place}")
        if len(full) == 1:
            return [*said[1:], ",", *on]
        return [f"{count} things", *on, ":", *said[1:]]

    def _colour(self, colours_C: Tensor) -> list[Choice]:
        """The colour of a thing, where it has one."""
        if colours_C[0] >= 0.5:
            return []
        return [Choice.of([f" {colour}" for colour in self.config.colours], colours_C[1:])]


def _an(word: Choice) -> str:
    return article(word.words[0].strip()).split()[0]


def save_image_adapter(path: Path, adapter: ImageAdapter, card: Mapping[str, str]) -> None:
    """Write weights with their words; ``card`` says where they come from."""
    write_adapter(path, adapter.state_dict(), asdict(adapter.config), card)


def load_image_adapter(path: Path) -> tuple[ImageAdapter, dict[str, str]]:
    """What `save_image_adapter` wrote, in float32 and ready to see, and its card.

    Raises `WeightsError` for any other file.
    """
    config, tensors, card = read_adapter(path)
    try:
        words = {name: tuple(config[name]) for name in ("names", "kinds", "colours")}
        adapter = ImageAdapter.Config(**{**config, **words}).build()
        adapter.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise not_an_adapter(path, error) from error
    return adapter.eval(), card
