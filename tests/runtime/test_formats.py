import av
import numpy as np
import pytest

from omni.errors import InputError
from omni.types import AudioChunk
from runtime.formats import FORMATS, SPEECH_RATE, SpeechEncoder, WireFormat

LAWS = [("audio/pcmu", "pcm_mulaw"), ("audio/pcma", "pcm_alaw")]


def tone(seconds=1.0, hertz=440, rate=SPEECH_RATE, loudness=0.5):
    time = np.arange(int(seconds * rate)) / rate
    return (loudness * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def in_ffmpeg(codec: str, samples: np.ndarray) -> np.ndarray:
    encoder = av.CodecContext.create(codec, "w")
    encoder.sample_rate, encoder.layout, encoder.format = 8000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return np.frombuffer(b"".join(bytes(packet) for packet in packets), np.uint8)


def out_of_ffmpeg(codec: str, data: bytes) -> np.ndarray:
    decoder = av.CodecContext.create(codec, "r")
    decoder.sample_rate, decoder.layout = 8000, "mono"
    frames = decoder.decode(av.Packet(data))
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


@pytest.mark.parametrize(
    ("value", "name", "rate"),
    [
        (None, "audio/pcm", 24_000),
        ({}, "audio/pcm", 24_000),
        ({"type": "audio/pcm"}, "audio/pcm", 24_000),
        ({"type": "audio/pcm", "rate": 24_000}, "audio/pcm", 24_000),
        ({"type": "audio/pcmu"}, "audio/pcmu", 8_000),
        ({"type": "audio/pcma", "rate": None}, "audio/pcma", 8_000),
    ],
)
def test_the_formats_of_the_protocol_are_known_and_named_back(value, name, rate):
    wire = WireFormat.of(value)
    assert (wire.name, wire.rate) == (name, rate)
    assert WireFormat.of(wire.wire) == wire


@pytest.mark.parametrize(
    ("value", "param", "words"),
    [
        ("g711_ulaw", "in.format", "must be an object"),
        (["audio/pcm"], "in.format", "must be an object"),
        ({"type": "audio/opus"}, "in.format.type", "audio/pcmu"),
        ({"type": 7}, "in.format.type", "audio/pcm"),
        ({"type": ["audio/pcm"]}, "in.format.type", "audio/pcm"),
        ({"type": "audio/pcm", "rate": 16_000}, "in.format.rate", "24000"),
        ({"type": "audio/pcmu", "rate": 24_000}, "in.format.rate", "8000"),
        ({"type": "audio/pcm", "rate": "24000"}, "in.format.rate", "24000"),
    ],
)
def test_an_unknown_format_is_refused_by_the_name_of_the_field(value, param, words):
    with pytest.raises(InputError, match=words) as caught:
        WireFormat.of(value, "in.format")
    assert (caught.value.param, caught.value.code) == (param, "unsupported_format")


def test_a_field_that_no_format_has_is_refused():
    with pytest.raises(InputError, match=r"in\.format\.channels"):
        WireFormat.of({"type": "audio/pcm", "channels": 2}, "in.format")


@pytest.mark.parametrize(("name", "codec"), LAWS)
def test_every_byte_of_g711_decodes_as_in_ffmpeg(name, codec):
    data = bytes(range(256))
    chunk = FORMATS[name].decode(data)
    assert chunk.sample_rate == 8_000
    assert (chunk.pcm * 32768).tolist() == out_of_ffmpeg(codec, data).tolist()


@pytest.mark.parametrize(("name", "codec"), LAWS)
def test_every_sample_is_encoded_by_the_nearest_value_and_as_in_ffmpeg(name, codec):
    wire = FORMATS[name]
    samples = np.arange(-32768, 32768)
    data = wire.encode(AudioChunk((samples / 32768).astype(np.float32), 8_000))
    values = wire.decode(bytes(range(256))).pcm * 32768
    heard = wire.decode(data).pcm * 32768
    nearest = np.abs(samples[:, None] - values[None]).min(axis=1)
    assert np.array_equal(np.abs(samples - heard), nearest)
    # FFmpeg drops the last two bits first, so that it rounds some samples up to 3 further away.
    theirs = values[in_ffmpeg(codec, samples.astype(np.int16))]
    assert np.all(np.abs(samples - theirs) - nearest <= 6)
    assert np.mean(theirs == heard) > 0.98


@pytest.mark.parametrize("name", ["audio/pcmu", "audio/pcma"])
def test_what_was_decoded_is_encoded_as_it_came(name):
    wire = FORMATS[name]
    data = bytes(range(256))
    again = wire.encode(wire.decode(data))
    # Mu-law has a negative zero; both zeros are silence.
    assert [a for a, b in zip(data, again, strict=True) if a != b] in ([], [0x7F])


def test_silence_is_the_byte_that_telephones_send():
    silence = AudioChunk(np.zeros(8, np.float32), 8_000)
    assert FORMATS["audio/pcmu"].encode(silence) == b"\xff" * 8
    assert FORMATS["audio/pcma"].encode(silence) == b"\xd5" * 8


def test_every_pcm_sample_survives_the_way_there_and_back():
    wire = WireFormat()
    data = np.arange(-32768, 32768).astype("<i2").tobytes()
    assert wire.encode(wire.decode(data)) == data


def test_what_is_too_loud_is_clipped_and_does_not_wrap_around():
    loud = AudioChunk(np.array([1.5, -1.5], np.float32), 24_000)
    assert np.frombuffer(WireFormat().encode(loud), "<i2").tolist() == [32767, -32768]
    loud = AudioChunk(loud.pcm, 8_000)
    assert FORMATS["audio/pcmu"].encode(loud) == b"\x80\x00"


def test_half_a_sample_is_refused_and_no_sound_is_no_error():
    with pytest.raises(InputError, match="3 bytes") as caught:
        WireFormat().decode(b"abc", "audio")
    assert (caught.value.param, caught.value.code) == ("audio", "invalid_audio")
    assert len(WireFormat().decode(b"").pcm) == 0
    assert len(FORMATS["audio/pcmu"].decode(b"abc").pcm) == 3


@pytest.mark.parametrize("name", ["audio/pcm", "audio/pcmu", "audio/pcma"])
def test_an_answer_in_chunks_is_the_answer_at_once_to_the_last_sample(name):
    wire, speech = FORMATS[name], tone(1.234)
    whole = SpeechEncoder(wire)
    expected = whole.encode(AudioChunk(speech, SPEECH_RATE)) + whole.flush()
    encoder, pieces = SpeechEncoder(wire), b""
    for begin in range(0, len(speech), 700):
        pieces += encoder.encode(AudioChunk(speech[begin : begin + 700], SPEECH_RATE))
    assert pieces + encoder.flush() == expected
    assert len(expected) == pytest.approx(1.234 * wire.rate * wire.width, abs=wire.width)
    assert encoder.flush() == b""


@pytest.mark.parametrize("name", ["audio/pcmu", "audio/pcma"])
def test_a_tone_sounds_the_same_over_the_telephone_and_one_above_its_band_is_silent(name):
    def over_the_telephone(hertz):
        encoder = SpeechEncoder(FORMATS[name])
        data = encoder.encode(AudioChunk(tone(hertz=hertz), SPEECH_RATE)) + encoder.flush()
        return FORMATS[name].decode(data).pcm

    heard = over_the_telephone(440)
    assert np.abs(heard - tone(rate=8_000))[100:-100].max() < 0.03
    assert np.abs(over_the_telephone(6_000))[200:-200].max() < 0.01


def test_one_answer_leaves_nothing_to_the_next():
    encoder = SpeechEncoder(FORMATS["audio/pcmu"])
    first = encoder.encode(AudioChunk(tone(), SPEECH_RATE)) + encoder.flush()
    assert encoder.encode(AudioChunk(tone(), SPEECH_RATE)) + encoder.flush() == first


def test_sound_at_another_rate_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="24000 Hz"):
        SpeechEncoder(WireFormat()).encode(AudioChunk(tone(), 16_000))
