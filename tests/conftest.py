"""What the tests share: the real server, started once, on the default weights."""

import numpy as np
import pytest

from support import start_server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """URL of a running server with the page and the default models."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    process, url = start_server(log, "--ui")
    yield url
    process.terminate()
    code = process.wait(timeout=30)
    said = log.read_text()
    assert "Traceback" not in said, said
    assert code in (0, -15), said


@pytest.fixture(scope="session")
def transcribe():
    """What Whisper hears in an `AudioChunk`: how tests listen to speech."""
    from encoders.audio import WhisperEncoder
    from encoders.media import Resampler
    from omni.types import AudioChunk
    from omni.weights import ensure

    encoder = WhisperEncoder(ensure("whisper-base"))

    def listen(chunk: AudioChunk, language: str | None = None) -> str:
        if chunk.sample_rate != 16_000:
            resampler = Resampler(chunk.sample_rate, 16_000)
            pcm = np.concatenate([resampler.feed(chunk.pcm), resampler.flush()])
            chunk = AudioChunk(pcm, 16_000)
        return encoder.transcribe(chunk, language).text

    return listen
