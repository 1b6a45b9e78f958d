"""The models of a batch, each loaded when it is first needed."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, cast

from omni.batch.options import Options
from omni.types import ImageEncoder, SpeechDecoder

if TYPE_CHECKING:
    from encoders.batch import BatchTranscriber
    from encoders.speakers import SpeakerEncoder
    from omni.llm.linear import Quantization
    from omni.llm.model import LanguageModel


class Models:
    """The models of a batch, each loaded when it is first needed."""

    def __init__(self, options: Options) -> None:
        self._options = options

    @cached_property
    def transcriber(self) -> BatchTranscriber:
        """Hears."""
        from encoders.audio import WhisperEncoder
        from encoders.batch import BatchTranscriber
        from omni.weights import ensure

        # One thread for each of several batches is faster than several threads for one.
        config = WhisperEncoder.Config(threads=1, workers=self._options.threads or cores())
        whisper = WhisperEncoder(ensure("whisper-base"), config)
        if self._options.language is not None:
            whisper.language_code(self._options.language)  # told once, not for every record
        return BatchTranscriber(whisper)

    @cached_property
    def sight(self) -> ImageEncoder:
        """Sees."""
        from encoders.image import EfficientNetEncoder
        from omni.weights import ensure

        return EfficientNetEncoder(ensure("efficientnet-lite2"))

    @cached_property
    def speakers(self) -> SpeakerEncoder:
        """Tells voices apart."""
        from encoders.speakers import SpeakerEncoder
        from omni.weights import ensure

        return SpeakerEncoder(ensure("resemblyzer"))

    @cached_property
    def llm(self) -> LanguageModel:
        """Answers."""
        from omni.llm.model import load

        options = self._options
        return load(
            options.model,
            device=options.device,
            quantization=cast("Quantization", options.quantization),
            max_context=options.context,
            threads=options.threads or cores(),
        )

    @cached_property
    def voice(self) -> SpeechDecoder:
        """Speaks."""
        from decoders.kokoro import KokoroVoice
        from decoders.speech import VoiceRouter
        from decoders.voices import HibariVoice
        from omni.weights import ensure

        english = HibariVoice()
        others = KokoroVoice(lambda: ensure("kokoro-82m"), english=english.phonemes)
        return VoiceRouter([english, others])


def cores() -> int:
    """Threads that a model is given."""
    return min(4, os.cpu_count() or 1)
