"""Which parts make up the assistant, and how they are built."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from omni.types import AudioEncoder, ImageEncoder, SpeechDecoder
from omni.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from encoders.turn import SmartTurn
    from encoders.vad import SileroVad
    from omni.llm.linear import Quantization
    from omni.llm.model import LanguageModel
    from omni.sequence import Layout
    from runtime.drawing import Painters

log = logging.getLogger(__name__)
READER = "reader.safetensors"
"""Updates of the default LLM that read what the image adapter says."""
ImageBridge = Literal["auto", "adapter", "text"]


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
    painters: Painters | None = None
    """Who draws what is asked for; None: nobody, and the LLM answers such requests in words."""


@dataclass(frozen=True)
class Assembly:
    """How to build the parts. ``threads`` is per model; None: one for each core, at most 4."""

    model: str = DEFAULT_MODEL
    device: str = "auto"
    quantization: Quantization = "auto"
    max_context: int = 4096
    threads: int | None = None
    pictures: str | None = None
    """What draws: a directory of ``omni draw train`` or a pipeline of diffusers; None: ours."""
    image_bridge: ImageBridge = "auto"
    """How the LLM reads pictures; auto: by the adapter, with the LLM that it was measured with."""
    ear: Path | None = None
    """An audio adapter that hears its languages without Whisper's decoder; None: none does."""

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights that it needs, in the order in which they are fetched."""
        from omni.weights import CATALOG

        own = (self.model,) if self.model in CATALOG else ()
        return (*own, "whisper-base", "smart-turn-v3.2", "efficientnet-lite2", "kokoro-82m")

    def build(self) -> Parts:
        """Load every part; fetches what is not in the cache."""
        from decoders.kokoro import KokoroVoice
        from decoders.pictures import Pictures
        from decoders.speech import VoiceRouter
        from decoders.voices import HibariVoice
        from encoders.audio import WhisperEncoder
        from encoders.ear import Ear
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

        llm = load(
            self.model,
            device=self.device,
            quantization=self.quantization,
            max_context=self.max_context,
            threads=threads,
        )
        return Parts(
            llm=llm,
            hearing=WhisperEncoder(
                ensure("whisper-base"),
                WhisperEncoder.Config(threads=threads),
                Ear(self.ear) if self.ear else None,
            ),
            vad=SileroVad(),
            turn=SmartTurn(ensure("smart-turn-v3.2"), SmartTurn.Config(threads=threads)),
            sight=sight_for(llm, self.model, self.image_bridge),
            voice=VoiceRouter([english, others]),
            warm_up=warm_up,
            painters=Pictures(self.pictures, llm.name, self.device),
        )


def sight_for(llm: LanguageModel | None, model: str, bridge: ImageBridge = "auto") -> ImageEncoder:
    """What sees for an LLM, which is adapted to it; for None, that which only gives words.

    ``model`` is what the LLM was asked for by.
    """
    from encoders.image import EfficientNetEncoder
    from encoders.scene import SceneEncoder
    from omni.llm.updates import Updates
    from omni.weights import ensure

    names = EfficientNetEncoder(ensure("efficientnet-lite2"))
    measured = model == DEFAULT_MODEL
    if bridge == "text" or (bridge == "auto" and not measured):
        return names
    if llm is None:
        return SceneEncoder(names)
    if measured:
        with as_file(files("omni.adapters") / "data" / READER) as path:
            llm.adapt(Updates.load(path)[0])
    return SceneEncoder(names, llm.embed)
