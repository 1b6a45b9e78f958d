"""Which parts make up the assistant, and how they are built."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omni.types import AudioEncoder, ImageEncoder, SpeechDecoder
from omni.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from encoders.turn import SmartTurn
    from encoders.vad import SileroVad
    from omni.llm.linear import Quantization
    from omni.llm.model import LanguageModel
    from omni.sequence import Layout

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The models of one assistant."""

    llm: LanguageModel
    hearing: AudioEncoder
    vad: SileroVad
    turn: SmartTurn
    sight: ImageEncoder
    voice: SpeechDecoder
    warm_up: Callable[[], None] = lambda: None
    layout: Layout | None = None
    """How media stand in the LLM's sequences, for encoders that are bridged by embeddings."""


@dataclass(frozen=True)
class Assembly:
    """How to build the parts. ``threads`` is per model; None: one for each core, at most 4."""

    model: str = DEFAULT_MODEL
    device: str = "auto"
    quantization: Quantization = "auto"
    max_context: int = 4096
    threads: int | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights that it needs, in the order in which they are fetched."""
        from omni.weights import CATALOG

        own = (self.model,) if self.model in CATALOG else ()
        return (*own, "whisper-base", "smart-turn-v3.2", "efficientnet-lite2", "kokoro-82m")

    def build(self) -> Parts:
        """Load every part; fetches what is not in the cache."""
        from decoders.kokoro import KokoroVoice
        from decoders.speech import VoiceRouter
        from decoders.voices import HibariVoice
        from encoders.audio import WhisperEncoder
        from encoders.image import EfficientNetEncoder
        from encoders.turn import SmartTurn
        from encoders.vad import SileroVad
        from omni.llm.model import load
        from omni.weights import ensure

        threads = self.threads or min(4, os.cpu_count() or 1)
        english = HibariVoice()
        others = KokoroVoice(
            lambda: ensure("kokoro-82m"),
            english=english.phonemes,
            config=KokoroVoice.Config(threads=threads),
        )

        def warm_up() -> None:
            english.warm_up()
            others.warm_up("zh")

        return Parts(
            llm=load(
                self.model,
                device=self.device,
                quantization=self.quantization,
                max_context=self.max_context,
                threads=threads,
            ),
            hearing=WhisperEncoder(ensure("whisper-base"), WhisperEncoder.Config(threads=threads)),
            vad=SileroVad(),
            turn=SmartTurn(ensure("smart-turn-v3.2"), SmartTurn.Config(threads=threads)),
            sight=EfficientNetEncoder(ensure("efficientnet-lite2")),
            voice=VoiceRouter([english, others]),
            warm_up=warm_up,
        )
