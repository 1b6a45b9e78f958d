import io
import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from encoders.media import load_image, read_audio
from encoders.video import describe, read_video
from omni.errors import MediaError
from omni.types import Capabilities, Span, Transcript

DATA = Path(__file__).parents[1] / "data"


def clip(
    pictures=(), sound=None, fps=10, container="mp4", codec="mpeg4", rotation=0, late_sound=0.0
) -> bytes:
    """A video of ``pictures`` (H, W, 3), one per frame, with ``sound`` at 16 kHz."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        video = audio = None
        if len(pictures):
            video = out.add_stream(codec, rate=fps)
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt = "yuv420p"
            video.bit_rate = 2_000_000
            if rotation:
                video.set_display_rotation(rotation)
        if sound is not None:
            audio = out.add_stream("aac", rate=16000, layout="mono")
        for i, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            out.mux(video.encode(frame))
        if video:
            out.mux(video.encode(None))
        if audio:
            frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            frame.sample_rate = 16000
            frame.pts, frame.time_base = int(late_sound * 16000), Fraction(1, 16000)
            out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
    return buffer.getvalue()


def grey(value: int) -> np.ndarray:
    return np.full((48, 64, 3), value, np.uint8)


def test_frames_are_sampled_at_even_steps() -> None:
    video = read_video(clip([grey(10 * i) for i in range(20)]), every=0.5)
    assert [frame.time for frame in video.frames] == pytest.approx([0, 0.5, 1.0, 1.5])
    means = [frame.pixels.mean() for frame in video.frames]
    np.testing.assert_allclose(means, [0, 50, 100, 150], atol=6)
    assert video.audio is None
    assert video.seconds == pytest.approx(1.9)


def test_times_are_on_the_clock_of_the_sound() -> None:
    sound = read_audio(DATA / "speech" / "france_slt.flac").pcm
    video = read_video(clip([grey(10 * i) for i in range(20)], sound, late_sound=0.5), every=0.5)
    assert video.audio is not None
    assert video.audio.seconds == pytest.approx(len(sound) / 16000, abs=0.15)
    # The sound begins with the second picture; what was before it is at its beginning.
    assert [frame.time for frame in video.frames] == pytest.approx([0, 0, 0.5, 1.0], abs=0.1)


def test_a_long_video_is_sampled_more_sparsely() -> None:
    video = read_video(clip([grey(100)] * 100), every=0.1, max_frames=8)
    steps = np.diff([frame.time for frame in video.frames])
    assert 4 <= len(video.frames) <= 8
    np.testing.assert_allclose(steps, 1.6, atol=0.01)


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_the_rotation_of_the_file_is_respected(rotation) -> None:
    pixels = grey(0)
    pixels[:, :32] = 255  # white on the left
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this version of av cannot write a rotation")
    [frame] = read_video(clip([pixels], rotation=rotation)).frames
    expected = np.rot90(pixels, rotation // 90)
    assert frame.pixels.shape == expected.shape
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 10


def test_large_frames_are_made_smaller() -> None:
    [frame] = read_video(clip([np.zeros((400, 2048, 3), np.uint8)])).frames
    assert frame.pixels.shape == (200, 1024, 3)


def test_a_recording_without_pictures_is_no_video() -> None:
    with pytest.raises(MediaError, match="no video track"):
        read_video(clip(sound=np.zeros(16000, np.float32)))


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(MediaError, match="empty"):
        read_video(b"")


def test_garbage_and_a_cut_off_file_are_refused() -> None:
    data = clip([grey(10 * i) for i in range(20)])
    for broken in (np.random.default_rng(0).bytes(4000), data[: len(data) // 2]):
        with pytest.raises(MediaError, match="damaged"):
            read_video(broken)


def test_broken_packets_are_refused() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(20)]
    data = bytearray(clip(noise))
    begin = data.index(b"mdat") + 8
    end = data.index(b"moov") - 8
    data[begin:end] = rng.bytes(end - begin)
    with pytest.raises(MediaError, match=r"damaged|without pictures"):
        read_video(bytes(data))


def test_a_video_that_is_too_long_is_refused() -> None:
    with pytest.raises(MediaError, match="the limit is 1 s"):
        read_video(clip([grey(0)] * 30), max_seconds=1)


class NamesBrightness:
    """Says whether a frame is dark or bright, with a different figure each time."""

    capabilities = Capabilities(inputs=frozenset({"image"}), bridge="text")

    def __init__(self) -> None:
        self._figures = itertools.count()

    def encode(self, frames):
        return [
            Span(
                "image",
                text=f"It is {'dark' if f.pixels.mean() < 128 else 'bright'} "
                f"({next(self._figures)}% sure).",
                times=(f.time, f.time),
            )
            for f in frames
        ]


class HearsWords:
    """Answers one sentence to anything that it is fed."""

    capabilities = Capabilities(inputs=frozenset({"audio"}), bridge="text", sample_rate=16000)

    def stream(self):
        return self

    def reset(self) -> None:
        self.fed = []

    def feed(self, chunk) -> None:
        self.fed.append(chunk)

    def transcribe(self, language=None):
        assert self.fed
        return Transcript("Hello.", "en", 1.0)


def test_what_is_seen_and_said_is_told_in_order_and_merged_when_unchanged() -> None:
    speech = read_audio(DATA / "speech" / "stop_michael.flac").pcm
    sound = np.concatenate([np.zeros(32000, np.float32), speech])
    video = read_video(clip([grey(20)] * 15 + [grey(230)] * 25, sound))
    spans = describe(video, NamesBrightness(), HearsWords())
    assert [span.modality for span in spans] == ["video", "video", "audio"]
    assert spans[0].times == pytest.approx((0.0, 1.5), abs=0.1)
    assert "dark" in spans[0].text
    assert "bright" in spans[1].text
    assert 'somebody says: "Hello."' in spans[2].text
    assert spans[2].times[0] == pytest.approx(2.0, abs=0.4)


@pytest.mark.e2e
def test_a_film_of_a_cat_with_a_voice_is_told_in_words() -> None:
    from encoders.audio import WhisperEncoder
    from encoders.image import EfficientNetEncoder
    from omni.weights import ensure

    cat = load_image(DATA / "photos" / "cat.jpg").pixels[:300, :450]
    speech = read_audio(DATA / "speech" / "france_michael.flac").pcm
    video = read_video(clip([cat] * 25, speech))
    spans = describe(
        video,
        EfficientNetEncoder(ensure("efficientnet-lite2")),
        WhisperEncoder(ensure("whisper-base")),
    )
    assert [span.modality for span in spans] in (["video", "audio"], ["audio", "video"])
    told = " ".join(span.text for span in spans)
    assert "cat" in told
    assert "What is the capital of France?" in told
