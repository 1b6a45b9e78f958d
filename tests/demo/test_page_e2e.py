"""The real page on the real server, in a real browser with recordings for microphone and camera."""

import base64
import contextlib
import io
import re

import numpy as np
import pytest
from PIL import Image

from encoders.media import Resampler, read_audio, write_wav
from omni.data.describe import COLOURS
from omni.types import AudioChunk
from support import DATA, chromium

pytestmark = pytest.mark.e2e

RATE = 24_000
# Keeps what goes to the speaker; the microphone's context has another rate.
LISTEN = """
  window.played = [];
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (target, ...rest) {
    if (target instanceof AudioDestinationNode && this.context.sampleRate === 24000) {
      const tap = this.context.createScriptProcessor(2048, 1, 1);
      tap.onaudioprocess = ({ inputBuffer }) =>
        window.played.push(inputBuffer.getChannelData(0).slice());
      connect.call(this, tap);
      connect.call(tap, target);
    }
    return connect.call(this, target, ...rest);
  };
"""
HEARD = """() => {
  const all = window.played.flatMap((piece) => [...piece]);
  const bytes = new Uint8Array(Float32Array.from(all).buffer);
  let text = '';
  for (let i = 0; i < bytes.length; i += 8192) {
    text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  }
  return btoa(text);
}"""


def recording(path, name, before=2.0):
    """A file that the browser takes for its microphone: silence, speech, silence."""
    clip = read_audio(DATA / "speech" / f"{name}.flac")
    resampler = Resampler(clip.sample_rate, 48_000)
    speech = np.concatenate([resampler.feed(clip.pcm), resampler.flush()])
    silence = np.zeros(int(48_000 * before), np.float32), np.zeros(48_000 * 60, np.float32)
    write_wav(path, AudioChunk(np.concatenate([silence[0], speech, silence[1]]), 48_000))
    return path


def filmed(path, name):
    """A photo as a film that the browser takes for its camera."""
    photo = Image.open(DATA / "photos" / f"{name}.jpg").convert("RGB")
    photo.thumbnail((640, 480))
    canvas = Image.new("RGB", (640, 480), "gray")
    canvas.paste(photo, ((640 - photo.width) // 2, (480 - photo.height) // 2))
    y, *colours = canvas.convert("YCbCr").split()
    planes = [y, *(plane.resize((320, 240)) for plane in colours)]
    frame = b"FRAME\n" + b"".join(np.asarray(plane).tobytes() for plane in planes)
    path.write_bytes(b"YUV4MPEG2 W640 H480 F5:1 Ip A1:1 C420jpeg\n" + 5 * frame)
    return path


@contextlib.contextmanager
def opened(url, microphone=None, camera=None, settings="{}"):
    flags = [f"--use-file-for-fake-audio-capture={microphone}%noloop"] if microphone else []
    flags += [f"--use-file-for-fake-video-capture={camera}"] if camera else []
    with chromium("--autoplay-policy=no-user-gesture-required", *flags) as browser:
        page = browser.new_context().new_page()
        asked, problems = [], []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.add_init_script(LISTEN)
        page.add_init_script(f"localStorage.setItem('omni-settings', '{settings}')")
        page.goto(url)
        page.wait_for_selector("#omni-talk:not([disabled])", timeout=30_000)
        yield page
        assert problems == []
        foreign = [one for one in asked if not one.startswith((url, "data:", "blob:"))]
        assert not foreign, "the page works without any other host"


def heard(page):
    """What came out of the speaker, without the silence around it."""
    pcm = np.frombuffer(base64.b64decode(page.evaluate(HEARD)), "<f4")
    (loud,) = np.nonzero(np.abs(pcm) > 0.01)
    assert len(loud), "nothing was heard"
    return AudioChunk(pcm[max(0, loud[0] - RATE // 5) : loud[-1] + RATE // 5].copy(), RATE)


def until_said(page, pattern, seconds=60):
    page.wait_for_function(
        "([pattern]) => [...document.querySelectorAll('.omni-assistant .omni-words')]"
        ".some((one) => new RegExp(pattern, 'i').test(one.innerText))",
        arg=[pattern],
        timeout=seconds * 1000,
    )


def until_silent(page):
    page.wait_for_selector("#omni:is([data-state=listening], [data-state=ready])", timeout=60_000)
    page.wait_for_timeout(500)


def words(text):
    return re.findall(r"\w+", text.lower())


def test_a_spoken_question_is_heard_and_its_answer_comes_out_of_the_speaker(
    server, tmp_path, transcribe
):
    with opened(server, recording(tmp_path / "microphone.wav", "france_slt")) as page:
        page.click("#omni-talk")
        until_said(page, "Paris")
        said = page.inner_text("#omni-log")
        assert "capital of France" in said
        assert said.index("capital of France") < said.index("Paris")
        until_silent(page)
        spoken = transcribe(heard(page), "en")
        (one,) = page.evaluate("omniPage.measurements")
    assert "Paris" in spoken
    # Between the server's first sound and the ear there are a network and two buffers.
    assert 0 < one["heard"] - one["timings"]["first_audio"] <= 150


def test_who_speaks_into_an_answer_silences_it_and_the_rest_is_forgotten(
    server, tmp_path, transcribe
):
    microphone = recording(tmp_path / "microphone.wav", "stop_michael", before=4.0)
    story = '{"instructions": "You are a teller of long stories."}'
    with opened(server, microphone, settings=story) as page:
        page.fill("#omni-text", "Tell me a long story about a fox, a crow and a cat.")
        page.press("#omni-text", "Enter")
        page.wait_for_selector("#omni[data-state=speaking]", timeout=60_000)
        page.click("#omni-talk")
        page.wait_for_selector(".omni-is-cut", timeout=60_000)
        kept = page.locator(".omni-is-cut .omni-words").inner_text()
        spoken = transcribe(heard(page), "en")
        page.wait_for_timeout(300)
        assert not np.any(np.abs(last_second(page)[-RATE // 5 :]) > 0.01), "it is silent"
    assert kept.endswith(" …")
    assert len(words(kept)) == pytest.approx(len(words(spoken)), abs=5)
    assert words(kept)[:3] == words(spoken)[:3]


def last_second(page):
    pcm = np.frombuffer(base64.b64decode(page.evaluate(HEARD)), "<f4")
    return pcm[-RATE:]


def test_what_the_camera_shows_is_named(server, tmp_path):
    microphone = recording(tmp_path / "microphone.wav", "picture_emma")
    with opened(server, microphone, filmed(tmp_path / "camera.y4m", "cat")) as page:
        page.click("#omni-show")
        page.wait_for_function("document.querySelector('#omni-video').videoWidth > 0")
        page.click("#omni-talk")
        until_said(page, r"\bcat\b")
        assert page.locator(".omni-user img").count() == 1


def test_two_tabs_are_two_conversations(server):
    with opened(server) as page:
        other = page.context.new_page()
        other.goto(server)
        tabs = {"France": (page, "Paris"), "Italy": (other, "Rome")}
        for country, (tab, _) in tabs.items():
            tab.fill("#omni-text", f"What is the capital of {country}?")
            tab.click("#omni-send:enabled")
        for tab, capital in tabs.values():
            until_said(tab, capital)
            assert tab.locator(".omni-user").count() == tab.locator(".omni-assistant").count() == 1


def test_a_picture_with_a_typed_question_is_named_on_the_page(server):
    with opened(server) as page:
        page.set_input_files("#omni-file", str(DATA / "photos" / "cat.jpg"))
        page.fill("#omni-text", "What is this?")
        page.click("#omni-send:enabled")
        until_said(page, r"\bcat\b")
        assert page.locator("#omni-log img").count() == 1


def test_a_recording_that_is_attached_is_understood(server):
    with opened(server) as page:
        page.set_input_files("#omni-file", str(DATA / "speech" / "france_michael.flac"))
        page.click("#omni-send:enabled")
        until_said(page, "Paris")


def test_what_is_said_while_the_button_is_held_is_answered(server, tmp_path):
    microphone = recording(tmp_path / "microphone.wav", "sum_rms", before=0.5)
    with opened(server, microphone, settings='{"turns": "turns_push"}') as page:
        page.hover("#omni-talk")
        page.mouse.down()
        page.wait_for_timeout(5000)
        page.mouse.up()
        until_said(page, r"56|fifty-six")


def test_a_spoken_wish_is_drawn_and_changed(server, tmp_path):
    with opened(server, recording(tmp_path / "microphone.wav", "star_slt")) as page:
        page.evaluate(FORMS)
        page.click("#omni-talk")
        finished = ".omni-picture figure img[data-t-alt=pictureMade]"
        page.wait_for_selector(finished, timeout=60_000)
        page.fill("#omni-text", "Now make it blue.")
        page.press("#omni-text", "Enter")
        page.wait_for_function(
            "(one) => document.querySelectorAll(one).length === 2", arg=finished, timeout=60_000
        )
        made = [image.get_attribute("src") for image in page.query_selector_all(finished)]
        versions = page.evaluate("window.forms.length")
        said = page.inner_text("#omni-log")
    assert "yellow star" in said
    assert "blue star" in said
    # What is asked for stands in the middle, on white.
    assert [nearest_colour(url) for url in made] == ["yellow", "blue"]
    assert versions == 8, "three coarse versions before each picture"


# Every version that an image was given. Of a thing that it is sure of, the first is like the last.
FORMS = """() => {
  window.forms = [];
  const { set } = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");
  Object.defineProperty(HTMLImageElement.prototype, "src", {
    ...Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src"),
    set(url) { window.forms.push(url); set.call(this, url); },
  });
}"""


def nearest_colour(url):
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    assert picture.size == (256, 256)
    assert min(picture.getpixel((4, 4))) > 230
    middle = np.median(np.asarray(picture)[108:148, 108:148].reshape(-1, 3), axis=0)
    return min(COLOURS, key=lambda name: np.abs(middle - COLOURS[name]).sum())
