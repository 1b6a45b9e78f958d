"""The microphone and the speaker, with a sound library that is played by the test."""

import asyncio
import builtins
import sys
import types

import numpy as np
import pytest

from omni.client.devices import Microphone, Position, Speaker
from omni.errors import MediaError, MissingExtraError
from omni.types import AudioChunk


class FakeStream:
    def __init__(self, **options):
        self.options = options
        self.latency = 0.1
        self.state = "made"

    def start(self):
        self.state = "running"

    def close(self):
        self.state = "closed"

    def hear(self, pcm: np.ndarray) -> None:
        self.options["callback"](pcm.astype("<i2").tobytes(), len(pcm), None, None)

    def ask_for(self, frames: int) -> np.ndarray:
        out = bytearray(b"\x01" * frames * 2)
        self.options["callback"](memoryview(out), frames, None, None)
        return np.frombuffer(bytes(out), "<i2")


class PortAudioError(Exception):
    pass


@pytest.fixture
def sounddevice(monkeypatch):
    """A module in the place of sounddevice; its streams are in ``made``."""
    fake = types.ModuleType("sounddevice")
    fake.made = []

    def make(**options):
        if options["device"] == "missing":
            raise ValueError("No input device matching 'missing'")
        if options["device"] == "busy":
            raise PortAudioError("Device unavailable")
        fake.made.append(FakeStream(**options))
        return fake.made[-1]

    fake.RawInputStream = fake.RawOutputStream = make
    fake.PortAudioError = PortAudioError
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def sound(samples: int, value: float = 0.5) -> AudioChunk:
    return AudioChunk(np.full(samples, value, np.float32), 24_000)


async def test_the_microphone_gives_what_it_hears_at_24_khz_until_it_is_left(sounddevice):
    heard = []
    async with Microphone() as microphone:
        (stream,) = sounddevice.made
        assert stream.state == "running"
        assert (stream.options["samplerate"], stream.options["channels"]) == (24_000, 1)
        for value in (100, 200):
            await asyncio.to_thread(stream.hear, np.full(960, value))

        async def listen():
            async for chunk in microphone:
                heard.append(chunk)

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0.01)
    await asyncio.wait_for(listening, 5)
    assert stream.state == "closed"
    assert [round(float(chunk.pcm[0]) * 32768) for chunk in heard] == [100, 200]
    assert all((chunk.sample_rate, len(chunk.pcm)) == (24_000, 960) for chunk in heard)


async def test_sound_that_nobody_takes_is_dropped_the_oldest_first(sounddevice):
    async with Microphone() as microphone:
        for value in range(60):
            sounddevice.made[0].hear(np.full(960, value))
        await asyncio.sleep(0.01)
        assert microphone.dropped == pytest.approx(10 * 0.04)
        assert round(float((await anext(microphone)).pcm[0]) * 32768) == 10


async def test_the_speaker_plays_in_order_and_is_silent_when_it_has_nothing(sounddevice):
    async with Speaker() as speaker:
        (stream,) = sounddevice.made
        speaker.play(sound(100, 0.25), "a")
        speaker.play(sound(100, 0.5), "a")
        speaker.play(sound(50, 0.75), "b")
        out = np.concatenate([stream.ask_for(150), stream.ask_for(150)])
    assert stream.state == "closed"
    levels = np.round(out / 32767, 2)
    np.testing.assert_array_equal(levels, [0.25] * 100 + [0.5] * 100 + [0.75] * 50 + [0] * 50)


async def test_the_speaker_knows_what_was_heard_of_an_item(sounddevice):
    async with Speaker() as speaker:
        stream = sounddevice.made[0]
        assert speaker.position is None
        speaker.play(sound(12_000), "a")
        speaker.play(sound(24_000), "b")
        stream.ask_for(12_000 + 7_200)
        # 300 ms of b left for the device; 100 ms of it are still on their way to the ear
        assert speaker.clear() == Position("b", 200, 700)
        assert not stream.ask_for(100).any()
        assert speaker.clear() is None


async def test_an_item_dropped_before_its_first_sample_was_not_heard(sounddevice):
    async with Speaker() as speaker:
        speaker.play(sound(2400), "a")
        sounddevice.made[0].ask_for(2400)
        speaker.play(sound(2400), "b")
        assert speaker.position == Position("b", 0, 100)


async def test_draining_waits_for_the_last_sample(sounddevice):
    async with Speaker() as speaker:
        speaker.play(sound(100))
        draining = asyncio.create_task(speaker.drain())
        await asyncio.sleep(0.1)
        assert not draining.done()
        sounddevice.made[0].ask_for(100)
        await asyncio.wait_for(draining, 5)


async def test_sound_at_another_rate_is_refused(sounddevice):
    async with Speaker() as speaker:
        with pytest.raises(MediaError, match="16000 Hz; the speaker plays 24000"):
            speaker.play(AudioChunk(np.zeros(10, np.float32), 16_000))


@pytest.mark.parametrize("device", ["missing", "busy"])
@pytest.mark.parametrize(("kind", "name"), [(Microphone, "microphone"), (Speaker, "speaker")])
async def test_a_device_that_cannot_be_opened_is_explained(sounddevice, device, kind, name):
    with pytest.raises(MediaError, match=f"the {name} cannot be opened .*sounddevice` lists"):
        async with kind(device):
            pass


async def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtraError, match=r"omni-assistant\[audio\]"):
        async with Microphone():
            pass


async def test_without_portaudio_the_error_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args):
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return real(name, *args)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr("omni.client.devices.importlib.import_module", refuse)
    with pytest.raises(MissingExtraError, match="libportaudio2"):
        async with Speaker():
            pass
