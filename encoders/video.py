"""Video -> frames and sound on one clock, and what they say in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import av
import numpy as np

from encoders.media import (
    AudioTrack,
    Source,
    check_seconds,
    check_whole,
    open_container,
    source_name,
    stated_seconds,
)
from encoders.segment import speech_pieces
from encoders.vad import RATE, SileroVad
from omni.errors import MediaError
from omni.types import (
    AudioChunk,
    AudioEncoder,
    ImageEncoder,
    ImageFrame,
    Pixels,
    Run,
    Span,
    call,
)

_MAX_SIDE = 1024
_MAX_PIXELS = 50_000_000
_AT_ONCE = 4
"""Frames that are looked at in one piece of work."""


@dataclass(frozen=True, slots=True)
class Video:
    """Frames with their times on the sound's clock, the sound (mono, 16 kHz), the duration."""

    frames: tuple[ImageFrame, ...]
    audio: AudioChunk | None
    seconds: float


def read_video(
    source: Source, every: float = 0.5, max_frames: int = 64, max_seconds: float = 600.0
) -> Video:
    """Decode ``source`` (path or bytes): a frame every ``every`` seconds, and its sound track.

    When that gives more than ``max_frames``, every second one is dropped and the step doubles.
    Frames are turned upright and made no larger than 1024 pixels a side; a sound track without
    sound counts as none. MediaError: no such file, empty, damaged, without pictures, or longer
    than ``max_seconds``.
    """
    if every <= 0 or max_frames < 1:
        raise MediaError(f"every ({every}) and max_frames ({max_frames}) must be positive")
    name = source_name(source)
    sampled: list[tuple[float, Pixels]] = []
    sound_start: float | None = None
    last, due = 0.0, -np.inf
    with open_container(source, "video") as container:
        video = _checked_track(source, container, max_seconds)
        sound = (*container.streams.audio, None)[0]
        track = AudioTrack(source, sound, RATE, max_seconds) if sound else None
        for packet in container.demux([s for s in (video, sound) if s]):
            for frame in packet.decode():
                if isinstance(frame, av.AudioFrame):
                    sound_start = frame.time if sound_start is None else sound_start
                    cast(AudioTrack, track).feed(frame)
                elif isinstance(frame, av.VideoFrame):
                    time = frame.time or 0.0
                    first = sampled[0][0] if sampled else time
                    check_seconds(source, time - first, max_seconds)
                    last = max(last, time)
                    if time >= due:
                        sampled.append((time, _pixels(frame)))
                        due = time + every - 1e-6
                        if len(sampled) > max_frames:
                            sampled = sampled[::2]
                            every, due = 2 * every, sampled[-1][0] + 2 * every - 1e-6
        audio = track.finish() if track and sound_start is not None else None
    if not sampled:
        raise MediaError(f"{name} has a video track without pictures; send a complete file")
    zero = sampled[0][0] if sound_start is None else sound_start
    frames = tuple(ImageFrame(pixels, max(0.0, time - zero)) for time, pixels in sampled)
    return Video(frames, audio, max(last - zero, audio.seconds if audio else 0.0))


def frames_of(
    source: Source, *, every: float = 0.5, most: int = 240, max_seconds: float = 24 * 3600.0
) -> Iterator[tuple[list[ImageFrame], float]]:
    """Frames of a clip of any length, a few at a time, and the seconds seen so far.

    A frame every ``every`` seconds, or as rarely as it takes for ``most`` frames where the file
    states its duration; their times are those of the sound. Raises as `read_video` does.
    """
    name = source_name(source)
    frames: list[ImageFrame] = []
    with open_container(source, "video") as container:
        video = _checked_track(source, container, max_seconds)
        every = max(every, stated_seconds(container) / most)
        zero = _sound_start(container)
        due, seconds = -np.inf, 0.0
        for frame in container.decode(video):
            time = frame.time or 0.0
            zero = time if zero is None else zero
            seconds = max(seconds, time - zero)
            check_seconds(source, seconds, max_seconds)
            if time < due:
                continue
            due = time + every - 1e-6
            frames.append(ImageFrame(_pixels(frame), max(0.0, time - zero)))
            if len(frames) == _AT_ONCE:
                yield frames, seconds
                frames = []
        if due == -np.inf:
            raise MediaError(f"{name} has a video track without pictures; send a complete file")
        yield frames, seconds
        length = (
            float(video.duration * video.time_base) if video.duration and video.time_base else 0.0
        )
        check_whole(source, container.format.name, length, seconds)


def _sound_start(container: av.container.InputContainer) -> float | None:
    """When the sound begins, on the clock of the file; None: there is none."""
    for sound in container.streams.audio:
        return float((sound.start_time or 0) * (sound.time_base or 1))
    return None


def moving_track(
    container: av.container.InputContainer,
) -> av.video.stream.VideoStream | None:
    """The first video track that is more than the cover picture of a recording."""
    return next((s for s in container.streams.video if not _is_cover(s)), None)


def _checked_track(
    source: Source, container: av.container.InputContainer, max_seconds: float
) -> av.video.stream.VideoStream:
    name, video = source_name(source), moving_track(container)
    if video is None:
        raise MediaError(f"{name} has no video track; send a video", code="no_video")
    check_seconds(source, stated_seconds(container), max_seconds)
    video.thread_type = "AUTO"
    if video.codec_context.width * video.codec_context.height > _MAX_PIXELS:
        raise MediaError(f"{name} has pictures of more than {_MAX_PIXELS} pixels")
    return video


def describe(
    video: Video,
    image_encoder: ImageEncoder,
    audio_encoder: AudioEncoder | None = None,
    *,
    run: Run = call,
) -> list[Span]:
    """What is seen and said in ``video``, in the order in which it happens.

    Neighbouring frames that show the same become one span; speech is cut at pauses into spans of
    at most ten seconds. ``run`` does the models' work, piece by piece.
    """
    seen: list[Span] = []
    for first in range(0, len(video.frames), _AT_ONCE):
        frames = video.frames[first : first + _AT_ONCE]
        seen += run(partial(image_encoder.encode, frames))
    spans = merged(seen, video.seconds)
    if audio_encoder is not None and video.audio is not None:
        stream = audio_encoder.stream()
        for piece in speech_pieces([video.audio.pcm], SileroVad().stream(), max_seconds=10.0):
            stream.reset()
            stream.feed(piece)
            said = run(stream.transcribe).text
            if said:
                begin = piece.start / RATE
                times = (begin, begin + piece.seconds)
                spans.append(Span("audio", f'{_when(*times)} somebody says: "{said}"', times=times))
    return sorted(spans, key=lambda span: span.times or (0.0, 0.0))


def merged(seen: Sequence[Span], seconds: float) -> list[Span]:
    """One span per scene; what stands in parentheses (how sure, how large) makes no new one."""
    scenes: list[tuple[float, str]] = []
    for span in seen:
        text = span.text or ""
        if not scenes or scenes[-1][1].split(" (")[0] != text.split(" (")[0]:
            scenes.append((span.times[0] if span.times else 0.0, text))
    ends = [begin for begin, _ in scenes[1:]] + [seconds]
    return [
        Span("video", f"{_when(begin, end)} {text}", times=(begin, end))
        for (begin, text), end in zip(scenes, ends, strict=True)
    ]


def _when(begin: float, end: float) -> str:
    return f"From {begin:.0f} s to {max(end, begin):.0f} s:"


def _is_cover(stream: av.video.stream.VideoStream) -> bool:
    """Whether the track is only the cover picture of a recording."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _pixels(frame: av.VideoFrame) -> Pixels:
    """RGB (H, W, 3), at most 1024 pixels a side, turned by the rotation that the file asks for."""
    scale = min(1.0, _MAX_SIDE / max(frame.width, frame.height))
    width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    rgb = frame.reformat(width, height, "rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)), dtype=np.uint8)
