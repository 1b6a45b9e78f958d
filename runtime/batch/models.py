"""The models of a batch, each loaded when it is first needed."""

from __future__ import annotations

import os
import threading
from functools import cached_property
from typing import TYPE_CHECKING, cast

from omni.batch.options import Options
from omni.types import ImageEncoder, SpeechDecoder

if TYPE_CHECKING:
    from decoders.pictures import Painter
    from encoders.batch import BatchTranscriber
    from encoders.speakers import SpeakerEncoder
    from omni.llm.linear import Quantization
    from omni.llm.model import LanguageModel
    from runtime.prompt import Reading


class Models:
    """The models of a batch, each loaded when it is first needed."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._loading = threading.Lock()
        self._mind: tuple[LanguageModel, ImageEncoder] | None = None

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
        """Sees, and says in words what."""
        from runtime.assembly import sight_for

        return sight_for(None, self._options.model)

    @cached_property
    def speakers(self) -> SpeakerEncoder:
        """Tells voices apart."""
        from encoders.speakers import SpeakerEncoder
        from omni.weights import ensure

        return SpeakerEncoder(ensure("resemblyzer"))

    @property
    def llm(self) -> LanguageModel:
        """Answers."""
        return self._loaded()[0]

    @property
    def sight_of_llm(self) -> ImageEncoder:
        """Sees for the LLM."""
        return self._loaded()[1]

    @cached_property
    def reading(self) -> Reading:
        """How the LLM reads what is seen."""
        from runtime.prompt import Reading

        return Reading.between([self.sight_of_llm.capabilities], self.llm)

    @cached_property
    def painter(self) -> Painter:
        """Draws. Raises `InputError` where nothing does for this LLM."""
        from decoders.pictures import Pictures
        from omni.draw.words import PromptReader

        llm = self.llm
        return Pictures(None, llm.name).load(PromptReader(llm).read)

    def _loaded(self) -> tuple[LanguageModel, ImageEncoder]:
        """The LLM and what sees for it, whichever thread asks first."""
        from omni.llm.model import load
        from runtime.assembly import sight_for

        options = self._options
        with self._loading:
            if self._mind is None:
                llm = load(
                    options.model,
                    device=options.device,
                    quantization=cast("Quantization", options.quantization),
                    max_context=options.context,
                    threads=options.threads or cores(),
                )
                self._mind = llm, sight_for(llm, options.model)
            return self._mind

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
