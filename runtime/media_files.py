"""The media of conversations as files: sound as FLAC, pictures as they came."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np

from encoders.media import read_audio
from omni.types import AudioChunk

_PICTURES = (
    (0, b"\xff\xd8\xff", "jpg", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "png", "image/png"),
    (8, b"WEBP", "webp", "image/webp"),
    (0, b"GIF8", "gif", "image/gif"),
    (0, b"BM", "bmp", "image/bmp"),
    (0, b"II*\0", "tiff", "image/tiff"),
    (0, b"MM\0*", "tiff", "image/tiff"),
    (4, b"ftypavif", "avif", "image/avif"),
    (4, b"ftyphei", "heic", "image/heic"),
)


def write_medium(folder: Path, content: bytes | AudioChunk) -> tuple[Path, str]:
    """Write a medium into ``folder``; gives the file's path and its media type.

    The file is whole and on the disk when this returns. Raises ``OSError``.
    """
    if isinstance(content, AudioChunk):
        data, suffix, kind = flac(content), "flac", "audio/flac"
    else:
        data = content
        suffix, kind = picture_type(data)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The name is ours: the client chose those of its items.
    path = folder / f"{secrets.token_hex(8)}.{suffix}"
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        unlink([temporary])
        raise
    return path, kind


def read_medium(path: Path) -> bytes | AudioChunk:
    """The content of a file that `write_medium` wrote. Raises `MediaError` or ``OSError``."""
    return read_audio(path) if path.suffix == ".flac" else path.read_bytes()


def unlink(paths: Iterable[Path]) -> None:
    """Delete files, as far as there are any."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def picture_type(data: bytes) -> tuple[str, str]:
    """The file extension and the media type of an encoded picture, by its first bytes."""
    for offset, magic, suffix, kind in _PICTURES:
        if data.startswith(magic, offset):
            return suffix, kind
    return "bin", "application/octet-stream"


def flac(chunk: AudioChunk) -> bytes:
    """``chunk`` as a 16-bit mono FLAC file.

    Unlike `AudioWriter`'s, which are sent while they grow, it states its length and is exact: the
    samples that came over the wire are those that are kept.
    """
    pcm = np.clip(np.rint(chunk.pcm * 32768.0), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=chunk.sample_rate, layout="mono")
        stream.codec_context.format = "s16"
        for start in range(0, len(pcm), 65_536):
            frame = av.AudioFrame.from_ndarray(
                pcm[None, start : start + 65_536], format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = chunk.sample_rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()
