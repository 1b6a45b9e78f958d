"""The page: what HTTP serves, and how it behaves in a real browser before a scripted server.

The browser tests need the playwright package and a Chromium; without them they are skipped.
"""

import asyncio
import base64
import contextlib
import io
import os
import re
import threading
import time
import wave
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.testclient import TestClient
from PIL import Image

from demo.app import STATIC, mount
from support import chromium, free_port

RATE = 24000
QUESTION = "What is the capital of France?"
ANSWER = ["The capital ", "of France ", "is Paris, ", "a city on ", "the Seine."]
ANSWER_SECONDS = 4.0
STAGES = {"silence": 110.0, "turn_end": 260.0, "transcript": 310.0, "first_token": 480.0}
TIMINGS = {"speech_end": 0.0, **STAGES, "first_clause": 600.0, "first_audio": 640.0}


class ScriptedServer:
    """A part of the Realtime API: turns by loudness, always the same answer."""

    def __init__(self) -> None:
        self.received: list[dict] = []
        self.heard = bytearray()
        self.close_with: tuple[int, str] | None = None
        self.paused = False
        self.sessions = 0
        self.app = FastAPI()
        self.app.websocket("/v1/realtime")(self.talk)
        self.status = "ready"
        self.waits = False
        self.app.get("/health")(lambda: {"status": self.status, "model": "scripted"})
        mount(self.app)

    async def talk(self, ws: WebSocket) -> None:
        while self.waits:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.02)
        await ws.accept()
        self.sessions += 1
        if self.close_with:
            await ws.close(*self.close_with)
            return
        self.ws, self.turns, self.quiet, self.turn, self.response = ws, 0, 0.0, None, None
        self.loop = asyncio.get_running_loop()
        await self.tell("session.created", session={"id": "sess", "type": "realtime"})
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                event = await ws.receive_json()
                if event["type"] == "input_audio_buffer.append":
                    await self.listen(base64.b64decode(event["audio"]))
                    continue
                self.received.append(event)
                if event["type"] == "response.create":
                    await self.respond(item="typed")
                if event["type"] == "response.cancel":
                    await self.finish("cancelled")

    async def tell(self, kind: str, **fields: object) -> None:
        await self.ws.send_json({"type": kind, **fields})

    async def listen(self, pcm: bytes) -> None:
        self.heard += pcm
        samples = np.frombuffer(pcm, "<i2").astype("f4") / 32768
        loud = np.sqrt((samples**2).mean()) > 0.02
        self.quiet = 0.0 if loud else self.quiet + len(samples) / RATE
        if loud and self.turn is None:
            self.turns += 1
            self.turn = f"user_{self.turns}"
            await self.tell("input_audio_buffer.speech_started", item_id=self.turn)
            if self.response:
                await self.finish("cancelled")
        elif self.turn and self.quiet > 0.4:
            item, self.turn = self.turn, None
            await self.tell("input_audio_buffer.speech_stopped", item_id=item)
            await asyncio.sleep(0.05)
            await self.tell("input_audio_buffer.committed", item_id=item)
            prefix = "conversation.item.input_audio_transcription."
            await self.tell(prefix + "delta", item_id=item, delta="What is ")
            await self.tell(prefix + "completed", item_id=item, transcript=QUESTION)
            await self.respond(item)

    async def respond(self, item: str) -> None:
        self.response = f"resp_{len(self.received)}_{item}"
        self.answer = f"answer_{len(self.received)}_{item}"
        ids = {"response_id": self.response, "item_id": self.answer}
        await self.tell("response.created", response={"id": self.response})
        message = {"id": self.answer, "type": "message", "role": "assistant"}
        await self.tell("response.output_item.added", response_id=self.response, item=message)
        if self.paused:
            return
        for words in ANSWER:
            await self.tell("response.output_audio_transcript.delta", delta=words, **ids)
        tone = 0.3 * np.sin(2 * np.pi * 330 * np.arange(int(RATE * ANSWER_SECONDS)) / RATE)
        pcm = (tone * 32767).astype("<i2").tobytes()
        for begin in range(0, len(pcm), 9600):
            delta = base64.b64encode(pcm[begin : begin + 9600]).decode()
            await self.tell("response.output_audio.delta", delta=delta, **ids)
        await self.finish("completed")

    async def finish(self, status: str) -> None:
        done = {"id": self.response, "status": status, "output": [{"id": self.answer}]}
        self.response = None
        await self.tell("response.done", response=done | {"timings": TIMINGS})

    def of_type(self, kind: str) -> list[dict]:
        return [event for event in list(self.received) if event["type"] == kind]

    def until(self, kind: str, count: int = 1, seconds: float = 10) -> dict:
        deadline = time.monotonic() + seconds
        while len(self.of_type(kind)) < count:
            assert time.monotonic() < deadline, f"no {kind} in {seconds} s"
            time.sleep(0.02)
        return self.of_type(kind)[count - 1]


# --- HTTP --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def http():
    with TestClient(ScriptedServer().app) as client:
        yield client


def test_the_page_loads_and_brings_its_own_script_and_style(http):
    page = http.get("/")
    assert page.status_code == 200
    assert "/static/omni/omni.js" in page.text
    assert "/static/omni/omni.css" in page.text


@pytest.mark.parametrize("name", sorted(path.name for path in STATIC.iterdir()))
def test_every_file_is_served_with_its_type_and_checked_again_each_time(http, name):
    answer = http.get(f"/static/omni/{name}")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"
    expected = {".js": "application/javascript", ".css": "text/css", ".html": "text/html"}
    assert answer.headers["content-type"].startswith(expected[Path(name).suffix])


def test_the_page_names_no_other_host_to_load_from(http):
    loads = re.compile(
        r"""(?:\b(?:src|href)=|url\(|@import|from)\s*["']?(?:https?:)?//([^/"')\s]+)"""
    )
    for path in ("/", *(f"/static/omni/{file.name}" for file in STATIC.iterdir()), "/theme.css"):
        assert loads.findall(http.get(path).text) == [], path


def test_routes_made_before_the_page_stay_reachable(http):
    assert http.get("/health").json()["status"] == "ready"


def test_the_page_can_be_mounted_under_another_path():
    app = FastAPI()
    mount(app, "/talk")
    with TestClient(app) as client:
        assert "/static/omni/omni.js" in client.get("/talk/").text


# --- in a browser --------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(app: FastAPI, port: int):
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="error", ws="websockets-sansio")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://localhost:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def question(tmp_path_factory) -> Path:
    """Half a second of silence, 1.2 s of a tone, 1.8 s of silence: it repeats in the browser."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(1.2 * 48000)) / 48000)
    sound = np.concatenate([np.zeros(24000), tone, np.zeros(int(1.8 * 48000))])
    path = tmp_path_factory.mktemp("sound") / "question.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def browser(question):
    with chromium(f"--use-file-for-fake-audio-capture={question}") as browser:
        yield browser


@pytest.fixture
def server():
    scripted = ScriptedServer()
    with serving(scripted.app, free_port()) as url:
        scripted.url = url
        yield scripted


@pytest.fixture
def page(browser, server):
    context = browser.new_context(permissions=["microphone", "camera"])
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.hosts = set()
    page.on("request", lambda request: page.hosts.add(urlsplit(request.url).hostname))
    page.goto(server.url)
    wait_for_state(page, "ready")
    yield page
    context.close()
    assert page.problems == []


def wait_for_state(page, *states: str, seconds: float = 15) -> None:
    css = ", ".join(f'#omni[data-state="{state}"]' for state in states)
    page.wait_for_selector(css, timeout=seconds * 1000)


def entries(page, role: str):
    return page.locator(f".omni-{role}")


def test_nothing_is_requested_from_another_host(page):
    page.wait_for_load_state("networkidle")
    assert page.hosts <= {"localhost", None}


def test_a_typed_question_is_shown_answered_aloud_and_timed(page, server):
    box = page.get_by_label("Type a question")
    assert page.get_by_role("button", name="Send").is_disabled()
    box.fill(QUESTION)
    box.press("Enter")
    wait_for_state(page, "speaking")
    assert box.input_value() == ""
    item = server.until("conversation.item.create")["item"]
    assert item["content"] == [{"type": "input_text", "text": QUESTION}]
    answer = entries(page, "assistant").last
    assert answer.locator(".omni-words").inner_text() == "".join(ANSWER)
    assert "answered after 0.64 s" in answer.inner_text()
    assert "first word 0.48 s" in answer.inner_text()
    wait_for_state(page, "ready", seconds=ANSWER_SECONDS + 5)


def test_talking_is_heard_at_24_khz_answered_and_interrupted_where_it_was_heard(page, server):
    page.get_by_role("button", name="Talk").click()
    wait_for_state(page, "listening", "hearing")
    wait_for_state(page, "speaking")
    assert entries(page, "user").first.locator(".omni-words").inner_text() == QUESTION
    spectrum = np.abs(np.fft.rfft(np.frombuffer(bytes(server.heard), "<i2")))
    peak = np.argmax(spectrum) * RATE / (len(server.heard) / 2)
    assert peak == pytest.approx(440, abs=8)

    cut = server.until("conversation.item.truncate", seconds=15)  # the question comes round again
    assert cut["content_index"] == 0
    assert 100 < cut["audio_end_ms"] < ANSWER_SECONDS * 1000
    words = entries(page, "assistant").first.locator(".omni-words").inner_text()
    assert words.endswith(" …")
    assert "".join(ANSWER).startswith(words.removesuffix(" …"))
    assert "interrupted" in entries(page, "assistant").first.inner_text()

    page.get_by_role("button", name="Mute").click()
    page.get_by_role("button", name="Unmute").wait_for()
    page.get_by_role("button", name="Stop talking").click()
    page.get_by_role("button", name="Talk", exact=True).wait_for()


def test_escape_stops_an_answer_before_its_first_word(page, server):
    server.paused = True
    page.get_by_label("Type a question").fill("Hello")
    page.get_by_role("button", name="Send").click()
    wait_for_state(page, "thinking")
    page.keyboard.press("Escape")
    server.until("response.cancel")
    wait_for_state(page, "ready")
    assert entries(page, "assistant").count() == 0


def test_the_stop_button_silences_a_spoken_answer(page, server):
    page.get_by_label("Type a question").fill("Hello")
    page.get_by_label("Type a question").press("Enter")
    wait_for_state(page, "speaking")
    time.sleep(1.0)
    page.get_by_role("button", name="Stop answer").click()
    wait_for_state(page, "ready", seconds=2)
    heard = server.until("conversation.item.truncate")["audio_end_ms"]
    assert 300 < heard < 2500
    assert not server.of_type("response.cancel")  # it had been made whole


def test_a_picture_is_attached_shown_removed_and_sent_small(page, server, tmp_path):
    Image.new("RGB", (3000, 1500), "orange").save(tmp_path / "orange.png")
    page.locator("#omni-file").set_input_files(tmp_path / "orange.png")
    remove = page.get_by_role("button", name="Remove the picture")
    remove.click()
    assert remove.is_hidden()
    page.locator("#omni-file").set_input_files(tmp_path / "orange.png")
    remove.wait_for()
    page.get_by_label("Type a question").fill("What is this?")
    page.get_by_label("Type a question").press("Enter")
    picture, text = server.until("conversation.item.create")["item"]["content"]
    assert text["text"] == "What is this?"
    kind, data = picture["image_url"].split(",", 1)
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (1280, 640)
    assert entries(page, "user").last.locator("img").is_visible()
    assert remove.is_hidden()


def test_a_file_that_is_no_picture_is_refused_in_words(page, tmp_path):
    (tmp_path / "fake.png").write_text("not a picture")
    page.locator("#omni-file").set_input_files(tmp_path / "fake.png")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "fake.png is not a picture" in alert.inner_text()


def test_the_camera_goes_with_typed_and_spoken_questions(page, server):
    page.get_by_role("button", name="Camera").click()
    page.wait_for_function("document.querySelector('#omni-video').videoWidth > 0")
    page.get_by_label("Type a question").fill("What do you see?")
    page.get_by_label("Type a question").press("Enter")
    content = server.until("conversation.item.create")["item"]["content"]
    assert [part["type"] for part in content] == ["input_image", "input_text"]

    page.get_by_role("button", name="Talk").click()
    frame = server.until("input_image_buffer.append", count=2, seconds=15)
    assert base64.b64decode(frame["image"]).startswith(b"\xff\xd8\xff")
    assert entries(page, "user").last.locator("img").is_visible()
    page.get_by_role("button", name="Camera").click()
    assert page.locator("#omni-camera").is_hidden()


def test_the_newest_entry_stays_in_sight_beside_pictures_and_the_camera(page):
    page.set_viewport_size({"width": 400, "height": 640})
    page.get_by_role("button", name="Camera").click()
    page.wait_for_function("document.querySelector('#omni-video').videoWidth > 0")
    for _ in range(2):
        page.get_by_label("Type a question").fill("What do you see?")
        page.get_by_label("Type a question").press("Enter")
        wait_for_state(page, "speaking")
    page.wait_for_function(
        "(list => list.scrollHeight > list.clientHeight + 40 &&"
        " list.scrollHeight - list.scrollTop - list.clientHeight < 2)"
        "(document.querySelector('#omni-log'))"
    )


def test_an_answer_dropped_before_its_first_sample_counts_as_not_heard(page):
    script = """async () => {
      const { Speaker } = await import('/static/omni/audio.js');
      const speaker = new Speaker(() => {});
      await speaker.start();
      await speaker.play('first', new Float32Array(1200));
      await new Promise((done) => setTimeout(done, 500));
      speaker.play('second', new Float32Array(24000));
      return speaker.flush();
    }"""
    page.locator("#omni-empty").click()
    dropped = page.evaluate(script)
    assert dropped["item"] == "second"
    assert dropped["heard"] < 200
    assert dropped["left"] > 800


def test_answers_can_be_had_in_writing_only(page, server):
    page.get_by_label("Speak answers").uncheck()
    session = server.until("session.update")["session"]
    assert session == {"type": "realtime", "output_modalities": ["text"]}


def test_a_refused_microphone_is_explained(browser, server):
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = async () => {"
        " throw new DOMException('no', 'NotAllowedError') }"
    )
    page.goto(server.url)
    wait_for_state(page, "ready")
    page.get_by_role("button", name="Talk").click()
    page.get_by_role("alert").wait_for()
    assert "browser refused the microphone" in page.get_by_role("alert").inner_text()
    assert page.get_by_role("button", name="Talk").is_enabled()
    context.close()


def test_a_page_that_is_not_secure_says_what_to_do(browser, server):
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("Object.defineProperty(window, 'isSecureContext', {value: false})")
    page.goto(server.url)
    wait_for_state(page, "ready")
    page.get_by_role("button", name="Talk").click()
    page.get_by_role("alert").wait_for()
    assert "over https" in page.get_by_role("alert").inner_text()
    context.close()


def test_a_full_server_is_named_and_tried_again(browser, server):
    server.close_with = (1013, "8 of 8 sessions are in use")
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url)
    wait_for_state(page, "full")
    assert "full. Trying again in" in page.locator("#omni-state").inner_text()
    server.close_with = None
    wait_for_state(page, "ready", seconds=20)
    context.close()


def test_a_server_that_is_still_loading_is_told_from_a_full_one(browser, server):
    server.close_with, server.status = (1013, "the server is not ready"), "starting"
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url)
    wait_for_state(page, "starting")
    server.close_with, server.waits = None, True
    page.reload()
    wait_for_state(page, "starting")
    assert "loading its models" in page.locator("#omni-state").inner_text()
    server.waits = False
    wait_for_state(page, "ready")
    context.close()


def test_a_lost_connection_comes_back_and_says_that_the_past_is_forgotten(page, server):
    page.get_by_label("Type a question").fill("Hello")
    page.get_by_label("Type a question").press("Enter")
    wait_for_state(page, "speaking")
    asyncio.run_coroutine_threadsafe(server.ws.close(1001, "restarting"), server.loop).result()
    page.get_by_text("what was said above is forgotten").wait_for()
    wait_for_state(page, "ready")
    assert "restarting" in page.get_by_role("alert").inner_text()
    assert server.sessions == 2


def test_a_server_error_is_shown_in_its_own_words(page, server):
    error = {"type": "error", "error": {"message": "image is 90 megapixels; at most 40"}}
    asyncio.run_coroutine_threadsafe(server.ws.send_json(error), server.loop).result()
    page.get_by_text("90 megapixels").wait_for()


@pytest.mark.parametrize("rate", [44100, 48000, 16000])
def test_the_resampler_keeps_tones_and_cuts_what_would_alias(page, rate):
    script = """async ([rate, hertz]) => {
      const { Resampler } = await import('/static/omni/resampler.js');
      const resampler = new Resampler(rate, 24000);
      const out = [];
      for (let begin = 0; begin < rate; begin += 128) {
        const block = Float32Array.from({length: 128},
          (_, i) => Math.sin(2 * Math.PI * hertz * (begin + i) / rate));
        out.push(...resampler.feed(block));
      }
      return out;
    }"""
    out = np.array(page.evaluate(script, [rate, 1000]))
    assert len(out) == pytest.approx(24000, abs=150)
    middle = out[2000:22000]
    expected = np.sin(2 * np.pi * 1000 * np.arange(2000, 22000) / 24000)
    assert np.abs(middle - expected).max() < 2e-3
    if rate > 24000:
        aliased = np.array(page.evaluate(script, [rate, 15000]))[2000:22000]
        assert np.abs(aliased).max() < 1e-3


def test_pieces_of_pcm_survive_the_way_through_base64(page):
    samples = [0, 1, -1, 32767, -32768, 12345]
    script = """async (samples) => {
      const { encodePcm, decodePcm } = await import('/static/omni/realtime.js');
      const text = encodePcm(Int16Array.from(samples));
      return [text, [...decodePcm(text)]];
    }"""
    text, back = page.evaluate(script, samples)
    assert base64.b64decode(text) == np.array(samples, "<i2").tobytes()
    assert back == [value / 32768 for value in samples]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_its_window_and_can_be_read_in_light_and_dark(browser, server, scheme, width):
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 740}, permissions=["microphone"]
    )
    page = context.new_page()
    page.goto(server.url)
    wait_for_state(page, "ready")
    page.get_by_label("Type a question").fill(QUESTION)
    page.get_by_label("Type a question").press("Enter")
    page.locator(".omni-timings").wait_for()
    sizes = "[document.documentElement.scrollWidth, innerWidth]"
    inner, window = page.evaluate(sizes)
    assert inner <= window
    for selector in (".omni-user .omni-words", ".omni-assistant .omni-words", "#omni-state"):
        assert contrast(page, selector) >= 4.5, selector
    if where := os.environ.get("OMNI_SCREENSHOTS"):
        page.screenshot(path=Path(where) / f"page-{scheme}-{width}.png")
    context.close()


def contrast(page, selector: str) -> float:
    """WCAG contrast of an element's text against the first background that is not transparent."""
    script = """(selector) => {
      let element = document.querySelector(selector);
      const ink = getComputedStyle(element).color;
      let paper = 'rgba(0, 0, 0, 0)';
      while (element && paper === 'rgba(0, 0, 0, 0)') {
        paper = getComputedStyle(element).backgroundColor;
        element = element.parentElement;
      }
      return [ink, paper];
    }"""
    lights = []
    for color in page.evaluate(script, selector):
        channels = np.array([float(x) for x in re.findall(r"[\d.]+", color)[:3]]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)
