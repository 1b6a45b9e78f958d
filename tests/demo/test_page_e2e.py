"""The real page on the real server, in a real browser whose microphone plays a recording."""

import numpy as np
import pytest

from encoders.media import Resampler, read_audio, write_wav
from omni.types import AudioChunk
from support import DATA, chromium

pytestmark = pytest.mark.e2e


@pytest.fixture
def microphone(tmp_path):
    """A file that the browser takes for its microphone: silence, the question, silence."""
    clip = read_audio(DATA / "speech" / "france_slt.flac")
    resampler = Resampler(clip.sample_rate, 48_000)
    speech = np.concatenate([resampler.feed(clip.pcm), resampler.flush()])
    before, after = np.zeros(48_000 * 2, np.float32), np.zeros(48_000 * 30, np.float32)
    path = tmp_path / "microphone.wav"
    write_wav(path, AudioChunk(np.concatenate([before, speech, after]), 48_000))
    return path


@pytest.fixture
def page(server, microphone):
    with chromium(
        "--autoplay-policy=no-user-gesture-required",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
    ) as browser:
        page = browser.new_page()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server)
        page.wait_for_selector("#omni-talk:not([disabled])", timeout=30_000)
        yield page
        foreign = [u for u in asked if not u.startswith((server, "data:", "blob:"))]
        assert not foreign, "the page works without any other host"


def test_a_question_spoken_into_the_microphone_is_answered_on_the_page(page):
    page.click("#omni-talk")
    page.wait_for_function(
        "document.querySelector('#omni-log').innerText.includes('Paris')", timeout=40_000
    )
    page.wait_for_function(
        "document.querySelector('#omni-log').textContent.includes('first sound')", timeout=10_000
    )
    said = page.inner_text("#omni-log")
    assert "capital of France" in said
    assert said.index("capital of France") < said.index("Paris")


def test_a_picture_with_a_typed_question_is_named_on_the_page(page):
    page.set_input_files("#omni-file", str(DATA / "photos" / "cat.jpg"))
    page.fill("#omni-text", "What is this?")
    page.press("#omni-text", "Enter")
    page.wait_for_function(
        "/cat/i.test(document.querySelector('#omni-log').innerText)", timeout=40_000
    )
    assert page.locator("#omni-log img").count() == 1
