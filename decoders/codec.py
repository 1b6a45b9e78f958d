"""Neural codecs: sound as tokens that an LLM writes, and those tokens as sound while it writes.

EnCodec and Mimi run through transformers, which is here already and reads the published weights of
both from a directory or the hub; the package ``encodec`` has only the first and no streaming
decoder. Streaming gives exactly what decoding all at once gives: convolutions keep their left
context, transposed convolutions their overlap, LSTMs and attention their state.

Shape letters: K codebooks, T frames of the codec, N samples, C channels.
Sources: Défossez et al., High Fidelity Neural Audio Compression (2022); Défossez et al., Moshi
(2024); the delay pattern is that of Copet et al., MusicGen (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from decoders.causal import streaming
from decoders.speech import SAMPLE_RATE, check_speed
from omni.errors import InputError, WeightsError
from omni.types import AudioChunk, Capabilities, Clause, Pcm, Step

CODECS = {"encodec": "facebook/encodec_24khz", "mimi": "kyutai/mimi"}
"""Codecs by the type that their config names, with the weights that the name alone stands for."""

Codes = NDArray[np.int64]


class Codec:
    """EnCodec or Mimi as encoder and streaming decoder, on the CPU; serves many streams."""

    def __init__(self, model: Any, codebooks: int | None = None) -> None:
        """``codebooks`` (default: all) is how many are written; more sound better.

        Raises InputError for a codec that is no causal mono EnCodec or Mimi, or has fewer.
        """
        config = model.config
        self.kind = str(config.model_type)
        if self.kind not in CODECS:
            raise InputError(
                f"{self.kind!r} is no codec that can be used; give one of {', '.join(CODECS)}"
            )
        causal = config.use_causal_conv and config.trim_right_ratio == 1.0
        if not causal or config.audio_channels != 1 or getattr(config, "normalize", False):
            raise InputError(
                "this codec is not causal and mono, so it cannot be streamed; EnCodec at 24 kHz "
                "and Mimi can"
            )
        self._model = model.eval()
        self.sample_rate = int(config.sampling_rate)
        self.codebook_size = int(config.codebook_size)
        most = int(config.num_quantizers)
        self.codebooks = most if codebooks is None else codebooks
        if not 1 <= self.codebooks <= most:
            raise InputError(f"the codec has 1 to {most} codebooks, not {self.codebooks}")
        self.frame_rate = float(config.frame_rate)

    @classmethod
    def load(cls, source: str | Path, codebooks: int | None = None) -> Codec:
        """From a directory, a hub id, or a name of `CODECS`.

        Raises WeightsError where there are no such weights, InputError for another kind of model.
        """
        from transformers import AutoConfig, AutoModel

        place = CODECS.get(str(source), str(source))
        try:
            kind = AutoConfig.from_pretrained(place).model_type
            if kind not in CODECS:
                raise InputError(
                    f"{place} holds a {kind!r}; give EnCodec or Mimi, as {', '.join(CODECS)}"
                )
            return cls(AutoModel.from_pretrained(place), codebooks)
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"there is no codec in {place}: {error}; give a directory with the weights of "
                "EnCodec or Mimi, or connect to the hub"
            ) from error

    @torch.inference_mode()
    def encode(self, chunk: AudioChunk) -> Codes:
        """Sound -> codes (K, T), resampled where its rate is another."""
        pcm = chunk.pcm
        if chunk.sample_rate != self.sample_rate:
            pcm = soxr.resample(pcm, chunk.sample_rate, self.sample_rate)
        sound_1CN = torch.from_numpy(np.ascontiguousarray(pcm))[None, None]
        if self.kind == "mimi":
            codes = self._model.encode(sound_1CN, num_quantizers=self.codebooks).audio_codes[0]
        else:
            states = self._model.encoder(sound_1CN)
            codes = self._model.quantizer.encode(states)[: self.codebooks, 0]
        return np.asarray(codes.numpy(), np.int64)

    @torch.inference_mode()
    def decode(self, codes_KT: Codes) -> Pcm:
        """Codes -> sound (N,), all at once, by transformers' own code."""
        codes = self._checked(codes_KT)
        if self.kind == "mimi":
            sound = self._model.decode(codes[None]).audio_values
        else:
            sound = self._model.decode(codes[None, None], [None]).audio_values
        return np.asarray(sound[0, 0].numpy(), np.float32)

    def stream(self) -> CodecStream:
        """A fresh state of the decoder."""
        return CodecStream(self)

    def _checked(self, codes_KT: Codes) -> Tensor:
        codes = torch.from_numpy(np.ascontiguousarray(codes_KT))
        good = codes.ndim == 2 and 1 <= len(codes) <= self.codebooks
        if not good or (codes.numel() and not 0 <= codes.min() <= codes.max() < self.codebook_size):
            raise InputError(
                f"codes have the shape {tuple(codes.shape)}; expected up to {self.codebooks} rows "
                f"of numbers from 0 to {self.codebook_size - 1}"
            )
        return codes

    def _latents(self, codes_KT: Tensor) -> Tensor:
        if not codes_KT.shape[1]:
            return torch.zeros(1, self._model.config.hidden_size, 0)
        quantizer = self._model.quantizer
        if self.kind == "mimi":
            return torch.as_tensor(quantizer.decode(codes_KT[None]))
        return torch.as_tensor(quantizer.decode(codes_KT[:, None]))


class CodecStream:
    """Codes -> sound as they come. What `feed` and `flush` give, joined, is `Codec.decode`.

    EnCodec's first sound waits for some frames, because it pads its beginning by reflection.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        decoder = codec._model.decoder
        self._attention = None
        if codec.kind == "mimi":
            self._raise = streaming(decoder.upsample) if decoder.upsample is not None else None
            self._attention = decoder.decoder_transformer
            self._cache: Any = None
            decoder = decoder.decoder_seanet
        self._layers = [streaming(layer) for layer in decoder.layers]

    @torch.inference_mode()
    def feed(self, codes_KT: Codes) -> Pcm:
        """Take frames; gives the sound that is certain by now. Raises InputError for bad codes."""
        return self._run(self._codec._checked(codes_KT), last=False)

    @torch.inference_mode()
    def flush(self) -> Pcm:
        """The rest, at the end of the codes; the stream is then used up."""
        empty = torch.zeros((self._codec.codebooks, 0), dtype=torch.int64)
        return self._run(empty, last=True)

    def _run(self, codes_KT: Tensor, last: bool) -> Pcm:
        x = self._codec._latents(codes_KT)
        if self._attention is not None and x.shape[-1]:
            x = self._raise(x, last) if self._raise else x
            out = self._attention(x.transpose(1, 2), past_key_values=self._cache, use_cache=True)
            self._cache = out.past_key_values
            x = out.last_hidden_state.transpose(1, 2)
        for layer in self._layers:
            x = layer(x, last)
        return np.asarray(x[0, 0].numpy(), np.float32)


@dataclass(frozen=True, slots=True)
class CodecTokens:
    """How codes stand in the LLM's vocabulary: codebook after codebook, from token ``offset`` on.

    The K tokens of a frame follow each other. With ``delay``, codebook k is k frames late, so that
    a token is written when the coarser ones of its frame are known; the gaps at both ends hold a
    token of their own, the last of ``count``.
    """

    offset: int
    codebooks: int
    size: int
    delay: bool = False

    @property
    def count(self) -> int:
        """Tokens that it takes in the vocabulary."""
        return self.codebooks * self.size + self.delay

    @property
    def gap(self) -> int:
        """The token of a gap."""
        return self.offset + self.codebooks * self.size

    def allowed(self, index: int) -> range:
        """The tokens of codes that may stand at ``index`` of a sequence, besides `gap`."""
        begin = self.offset + index % self.codebooks * self.size
        return range(begin, begin + self.size)

    def write(self, codes_KT: Codes) -> list[int]:
        """Codes -> tokens of the LLM. Raises InputError for another number of codebooks."""
        rows, frames = codes_KT.shape
        if rows != self.codebooks:
            raise InputError(f"there are codes of {rows} codebooks; expected {self.codebooks}")
        late = (self.codebooks - 1) * self.delay
        tokens = []
        for step in range(frames + late if frames else 0):
            for k in range(self.codebooks):
                at = step - k * self.delay
                inside = 0 <= at < frames
                code = int(codes_KT[k, at]) if inside else 0
                tokens.append(self.offset + k * self.size + code if inside else self.gap)
        return tokens

    def reader(self) -> TokenReader:
        """Reads tokens one by one."""
        return TokenReader(self)

    def read(self, tokens: Iterable[int]) -> Codes:
        """Tokens of the LLM -> codes (K, T); an unfinished frame at the end is left out."""
        reader = self.reader()
        frames = [frame for token in tokens if (frame := reader.feed(token)) is not None]
        return np.concatenate(frames or [np.zeros((self.codebooks, 0), np.int64)], 1)


class TokenReader:
    """Tokens -> frames, as the tokens come."""

    def __init__(self, tokens: CodecTokens) -> None:
        self._tokens = tokens
        self._index = 0
        self._frames: dict[int, list[int]] = {}

    def feed(self, token: int) -> Codes | None:
        """A frame (K, 1) when ``token`` completes one. Raises InputError for a wrong token."""
        spec = self._tokens
        step, k = divmod(self._index, spec.codebooks)
        allowed = spec.allowed(self._index)
        at = step - k * spec.delay
        if token in allowed:
            self._frames.setdefault(at, []).append(token - allowed.start)
        elif not (spec.delay and token == spec.gap):
            raise InputError(
                f"token {token} at {self._index} is none of codebook {k}; expected "
                f"{allowed.start} to {allowed.stop - 1}"
            )
        self._index += 1
        if k < spec.codebooks - 1 or at < 0:
            return None
        frame = self._frames.pop(at, [])
        return np.array(frame)[:, None] if len(frame) == spec.codebooks else None


class CodecDecoder:
    """Steps of the LLM -> sound, piece by piece, for one answer. Cancel by dropping it."""

    def __init__(self, codec: Codec, tokens: CodecTokens, frames: int = 4) -> None:
        """``frames`` are decoded together: fewer sound earlier, more cost less."""
        if (tokens.codebooks, tokens.size) != (codec.codebooks, codec.codebook_size):
            raise InputError(
                f"the tokens are for {tokens.codebooks} codebooks of {tokens.size}, the codec has "
                f"{codec.codebooks} of {codec.codebook_size}"
            )
        self.capabilities = Capabilities(
            outputs=frozenset({"audio"}), sample_rate=codec.sample_rate, streaming=True
        )
        self._reader, self._stream = tokens.reader(), codec.stream()
        self._frames, self._waiting = frames, list[Codes]()
        self._made = 0

    def feed(self, step: Step) -> Iterator[AudioChunk]:
        """Sound that became certain with a token; raises InputError for one of another codebook."""
        frame = self._reader.feed(step.token)
        if frame is not None:
            self._waiting.append(frame)
        if len(self._waiting) >= self._frames:
            yield from self._chunk(self._stream.feed(np.concatenate(self._waiting, 1)))
            self._waiting.clear()

    def flush(self) -> Iterator[AudioChunk]:
        """The rest, at the end of the answer."""
        if self._waiting:
            yield from self._chunk(self._stream.feed(np.concatenate(self._waiting, 1)))
            self._waiting.clear()
        yield from self._chunk(self._stream.flush())

    def _chunk(self, pcm: Pcm) -> Iterator[AudioChunk]:
        if len(pcm):
            yield AudioChunk(pcm, self.capabilities.sample_rate or SAMPLE_RATE, self._made)
            self._made += len(pcm)


class CodecVoice:
    """A `SpeechDecoder` whose sound an LLM writes: ``say`` gives the tokens of a clause."""

    def __init__(
        self,
        codec: Codec,
        tokens: CodecTokens,
        say: Callable[[Clause, str | None], Iterator[Step]],
        *,
        languages: frozenset[str] = frozenset({"en"}),
        voices: tuple[str, ...] = ("codec",),
    ) -> None:
        """Raises InputError for a codec that does not make the runtime's 24 kHz."""
        if codec.sample_rate != SAMPLE_RATE:
            raise InputError(f"the codec makes {codec.sample_rate} Hz; speech has {SAMPLE_RATE} Hz")
        self._codec, self._tokens, self._say = codec, tokens, say
        self.capabilities = Capabilities(
            inputs=frozenset({"text"}),
            outputs=frozenset({"audio"}),
            sample_rate=SAMPLE_RATE,
            languages=languages,
            voices=voices,
            streaming=True,
        )

    def speaks(self, language: str, voice: str | None = None) -> bool:
        """Whether it knows ``language``, with ``voice`` where one is wanted."""
        known = language in self.capabilities.languages
        return known and (voice is None or voice in self.capabilities.voices)

    def speak(
        self, clause: Clause, *, voice: str | None = None, speed: float = 1.0
    ) -> Iterator[AudioChunk]:
        """Sound for one clause, as the LLM writes it. Raises InputError unless ``speed`` is 1."""
        check_speed(speed)
        if speed != 1.0:
            raise InputError(
                "a codec speaks at the speed that its LLM writes; send 1", param="speed"
            )
        return self._parts(clause, voice)

    def _parts(self, clause: Clause, voice: str | None) -> Iterator[AudioChunk]:
        decoder = CodecDecoder(self._codec, self._tokens)
        for step in self._say(clause, voice):
            yield from decoder.feed(step)
        yield from decoder.flush()
