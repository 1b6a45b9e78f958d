"""Reading and writing media: recordings, pictures and WAV files.

Nothing here trusts what it reads: sizes and durations are checked before and while decoding, and
whatever the decoders cannot make sense of becomes one :class:`~omni.errors.MediaError`.
"""

from __future__ import annotations

import contextlib
import io
import os
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import numpy as np
import soxr
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from omni.errors import MediaError
from omni.types import AudioChunk, ImageFrame, Pcm, Pixels

Source = str | os.PathLike[str] | bytes | BinaryIO

# Their headers state durations that can be relied on: a shortfall means a cut file. Not so those
# of MP3 (estimated) and WAV (streams write any size); such a file is read as far as it goes.
_STATES_DURATION = {"flac", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_MAX_CHANNELS = 64


def source_name(source: Source) -> str:
    """How messages name ``source``: the file's name, or what kind of data it is."""
    if isinstance(source, str | os.PathLike):
        return f"{Path(source).name!r}"
    return "the data" if isinstance(source, bytes) else "the file"


@contextmanager
def _open(source: Source) -> Iterator[BinaryIO]:
    """A binary file over ``source``; MediaError when it is missing or empty."""
    with contextlib.ExitStack() as stack:
        if isinstance(source, bytes):
            file: BinaryIO = io.BytesIO(source)
        elif isinstance(source, str | os.PathLike):
            try:
                file = stack.enter_context(Path(source).open("rb"))
            except OSError as error:
                raise MediaError(
                    f"cannot open {source_name(source)}: {error.strerror or error}; "
                    "give the path of a readable file"
                ) from None
        else:
            file = source  # stays open: it is the caller's
        if not (file.seekable() and file.seek(0, io.SEEK_END)):
            raise MediaError(f"{source_name(source)} is empty (0 bytes); send a complete file")
        file.seek(0)
        yield file


@contextmanager
def open_container(source: Source, kind: str) -> Iterator[av.container.InputContainer]:
    """The opened container of ``source``; whatever the decoders raise inside is a MediaError.

    ``kind`` ("recording", "video") goes into the messages.
    """
    with _open(source) as file:
        try:
            # An empty list of protocols: a playlist must not make us read other files or hosts.
            with av.open(
                file, "r", metadata_errors="ignore", container_options={"protocol_whitelist": ","}
            ) as container:
                yield container
        except (av.error.FFmpegError, ValueError, OSError, MemoryError, EOFError) as error:
            if isinstance(error, MediaError):
                raise
            raise MediaError(
                f"{source_name(source)} is damaged or not a {kind} that can be decoded "
                f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
                "send a complete file in a common format"
            ) from error


def check_seconds(source: Source, seconds: float, max_seconds: float) -> None:
    """Raise MediaError when ``seconds`` passes the limit."""
    if seconds > max_seconds:
        raise MediaError(
            f"{source_name(source)} lasts at least {seconds:.0f} s; the limit is "
            f"{max_seconds:.0f} s; send a shorter piece",
            code="too_long",
        )


def stated_seconds(container: av.container.InputContainer) -> float:
    """Duration that the header states, 0 where it states none."""
    return (container.duration or 0) / 1e6


def read_audio(source: Source, sample_rate: int = 16000, max_seconds: float = 3600.0) -> AudioChunk:
    """Decode the first sound track of ``source`` (path or bytes, any container) to mono float32.

    Channels are averaged. MediaError: no such file, empty, damaged or cut off, no sound track,
    or longer than ``max_seconds`` (seen in the header, or while decoding when the header lies).
    """
    chunks = list(audio_chunks(source, sample_rate, max_seconds))
    return AudioChunk(np.concatenate([chunk.pcm for chunk in chunks]), sample_rate)


def audio_chunks(
    source: Source, sample_rate: int = 16000, max_seconds: float = 3600.0
) -> Iterator[AudioChunk]:
    """`read_audio` piece by piece, so that memory holds no whole recording; raises as it does."""
    _check_riff(source)
    with open_container(source, "recording") as container:
        if not container.streams.audio:
            raise MediaError(
                f"{source_name(source)} has no sound track; send a file with sound",
                code="no_audio",
            )
        stated = stated_seconds(container)
        check_seconds(source, stated, max_seconds)
        track = AudioTrack(source, container.streams.audio[0], sample_rate, max_seconds)
        for packet in container.demux(container.streams.audio[0]):
            for frame in packet.decode():
                track.feed(frame)
            if (chunk := track.take()) is not None:
                yield chunk
        yield track.finish()
        check_whole(source, container.format.name, stated, track.seconds)


def check_whole(source: Source, format_name: str, stated: float, seconds: float) -> None:
    """Raise MediaError when ``seconds`` were read of a file that surely has more."""
    if format_name in _STATES_DURATION and seconds < 0.95 * stated - 0.5:
        raise MediaError(
            f"{source_name(source)} is cut off: it should last {stated:.1f} s and only "
            f"{seconds:.1f} s could be read; send the complete file",
            code="truncated",
        )


def _check_riff(source: Source) -> None:
    """Raise MediaError for a WAV file shorter than it says: FFmpeg takes what there is for all."""
    with _open(source) as file:
        head = file.read(8)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
    stated = int.from_bytes(head[4:], "little")
    # Writers that do not know the size yet leave nothing or the largest number there.
    if head[:4] == b"RIFF" and 0 < stated < 0xFFFFFF00 and size < 0.95 * (stated + 8):
        raise MediaError(
            f"{source_name(source)} is cut off: it should have {stated + 8} bytes and has {size}; "
            "send the complete file",
            code="truncated",
        )


class AudioTrack:
    """Turns the decoded frames of one sound track into mono sound at ``sample_rate``."""

    def __init__(
        self,
        source: Source,
        stream: av.audio.stream.AudioStream,
        sample_rate: int,
        max_seconds: float,
    ) -> None:
        rate = stream.codec_context.sample_rate
        if not rate or stream.codec_context.channels > _MAX_CHANNELS:
            raise MediaError(f"{source_name(source)} has a sound track without a usable format")
        self._source, self._rate, self._out_rate = source, rate, sample_rate
        self._max_seconds = max_seconds
        self._to_float = av.AudioResampler(format="fltp", layout=None, rate=rate)
        self._resampler = Resampler(rate, sample_rate)
        self._pieces: list[Pcm] = []
        self._samples = 0
        self._given = 0

    @property
    def seconds(self) -> float:
        """How much was decoded so far."""
        return self._samples / self._rate

    def feed(self, frame: av.AudioFrame | None) -> None:
        """Take one decoded frame; None ends the track."""
        for floats in self._to_float.resample(frame):
            mono = floats.to_ndarray().mean(axis=0, dtype=np.float32)
            self._samples += len(mono)
            check_seconds(self._source, self.seconds, self._max_seconds)
            mono = np.nan_to_num(mono, nan=0.0, posinf=1.0, neginf=-1.0)
            self._pieces.append(self._resampler.feed(mono))

    def take(self) -> AudioChunk | None:
        """The sound that came since the last call; None until it is a second or more."""
        if sum(map(len, self._pieces)) < self._out_rate:
            return None
        pcm = np.clip(np.concatenate(self._pieces), -1.0, 1.0)
        self._pieces.clear()
        self._given += len(pcm)
        return AudioChunk(pcm, self._out_rate, self._given - len(pcm))

    def finish(self) -> AudioChunk:
        """The rest of the track; MediaError when it held no sound at all."""
        self.feed(None)
        self._pieces.append(self._resampler.flush())
        pcm = np.clip(np.concatenate(self._pieces), -1.0, 1.0)
        if not len(pcm) and not self._given:
            raise MediaError(
                f"{source_name(self._source)} has a sound track without any sound; "
                "send a complete file",
                code="no_audio",
            )
        return AudioChunk(pcm, self._out_rate, self._given)


class Resampler:
    """Streaming sample-rate conversion of mono sound; streamed equals offline."""

    def __init__(self, in_rate: int, out_rate: int) -> None:
        if in_rate <= 0 or out_rate <= 0:
            raise MediaError(
                f"sample rates must be positive, not {in_rate} -> {out_rate}", param="sample_rate"
            )
        self._stream = (
            None
            if in_rate == out_rate
            else soxr.ResampleStream(in_rate, out_rate, 1, dtype="float32", quality="HQ")
        )

    def feed(self, pcm: Pcm) -> Pcm:
        """Take (T,) samples; gives those samples (T',) that are certain by now."""
        if self._stream is None:
            return pcm
        return cast(Pcm, self._stream.resample_chunk(np.ascontiguousarray(pcm, np.float32)))

    def flush(self) -> Pcm:
        """The rest; the resampler then is as new."""
        if self._stream is None:
            return np.zeros(0, np.float32)
        rest = cast(Pcm, self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        self._stream.clear()
        return rest


def load_image(
    source: Source,
    max_pixels: int = 50_000_000,
    max_bytes: int = 20_000_000,
    max_side: int = 2048,
) -> ImageFrame:
    """Decode a picture (path or bytes, any format Pillow reads, its first frame) to RGB.

    The EXIF orientation is applied, transparency lies over white, and a picture with a side longer
    than ``max_side`` is made smaller. MediaError: no such file, empty, more than ``max_bytes``,
    not a picture, cut off, or more than ``max_pixels`` (checked before anything is decoded).
    """
    name = source_name(source)
    with _open(source) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size > max_bytes:
            raise MediaError(
                f"{name} has {size} bytes; the limit for a picture is {max_bytes}; "
                "send a smaller one",
                code="too_large",
            )
        Image.init()
        try:
            # EPS would run Ghostscript on what was sent.
            with Image.open(file, formats=[f for f in Image.ID if f != "EPS"]) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise _too_many_pixels(name, f"{width} x {height}", max_pixels)
                image.draft("RGB", (max_side, max_side))
                return ImageFrame(_rgb(image, max_side))
        except MediaError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise _too_many_pixels(name, f"more than {max_pixels}", max_pixels) from None
        except UnidentifiedImageError:
            raise MediaError(
                f"{name} is damaged or not a picture in a known format; "
                "send a complete JPEG, PNG or WebP file"
            ) from None
        # Pillow's parsers raise nearly anything on broken data.
        except Exception as error:
            raise MediaError(
                f"{name} is damaged or not a picture that can be decoded ({error}); "
                "send a complete JPEG, PNG or WebP file"
            ) from error


def _too_many_pixels(name: str, size: str, limit: int) -> MediaError:
    return MediaError(
        f"{name} has {size} pixels; the limit is {limit} in all; send a smaller picture",
        code="too_large",
    )


def _rgb(image: Image.Image, max_side: int) -> Pixels:
    """RGB uint8 (H, W, 3) of an opened picture."""
    if image.mode.startswith(("I", "F")):  # deeper than 8 bits: convert() would clip, so scale
        deep = np.asarray(image, np.float32)
        low, high = float(deep.min()), float(deep.max())
        top = 65535.0 if image.mode.startswith("I") and 255 < high <= 65535 else max(high, 255.0)
        scaled = np.clip((deep - min(low, 0.0)) * (255.0 / top), 0, 255).astype(np.uint8)
        exif = image.getexif()
        image = Image.fromarray(scaled)
        image.getexif().update(exif)
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        over = upright.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        upright = Image.alpha_composite(white, over)
    rgb = upright.convert("RGB")
    rgb.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    return np.array(rgb, np.uint8)


class AudioWriter:
    """Mono sound -> the bytes of a file, piece by piece; ``format`` is one of `AUDIO_FORMATS`.

    What `write` and `close` give, joined, is the file. "wav" states no length, because a stream
    does not know it; "pcm" is 16-bit little-endian without a header.
    """

    def __init__(self, format: str, sample_rate: int) -> None:
        container, codec, self._rate, _ = AUDIO_FORMATS[format]
        self._sink = _Sink()
        # Each piece leaves at once: FFmpeg would fill its buffer, and Ogg a page of a second.
        options = {"flush_packets": "1", "page_duration": "100000"}
        self._container = av.open(self._sink, "w", format=container, container_options=options)
        stream = self._container.add_stream(codec, rate=self._rate or sample_rate)
        assert isinstance(stream, av.audio.stream.AudioStream)
        stream.layout = "mono"
        if codec in ("libmp3lame", "libopus", "aac"):
            stream.bit_rate = 64_000
        self._stream = stream
        self._in_rate = sample_rate
        self._samples = 0

    def write(self, pcm: Pcm) -> bytes:
        """Take (T,) samples; gives those bytes that are certain by now."""
        frame = av.AudioFrame.from_ndarray(_int16(pcm)[None], format="s16", layout="mono")
        frame.sample_rate = self._in_rate
        frame.pts = self._samples
        self._samples += len(pcm)
        self._container.mux(self._stream.encode(frame))
        return self._sink.take()

    def close(self) -> bytes:
        """The end of the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._sink.take()


class _Sink(io.RawIOBase):
    """A file that cannot seek, whose bytes are taken as they come."""

    def __init__(self) -> None:
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


AUDIO_FORMATS: dict[str, tuple[str, str, int | None, str]] = {
    "wav": ("wav", "pcm_s16le", None, "audio/wav"),
    "pcm": ("s16le", "pcm_s16le", None, "audio/pcm"),
    "mp3": ("mp3", "libmp3lame", None, "audio/mpeg"),
    "opus": ("ogg", "libopus", 48_000, "audio/ogg"),
    "flac": ("flac", "flac", None, "audio/flac"),
    "aac": ("adts", "aac", None, "audio/aac"),
}
"""What `AudioWriter` writes: container, codec, sample rate (None: that of the sound), MIME type."""


def _int16(pcm: Pcm) -> NDArray[np.int16]:
    return (np.clip(pcm, -1.0, 1.0) * 32767.0).round().astype("<i2")


def wav_bytes(chunk: AudioChunk) -> bytes:
    """``chunk`` as a 16-bit mono WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, chunk.sample_rate, 0, "NONE", "not compressed"))
        file.writeframes(_int16(chunk.pcm).tobytes())
    return buffer.getvalue()


def write_wav(path: str | os.PathLike[str], chunk: AudioChunk) -> None:
    """Write ``chunk`` to ``path`` as a 16-bit mono WAV file; MediaError when that fails."""
    try:
        Path(path).write_bytes(wav_bytes(chunk))
    except OSError as error:
        raise MediaError(
            f"cannot write {os.fspath(path)!r}: {error.strerror or error}; "
            "give a path in a folder that exists and can be written"
        ) from None
