import io
import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import soxr
from PIL import Image

from encoders.media import Resampler, load_image, read_audio, wav_bytes, write_wav
from omni.errors import MediaError
from omni.types import AudioChunk

DATA = Path(__file__).parents[1] / "data"


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(
        np.float32
    )


def encoded(container: str, codec: str, rate: int, layout: str, seconds: float = 1.0) -> bytes:
    """A tone in the first channel and silence in the others."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        channels = len(av.AudioLayout(layout).channels)
        pcm = np.zeros((channels, int(seconds * rate)), np.float32)
        pcm[0] = tone(seconds, rate)
        frame = av.AudioFrame.from_ndarray(pcm, format="fltp", layout=layout)
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    return buffer.getvalue()


def level(pcm: np.ndarray) -> float:
    """Amplitude of the tone away from the edges."""
    middle = pcm[len(pcm) // 4 : 3 * len(pcm) // 4]
    return float(np.sqrt(2 * np.mean(middle**2)))


@pytest.mark.parametrize(
    ("container", "codec", "rate", "layout"),
    [
        ("wav", "pcm_s16le", 8000, "mono"),
        ("wav", "pcm_f32le", 44100, "stereo"),
        ("flac", "flac", 48000, "5.1"),
        ("mp3", "mp3", 44100, "stereo"),
        ("ogg", "libopus", 48000, "stereo"),
        ("webm", "libopus", 48000, "mono"),
        ("mp4", "aac", 44100, "mono"),
    ],
)
def test_any_container_and_channel_count_becomes_mono_16k(container, codec, rate, layout) -> None:
    chunk = read_audio(encoded(container, codec, rate, layout))
    channels = len(av.AudioLayout(layout).channels)
    assert chunk.sample_rate == 16000
    assert chunk.pcm.dtype == np.float32
    assert chunk.pcm.ndim == 1
    assert chunk.seconds == pytest.approx(1.0, abs=0.1)
    assert level(chunk.pcm) == pytest.approx(0.5 / channels, rel=0.15)


def test_a_recording_is_read_from_a_path_as_well() -> None:
    chunk = read_audio(DATA / "speech" / "france_slt.flac", sample_rate=8000)
    assert chunk.sample_rate == 8000
    assert 1.5 < chunk.seconds < 3


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(MediaError, match=r"cannot open 'gone.wav'"):
        read_audio(tmp_path / "gone.wav")


@pytest.mark.parametrize("read", [read_audio, load_image])
def test_an_empty_file_is_refused(read, tmp_path) -> None:
    empty = tmp_path / "empty.bin"
    empty.touch()
    with pytest.raises(MediaError, match="empty"):
        read(empty)
    with pytest.raises(MediaError, match="empty"):
        read(b"")


@pytest.mark.parametrize("read", [read_audio, load_image])
def test_garbage_is_refused(read) -> None:
    with pytest.raises(MediaError, match="damaged or not a"):
        read(np.random.default_rng(0).bytes(5000))


def test_a_file_without_sound_is_refused() -> None:
    with pytest.raises(MediaError, match="no sound track") as caught:
        read_audio((DATA / "photos" / "cat.jpg").read_bytes())
    assert caught.value.code == "no_audio"


def test_a_recording_without_samples_is_refused() -> None:
    with pytest.raises(MediaError, match="sound"):
        read_audio(wav_bytes(AudioChunk(np.zeros(0, np.float32), 16000)))


@pytest.mark.parametrize(
    ("container", "codec"), [("flac", "flac"), ("mp4", "aac"), ("webm", "libopus")]
)
def test_a_cut_off_recording_is_refused(container, codec) -> None:
    data = encoded(container, codec, 48000, "mono", 5.0)
    with pytest.raises(MediaError, match=r"cut off|damaged"):
        read_audio(data[: len(data) // 2])


def test_a_ten_hour_file_is_refused_by_its_header() -> None:
    data = bytearray(encoded("flac", "flac", 16000, "mono"))
    rate_and_total = int.from_bytes(data[18:26], "big")
    data[18:26] = (rate_and_total >> 36 << 36 | 10 * 3600 * 16000).to_bytes(8, "big")
    with pytest.raises(MediaError, match="36000 s; the limit is 3600 s") as caught:
        read_audio(bytes(data))
    assert caught.value.code == "too_long"


def test_a_file_with_no_stated_duration_is_refused_while_decoding() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm", options={"live": "1"}) as out:
        stream = out.add_stream("libopus", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(5, 48000)[None], format="fltp", layout="mono")
        frame.sample_rate = 48000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    assert read_audio(buffer.getvalue()).seconds == pytest.approx(5, abs=0.1)
    with pytest.raises(MediaError, match="limit is 2 s"):
        read_audio(buffer.getvalue(), max_seconds=2)


def test_a_playlist_does_not_make_it_read_other_files(tmp_path) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(encoded("mpegts", "aac", 16000, "mono"))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(playlist)
    with pytest.raises(MediaError):
        read_audio(tmp_path / "list.m3u8")
    with pytest.raises(MediaError):
        read_audio(playlist.encode())


@pytest.mark.parametrize(("in_rate", "out_rate"), [(24000, 16000), (16000, 24000), (8000, 16000)])
def test_streamed_resampling_equals_offline(in_rate, out_rate) -> None:
    pcm = np.random.default_rng(1).standard_normal(in_rate).astype(np.float32) * 0.1
    resampler = Resampler(in_rate, out_rate)
    for _ in range(2):  # a flushed resampler is as new
        pieces, position = [], 0
        for size in [1, 0, 7, 480, 960, 5000, in_rate]:
            pieces.append(resampler.feed(pcm[position : position + size]))
            position += size
        streamed = np.concatenate([*pieces, resampler.flush()])
        offline = soxr.resample(pcm, in_rate, out_rate, quality="HQ")
        np.testing.assert_allclose(streamed, offline, atol=1e-6)


def test_equal_rates_pass_through() -> None:
    resampler, pcm = Resampler(16000, 16000), tone(0.1, 16000)
    np.testing.assert_array_equal(resampler.feed(pcm), pcm)
    assert len(resampler.flush()) == 0


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(MediaError, match="positive"):
        Resampler(0, 16000)


def test_a_wav_file_holds_what_was_written(tmp_path) -> None:
    chunk = AudioChunk(tone(0.2, 24000), 24000)
    write_wav(tmp_path / "out.wav", chunk)
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (1, 24000, 2)
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    np.testing.assert_allclose(pcm, chunk.pcm, atol=1e-4)


def test_writing_where_no_folder_is_says_so(tmp_path) -> None:
    with pytest.raises(MediaError, match="cannot write"):
        write_wav(tmp_path / "no" / "out.wav", AudioChunk(tone(0.1, 16000), 16000))


def picture(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_any_format_that_pillow_reads_becomes_rgb(kind) -> None:
    frame = load_image(picture(Image.new("RGB", (40, 30), (200, 30, 30)), kind))
    assert frame.pixels.shape == (30, 40, 3)
    assert frame.pixels.dtype == np.uint8
    np.testing.assert_allclose(frame.pixels[15, 20], (200, 30, 30), atol=8)


def test_the_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (40, 20), "white")
    image.paste("black", (0, 0, 20, 20))  # black on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    pixels = load_image(picture(image, "JPEG", exif=exif)).pixels
    assert pixels.shape == (40, 20, 3)
    assert pixels[5].mean() < 20
    assert pixels[-5].mean() > 235


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_over_white(mode) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)
    options = {"transparency": image.getpixel((0, 0))} if mode == "P" else {}
    assert (load_image(picture(image, "PNG", **options)).pixels == 255).all()


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "I;16", "F"])
def test_other_modes_keep_their_brightness(mode) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    else:
        image = Image.new("L", (8, 8), 255 if mode == "1" else 128).convert(mode)
    kind = "TIFF" if mode in ("CMYK", "F") else "PNG"
    expected = 255 if mode == "1" else 128
    assert load_image(picture(image, kind)).pixels.mean() == pytest.approx(expected, abs=2)


def test_an_image_bomb_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        import zlib

        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    for side in (8000, 12000, 60000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        bomb = (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", b"")
            + chunk(b"IEND", b"")
        )
        with pytest.raises(MediaError, match="pixels; the limit is") as caught:
            load_image(bomb)
        assert caught.value.code == "too_large"


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(MediaError, match="the limit for a picture is 100"):
        load_image((DATA / "photos" / "cat.jpg").read_bytes(), max_bytes=100)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_cut_off_picture_is_refused(kind) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = picture(Image.fromarray(noise), kind)
    with pytest.raises(MediaError, match="damaged"):
        load_image(data[: len(data) // 2])


def test_a_large_picture_is_made_smaller() -> None:
    frame = load_image(picture(Image.new("RGB", (3000, 1500)), "PNG"), max_side=300)
    assert frame.pixels.shape == (150, 300, 3)
