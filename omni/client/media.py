"""Sound and pictures on their way to the wire: PCM16 mono at 24 kHz, and JPEG or PNG."""

from __future__ import annotations

import base64
import io
import os
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from omni.errors import MediaError
from omni.types import AudioChunk, ImageFrame, Pcm

if TYPE_CHECKING:
    from PIL import Image

AudioLike: TypeAlias = "AudioChunk | NDArray[Any] | str | os.PathLike[str]"
"""A chunk, an array of float32 in [-1, 1] or int16 with its rate, or a sound file."""
ImageLike: TypeAlias = (
    "ImageFrame | NDArray[np.uint8] | bytes | str | os.PathLike[str] | Image.Image"
)
"""A frame, RGB uint8 (H, W, 3), the bytes of a picture file, its path, or a Pillow image."""

WIRE_RATE = 24_000
MAX_SECONDS = 600.0
"""Longest recording that is sent in one piece."""
MAX_PLAIN_BYTES = 4 * 2**20
"""Larger picture files are scaled down before they are sent."""
MAX_SIDE = 1280


def pcm16_to_float(data: bytes) -> Pcm:
    """Little-endian PCM16 -> float32 in [-1, 1), shape (T,); half a last sample is dropped."""
    samples = np.frombuffer(data[: len(data) // 2 * 2], "<i2")
    return samples.astype(np.float32) / np.float32(32768)


def float_to_pcm16(pcm: Pcm) -> bytes:
    """float32 in [-1, 1] -> little-endian PCM16; what lies outside is clipped."""
    return (np.clip(pcm, -1, 1) * 32767).round().astype("<i2").tobytes()


def to_chunk(audio: AudioLike, rate: int | None = None) -> AudioChunk:
    """Turn whatever a caller has into an AudioChunk.

    ``audio`` is a chunk, an array (T,) of float in [-1, 1] or int16, or the path of a sound file;
    ``rate`` in hertz is required for an array and ignored otherwise. Raises MediaError for sound
    that is not mono, without rate, not finite or out of range, and for a file that cannot be read.
    """
    if isinstance(audio, str | os.PathLike):
        return load_audio(audio)
    if isinstance(audio, AudioChunk):
        array, rate = np.asarray(audio.pcm), audio.sample_rate
    else:
        array = np.asarray(audio)
    if rate is None:
        raise MediaError("the sample rate is not known; pass rate=, in hertz", param="rate")
    if not 4_000 <= rate <= 384_000:
        raise MediaError(f"sample rate {rate} Hz; expected 4000 to 384000 Hz", param="rate")
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim != 1:
        raise MediaError(
            f"audio has shape {array.shape}; send mono, shape (samples,): average the channels",
            param="audio",
        )
    if array.dtype == np.int16:
        return AudioChunk(array.astype(np.float32) / np.float32(32768), rate)
    if array.dtype.kind != "f":
        raise MediaError(f"audio is {array.dtype}; expected float32 or int16", param="audio")
    peak = float(np.abs(array).max(initial=0))
    if not np.isfinite(peak):
        raise MediaError("audio holds NaN or infinity; expected values in [-1, 1]", param="audio")
    if peak > 2:
        raise MediaError(
            f"audio reaches {peak:.0f}; floats are expected in [-1, 1]: divide, or pass int16",
            param="audio",
        )
    return AudioChunk(array.astype(np.float32), rate)


def load_audio(path: str | os.PathLike[str]) -> AudioChunk:
    """Read a sound file of any common format at its own rate; channels are averaged.

    Raises MediaError when there is no such file, no sound in it, or more than ten minutes.
    """
    name = Path(path)
    if not name.is_file():
        raise MediaError(f"no such file: {name}", param="audio")
    try:
        chunk = _read_wav(name)
    except (wave.Error, EOFError):  # not a WAV file, or one of the kinds that `wave` does not read
        chunk = _read_any(name)
    if not len(chunk.pcm):
        raise MediaError(f"{name} holds no sound; expected a recording of speech", param="audio")
    return chunk


def _read_wav(path: Path) -> AudioChunk:
    with wave.open(str(path)) as file:
        if file.getsampwidth() != 2:
            raise wave.Error("not 16 bit")
        _check_length(path, file.getnframes() / file.getframerate())
        pcm = pcm16_to_float(file.readframes(file.getnframes()))
        channels, rate = file.getnchannels(), file.getframerate()
    pcm = pcm[: len(pcm) // channels * channels].reshape(-1, channels).mean(1)
    return AudioChunk(pcm, rate)


def _read_any(path: Path) -> AudioChunk:
    import av  # FFmpeg: loaded only for files that the standard library does not read

    pieces: list[NDArray[np.float32]] = []
    rate, samples = 0, 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise MediaError(f"{path} has no sound track", param="audio")
            for frame in container.decode(audio=0):
                rate = frame.sample_rate
                resampled = av.AudioResampler("fltp", frame.layout, rate).resample(frame)
                pieces += [part.to_ndarray().mean(0, dtype=np.float32) for part in resampled]
                samples += frame.samples
                _check_length(path, samples / rate)
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(
            f"{path} cannot be read as sound ({error}); expected WAV, FLAC, MP3, Ogg or the like",
            param="audio",
        ) from error
    return AudioChunk(np.concatenate(pieces) if pieces else np.zeros(0, np.float32), rate or 16_000)


def _check_length(path: Path, seconds: float) -> None:
    if seconds > MAX_SECONDS:
        raise MediaError(
            f"{path} is longer than {MAX_SECONDS:.0f} s; send a shorter recording", param="audio"
        )


def save_wav(path: str | os.PathLike[str], chunk: AudioChunk) -> None:
    """Write ``chunk`` as a 16-bit mono WAV file."""
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(chunk.sample_rate)
        file.writeframes(float_to_pcm16(chunk.pcm))


class WireAudio:
    """A stream of sound on its way to the wire; it resamples across the borders of chunks."""

    def __init__(self) -> None:
        self._rate = WIRE_RATE
        self._resampler: Any = None

    def feed(self, chunk: AudioChunk) -> bytes:
        """PCM16 at 24 kHz of what is certain so far; a change of rate flushes the old one first."""
        head = b""
        if chunk.sample_rate != self._rate:
            head = self.flush()
            self._rate = chunk.sample_rate
        if self._rate == WIRE_RATE:
            return head + float_to_pcm16(chunk.pcm)
        if self._resampler is None:
            import soxr

            self._resampler = soxr.ResampleStream(self._rate, WIRE_RATE, 1, dtype="float32")
        return head + float_to_pcm16(self._resampler.resample_chunk(chunk.pcm))

    def flush(self) -> bytes:
        """Give the samples that the resampler still holds; the stream then starts afresh."""
        if self._resampler is None:
            return b""
        rest = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        self._resampler = None
        return float_to_pcm16(rest)


def audio_to_wire(audio: AudioLike, rate: int | None = None) -> bytes:
    """Turn a whole recording into PCM16 mono at 24 kHz."""
    chunk = to_chunk(audio, rate)
    if chunk.seconds > MAX_SECONDS:
        raise MediaError(
            f"audio is {chunk.seconds:.0f} s long; at most {MAX_SECONDS:.0f} s go in one piece",
            param="audio",
        )
    stream = WireAudio()
    return stream.feed(chunk) + stream.flush()


def image_to_wire(image: ImageLike) -> tuple[bytes, str]:
    """Any picture -> the bytes of a JPEG or PNG file, and its media type.

    JPEG and PNG files of up to 4 MiB go as they are; all else is turned upright, scaled to at most
    1280 pixels a side and sent as JPEG.

    Raises MediaError when there is no such file, when it is not a picture, or for an array that is
    not RGB uint8 (H, W, 3).
    """
    if isinstance(image, str | os.PathLike):
        name = Path(image)
        try:
            image = name.read_bytes()
        except OSError as error:
            raise MediaError(f"cannot read {name}: {error.strerror}", param="image") from error
    if isinstance(image, bytes) and len(image) <= MAX_PLAIN_BYTES:
        if image.startswith(b"\xff\xd8\xff"):
            return image, "image/jpeg"
        if image.startswith(b"\x89PNG\r\n\x1a\n"):
            return image, "image/png"
    return _to_jpeg(image), "image/jpeg"


def image_to_data_url(image: ImageLike) -> str:
    """Any picture -> ``data:image/...;base64,...``, as an ``input_image`` part wants it."""
    data, media_type = image_to_wire(image)
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _to_jpeg(image: Any) -> bytes:
    from PIL import Image, ImageOps  # only where a picture has to be decoded

    try:
        if isinstance(image, ImageFrame):
            image = image.pixels
        if isinstance(image, np.ndarray):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise MediaError(
                    f"picture is {image.dtype} of shape {image.shape}; expected RGB uint8, "
                    "shape (height, width, 3)",
                    param="image",
                )
            image = Image.fromarray(image)
        elif isinstance(image, bytes):
            image = Image.open(io.BytesIO(image))
        elif not isinstance(image, Image.Image):
            raise MediaError(
                f"{type(image).__name__} is no picture; send a path, bytes, array or Pillow image",
                param="image",
            )
        image = ImageOps.exif_transpose(image).convert("RGB")
        image.thumbnail((MAX_SIDE, MAX_SIDE))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MediaError(
            f"not a picture that can be read ({error}); expected JPEG, PNG, WebP or the like",
            param="image",
        ) from error
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
