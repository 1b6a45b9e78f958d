"""Made-up modalities for the smoke test and the ablation: nothing of the real world is in them.

Every medium is noise around the code of a short word; the LLM is to say the word. Text is counting.
The modalities differ in size of data, noise and difficulty, so that they compete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import torch

from omni.errors import OmniError
from omni.sequence import Text
from omni.train.bridges import BridgeConfig
from omni.train.config import config
from omni.train.contrastive import Contrastive
from omni.train.data import Example, Item, Media, Pair, Position
from omni.train.model import LoRA, MixtureOfExperts, OmniModel
from omni.types import Modality

WIDTH = 16
"""Of the features."""
VOCABULARY = 48


class MadeUp:
    """A finite set of made-up examples of one modality, the same for the same seed."""

    @config
    class Config:
        """``size`` examples; ``noise`` on the features; ``words`` in the vocabulary of the task."""

        modality: Modality
        size: int
        noise: float = 0.3
        words: int = 8
        pairs: bool = False

        def build(self, model: Any, seed: int) -> MadeUp:
            """The data; no model is needed."""
            return MadeUp(self, seed)

    def __init__(self, config: Config, seed: int) -> None:
        self.config, self.size, self._seed = config, config.size, seed
        made = torch.Generator().manual_seed(len(config.modality))
        self._codes = torch.randn(config.words, WIDTH, generator=made)

    def read(self, position: Position | None) -> Iterator[tuple[Item | OmniError, Position]]:
        """All of it in another order each time, for ever."""
        at = position or {"epoch": 0, "index": 0}
        epoch, index = at["epoch"], at["index"]
        while True:
            order = list(range(self.size))
            Random(f"{self._seed} {epoch}").shuffle(order)
            for i in range(index, self.size):
                yield self._item(order[i]), {"epoch": epoch, "index": i + 1}
            epoch, index = epoch + 1, 0

    def held_out(self, count: int) -> Sequence[Item]:
        """Items with numbers past the end."""
        return [self._item(self.size + i) for i in range(count)]

    def _item(self, number: int) -> Item:
        c = self.config
        random = Random(f"{self._seed} {c.modality} {number}")
        word, other = random.sample(range(c.words), 2)
        if not c.pairs:
            return self._example(word, word, number, random)
        return Pair(
            self._example(word, word, number, random), self._example(word, other, number, random)
        )

    def _example(self, word: int, answer: int, number: int, random: Random) -> Example:
        c = self.config
        if c.modality == "text":
            start = word
            asked = tuple((start + i) % c.words + 16 for i in range(4))
            following = (start + 4 + (answer - word)) % c.words + 16
            return Example((Text((1, *asked)), Text((following, 2), learn=True)))
        made = torch.Generator().manual_seed(number * 7919 + self._seed)
        length = random.randint(2, 6)
        noise = torch.randn(length, WIDTH, generator=made) * c.noise
        medium = Media(c.modality, self._codes[word] + noise, (16 + word,))
        return Example((Text((1,)), medium, Text((16 + answer, 2), learn=True)))


@config
class TinyModel:
    """A random Qwen2 of two layers with bridges, for smoke tests and ablations on made-up data."""

    bridges: dict[str, BridgeConfig]
    lora: LoRA | None = None
    contrastive: Contrastive.Config | None = None
    experts: MixtureOfExperts | None = None
    hidden: int = 32
    layers: int = 2
    checkpointing: bool = False

    def build(self, seed: int) -> OmniModel:
        """With random weights."""
        from transformers import Qwen2Config, Qwen2ForCausalLM

        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            llm = Qwen2ForCausalLM(
                Qwen2Config(
                    vocab_size=VOCABULARY,
                    hidden_size=self.hidden,
                    intermediate_size=2 * self.hidden,
                    num_hidden_layers=self.layers,
                    num_attention_heads=4,
                    num_key_value_heads=2,
                    max_position_embeddings=512,
                    tie_word_embeddings=True,
                    bos_token_id=None,
                    eos_token_id=2,
                    initializer_range=0.2,
                )
            )
        options = OmniModel.Config(
            llm="made up",
            bridges=self.bridges,
            lora=self.lora,
            contrastive=self.contrastive,
            experts=self.experts,
            checkpointing=self.checkpointing,
        )
        return OmniModel(options, llm, seed)
