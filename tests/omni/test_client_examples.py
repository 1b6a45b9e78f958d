"""The examples run as they stand; against the real server where weights are needed to answer."""

import asyncio
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from realtime_fake import FakeRealtime, call, words

from omni.client import load_audio
from support import DATA

EXAMPLES = DATA.parent.parent / "examples"

# A sound library in the place of the real one: the microphone hears a tone now and then.
SOUNDDEVICE = """
import threading, time
class PortAudioError(Exception): pass
class Stream:
    latency = 0.0
    def __init__(self, **options):
        self.options, self.open = options, True
    def start(self):
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
    def close(self):
        self.open = False
        self.thread.join()
class RawInputStream(Stream):
    def run(self):
        while self.open:
            self.options["callback"](b"\\1\\2" * 960, 960, None, None)
            time.sleep(0.01)
class RawOutputStream(Stream):
    def run(self):
        while self.open:
            self.options["callback"](memoryview(bytearray(960)), 480, None, None)
            time.sleep(0.02)
"""


def run(name: str, *arguments: object, url: str, **environment: str) -> str:
    """What the example prints."""
    result = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments), "--url", url],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), **environment},
    )
    assert result.returncode == 0, result.stderr
    assert not result.stderr, result.stderr
    return result.stdout


@pytest.fixture
def clip(tmp_path) -> Path:
    """Two seconds of a cat."""
    from PIL import Image

    picture = Image.open(DATA / "photos" / "cat.jpg").convert("RGB").resize((320, 320))
    path = tmp_path / "cat.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 320
        for index in range(20):
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_every_example_is_tested_here():
    here = Path(__file__).read_text()
    for example in EXAMPLES.glob("*.py"):
        assert f'"{example.name}"' in here, example.name


async def test_a_question_is_printed_as_it_is_answered():
    server = FakeRealtime()
    server.answers = [[words("It is ", "Paris.")]]
    async with server.listening() as url:
        assert await asyncio.to_thread(run, "ask.py", "Capital?", url=url) == "It is Paris.\n"


async def test_functions_are_called():
    server = FakeRealtime()
    server.answers = [[call("add", a=1, b=2)], [words("Three.")]]
    async with server.listening() as url:
        said = await asyncio.to_thread(run, "tools.py", "1 + 2?", url=url)
    assert said == "add({'a': 1, 'b': 2}) -> 3.0\nThree.\n"


async def test_a_voice_loop_plays_answers_and_tells_what_was_heard_of_one(tmp_path):
    (tmp_path / "sounddevice.py").write_text(SOUNDDEVICE)
    server = FakeRealtime()
    server.answers = [[words("Hello.", sound=True), "wait"]]
    path = f"{tmp_path}{os.pathsep}{EXAMPLES.parent}"
    async with server.listening() as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", EXAMPLES / "voice_loop.py", "--url", url),
            env={**os.environ, "PYTHONPATH": path},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            await server.until("input_audio_buffer.append", 3)
            session = next(iter(server.sessions.values()))
            socket = server.sockets[0]
            await server.respond(socket, session, {})
            await server.tell(socket, "input_audio_buffer.speech_started", item_id="u")
            cut = await server.until("conversation.item.truncate")
            assert 0 <= cut["audio_end_ms"] <= 100
            transcript = {"item_id": "a", "transcript": "Hello."}
            await server.tell(socket, "response.output_audio_transcript.done", **transcript)
            assert await process.stdout.readline() == b"Speak; Ctrl-C ends.\n"
            assert await process.stdout.readline() == b"Omni: Hello.\n"
        finally:
            process.terminate()
            await process.wait()


def test_a_voice_loop_without_a_server_says_so(unused_tcp_port):
    result = subprocess.run(
        [sys.executable, EXAMPLES / "voice_loop.py", "--url", f"127.0.0.1:{unused_tcp_port}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
    )
    assert result.returncode == 1
    assert result.stderr.startswith("no server answers")


@pytest.mark.e2e
def test_a_question_is_answered_in_words_and_aloud(server, tmp_path):
    spoken = tmp_path / "answer.wav"
    said = run(
        *("ask.py", "What is the capital of France? Answer in one sentence.", "--speak", spoken),
        url=server,
    )
    assert "Paris" in said
    assert load_audio(spoken).seconds > 0.5


@pytest.mark.e2e
def test_a_recording_is_answered_in_sound(server, tmp_path, transcribe):
    spoken = tmp_path / "answer.wav"
    said = run("stream_file.py", DATA / "speech" / "france_slt.flac", spoken, url=server)
    assert "capital of France" in said
    assert "Paris" in said
    assert "Paris" in transcribe(load_audio(spoken))


@pytest.mark.e2e
def test_frames_of_a_clip_are_seen(server, clip):
    said = run("camera_frames.py", "What is this?", "--video", clip, "--every", 1, url=server)
    lines = said.splitlines()
    assert [line.split()[0] for line in lines] == ["0.0", "1.0"]
    assert re.search("cat|tabby", said, re.IGNORECASE)


@pytest.mark.e2e
def test_the_model_calls_a_function(server):
    said = run("tools.py", "What time is it in Tokyo?", url=server)
    assert "get_time({'time_zone': 'Asia/Tokyo'})" in said
