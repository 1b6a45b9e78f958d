"""What the user shows the page: pictures, clips, sound files, the camera and the screen."""

import asyncio
import base64
import io
import time
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scripted import QUESTION, RATE, entries, wait_for_state, write_question


def attach(page, *files: Path) -> None:
    page.locator("#omni-file").set_input_files(files)


def attached(page):
    return page.locator("#omni-attached li")


def remove(page, name: str):
    return page.get_by_role("button", name=f"Remove {name}")


def ask(page, text: str = "What is this?") -> None:
    page.get_by_label("Type a question").fill(text)
    page.get_by_label("Type a question").press("Enter")


def alert(page) -> str:
    page.locator("#omni-alert").wait_for()
    return page.locator("#omni-alert").inner_text()


def image_of(part: dict) -> Image.Image:
    assert part["type"] == "input_image"
    kind, data = part["image_url"].split(",", 1)
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.fixture
def orange(tmp_path):
    path = tmp_path / "orange.png"
    Image.new("RGB", (3000, 1500), "orange").save(path)
    return path


def write_clip(path: Path, seconds: int, *, sound: bool = True) -> Path:
    """A clip that is red in its first half and blue in its second, with a tone of 440 Hz."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("libvpx", rate=10)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        audio = file.add_stream("libopus", rate=48000) if sound else None
        for i in range(seconds * 10):
            picture = np.zeros((240, 320, 3), "u1")
            picture[..., 0 if i < seconds * 5 else 2] = 255
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            file.mux(video.encode(frame))
        file.mux(video.encode())
        if audio is not None:
            tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(seconds * 48000) / 48000)
            for begin in range(0, len(tone), 960):
                samples = tone[None, begin : begin + 960].astype("f4")
                frame = av.AudioFrame.from_ndarray(samples, "flt", "mono")
                frame.sample_rate, frame.pts = 48000, begin
                file.mux(audio.encode(frame))
            file.mux(audio.encode())
    return path


# --- files ---------------------------------------------------------------------------------------


def test_a_picture_is_attached_shown_removed_and_sent_small(page, fake, orange):
    attach(page, orange)
    remove(page, "orange.png").click()
    assert attached(page).count() == 0
    attach(page, orange)
    remove(page, "orange.png").wait_for()
    ask(page)
    picture, text = fake.until("conversation.item.create")["item"]["content"]
    assert text["text"] == "What is this?"
    assert image_of(picture).size == (1280, 640)
    assert entries(page, "user").last.locator("img").is_visible()
    assert attached(page).count() == 0


def test_several_files_go_with_one_question_and_single_ones_are_removed(page, fake, tmp_path):
    names = ["red", "green", "blue"]
    for name in names:
        Image.new("RGB", (40, 30), name).save(tmp_path / f"{name}.png")
    attach(page, *(tmp_path / f"{name}.png" for name in names))
    remove(page, "green.png").click()
    write_question(tmp_path / "tone.wav")
    attach(page, tmp_path / "tone.wav")
    remove(page, "tone.wav").wait_for()
    page.get_by_role("button", name="Send").click()
    red, blue, sound = fake.until("conversation.item.create")["item"]["content"]
    assert image_of(red).getpixel((5, 5))[0] > 200
    assert image_of(blue).getpixel((5, 5))[2] > 200
    assert sound["type"] == "input_audio"
    pcm = np.frombuffer(base64.b64decode(sound["audio"]), "<i2")
    assert len(pcm) == pytest.approx(3.5 * RATE, abs=100)
    assert np.argmax(np.abs(np.fft.rfft(pcm))) / 3.5 == pytest.approx(440, abs=4)
    said = entries(page, "user").last
    assert said.locator("img").count() == 2
    assert said.get_by_text("tone.wav").is_visible()
    assert said.locator("audio").is_visible()


def test_what_is_heard_in_a_file_stands_beside_what_was_typed(page, fake, tmp_path):
    attach(page, write_question(tmp_path / "tone.wav"))
    ask(page, "Who says this?")
    item = fake.until("conversation.item.create")["item"]["id"]
    asyncio.run_coroutine_threadsafe(fake.transcribe(item), fake.loop).result()
    said = entries(page, "user").last
    said.locator("q").get_by_text(QUESTION).wait_for()
    assert said.locator(".omni-words").inner_text() == "Who says this?"


def test_a_clip_goes_as_pictures_in_their_order_and_its_sound(page, fake, tmp_path):
    attach(page, write_clip(tmp_path / "clip.webm", 8))
    remove(page, "clip.webm").wait_for()
    ask(page)
    *pictures, sound, _ = fake.until("conversation.item.create")["item"]["content"]
    colours = [image_of(part).resize((1, 1)).getpixel((0, 0)) for part in pictures]
    assert ["red" if red > blue else "blue" for red, _, blue in colours] == [
        *["red"] * 2,
        *["blue"] * 2,
    ]
    pcm = np.frombuffer(base64.b64decode(sound["audio"]), "<i2")[:RATE]
    assert np.argmax(np.abs(np.fft.rfft(pcm))) == pytest.approx(440, abs=4)
    assert entries(page, "user").last.locator("img").count() == 4


def test_a_silent_clip_goes_as_pictures_only(page, fake, tmp_path):
    attach(page, write_clip(tmp_path / "silent.webm", 1, sound=False))
    remove(page, "silent.webm").wait_for()
    ask(page)
    content = fake.until("conversation.item.create")["item"]["content"]
    assert [part["type"] for part in content] == ["input_image", "input_text"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fake.png", "fake.png is not a picture that the browser can read"),
        ("fake.wav", "fake.wav is not a sound that the browser can read"),
        ("fake.webm", "fake.webm is not a video that the browser can read"),
        ("fake.pdf", "Only pictures, videos and sounds"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_words(page, tmp_path, name, words):
    (tmp_path / name).write_text("not what it says")
    attach(page, tmp_path / name)
    assert words in alert(page)
    assert attached(page).count() == 0


def test_what_is_too_long_is_refused_in_words_and_the_rest_is_kept(page, tmp_path, orange):
    attach(page, write_clip(tmp_path / "film.webm", 32), orange)
    assert "film.webm is longer than 30 s" in alert(page)
    assert attached(page).count() == 1
    with av.open(str(tmp_path / "long.ogg"), "w") as file:
        stream = file.add_stream("libopus", rate=48000)
        for i in range(62 * 50):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), "f4"), "flt", "mono")
            frame.sample_rate, frame.pts = 48000, i * 960
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    attach(page, tmp_path / "long.ogg")
    page.get_by_text("long.ogg is longer than 60 s").wait_for()
    assert attached(page).count() == 1


def test_what_is_too_much_for_one_message_is_refused_and_the_rest_stays(page, fake, tmp_path):
    names = [f"minute-{i}.wav" for i in range(4)]
    for name in names:
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(bytes(2 * 60 * RATE))
    attach(page, *(tmp_path / name for name in names))
    page.get_by_text("minute-3.wav is too much for one message").wait_for()
    assert attached(page).count() == 3
    ask(page)
    assert len(fake.until("conversation.item.create")["item"]["content"]) == 4


GIVE = """([event, names]) => {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 20;
  return new Promise((done) => canvas.toBlob((blob) => {
    const data = new DataTransfer();
    for (const name of names) data.items.add(new File([blob], name, { type: 'image/png' }));
    const fields = { bubbles: true, cancelable: true };
    const made = event === 'paste'
      ? new ClipboardEvent('paste', { ...fields, clipboardData: data })
      : new DragEvent(event, { ...fields, dataTransfer: data });
    done(!document.querySelector('#omni-log').dispatchEvent(made));
  }));
}"""


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_pictures_can_be_pasted_and_dropped_anywhere(page, event):
    if event == "drop":
        assert page.evaluate(GIVE, ["dragover", ["a.png"]]), "the browser would open the file"
        assert page.locator("#omni.omni-drop").count() == 1
    assert page.evaluate(GIVE, [event, ["a.png", "b.png"]])
    remove(page, "b.png").wait_for()
    assert attached(page).count() == 2
    assert page.locator("#omni.omni-drop").count() == 0


def test_what_is_attached_goes_before_a_spoken_question(page, fake, orange):
    attach(page, orange)
    remove(page, "orange.png").wait_for()
    page.get_by_role("button", name="Talk").click()
    (picture,) = fake.until("conversation.item.create")["item"]["content"]
    assert image_of(picture).size == (1280, 640)
    wait_for_state(page, "speaking")
    shown, said = entries(page, "user").all()[:2]
    assert shown.locator("img").is_visible()
    assert said.locator(".omni-words").inner_text() == QUESTION
    assert attached(page).count() == 0


# --- the camera and the screen -------------------------------------------------------------------


def switch_on(page, name: str) -> None:
    page.get_by_role("button", name=name).click()
    page.wait_for_function("document.querySelector('#omni-video').videoWidth > 0")


def test_the_camera_goes_with_typed_and_spoken_questions(page, fake):
    switch_on(page, "Camera")
    ask(page, "What do you see?")
    content = fake.until("conversation.item.create")["item"]["content"]
    assert [part["type"] for part in content] == ["input_image", "input_text"]

    page.get_by_role("button", name="Talk").click()
    fake.until("input_image_buffer.append", count=2, seconds=15)
    wait_for_state(page, "speaking")
    sizes = []
    for event in fake.of_type("input_image_buffer.append"):
        sizes.append(max(Image.open(io.BytesIO(base64.b64decode(event["image"]))).size))
    assert sizes[0] == 640
    assert sizes[-1] > 640  # the last one of the turn is sharp
    assert entries(page, "user").last.locator("img").count() == 1
    page.get_by_role("button", name="Camera").click()
    assert page.locator("#omni-camera").is_hidden()


def test_nothing_is_shown_to_the_server_while_nobody_speaks(page, fake):
    switch_on(page, "Camera")
    time.sleep(2.5)
    assert fake.of_type("input_image_buffer.append") == []


def test_the_screen_takes_the_place_of_the_camera(page, fake):
    switch_on(page, "Camera")
    page.get_by_role("button", name="Share screen").click()
    page.get_by_label("What your screen shows").first.wait_for()
    assert page.get_by_role("button", name="Camera").get_attribute("aria-pressed") == "false"
    page.wait_for_function("document.querySelector('#omni-video').videoWidth > 0")
    ask(page, "What do you see?")
    content = fake.until("conversation.item.create")["item"]["content"]
    assert [part["type"] for part in content] == ["input_image", "input_text"]
    page.get_by_role("button", name="Share screen").click()
    assert page.locator("#omni-camera").is_hidden()


TWO_CAMERAS = """() => {
  const devices = navigator.mediaDevices;
  const list = devices.enumerateDevices.bind(devices);
  const open = devices.getUserMedia.bind(devices);
  window.facings = [];
  devices.enumerateDevices = async () => [...await list(), { kind: 'videoinput', deviceId: 'b' }];
  devices.getUserMedia = (wanted) => {
    if (wanted.video) window.facings.push(wanted.video.facingMode.ideal);
    return open(wanted);
  };
}"""


def test_a_phone_shows_first_what_lies_before_it_and_then_its_user(page, fake):
    page.evaluate(TWO_CAMERAS)
    switch_on(page, "Camera")
    page.get_by_role("button", name="Other camera").click()
    page.wait_for_function("window.facings.length === 2")
    assert page.evaluate("window.facings") == ["environment", "user"]
    page.wait_for_function("document.querySelector('#omni-video').videoWidth > 0")
    ask(page, "Who is this?")
    content = fake.until("conversation.item.create")["item"]["content"]
    assert [part["type"] for part in content] == ["input_image", "input_text"]


REFUSE = """([method, name]) => {
  navigator.mediaDevices[method] = async () => { throw new DOMException('no', name) };
}"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NotAllowedError", "browser refused the camera"),
        ("NotFoundError", "No camera was found"),
        ("NotReadableError", "another program may be using it"),
        ("AbortError", "The camera failed: no"),
    ],
)
def test_a_camera_that_cannot_be_had_is_explained(page, name, words):
    page.evaluate(REFUSE, ["getUserMedia", name])
    page.get_by_role("button", name="Camera").click()
    assert words in alert(page)
    assert page.get_by_role("button", name="Camera").get_attribute("aria-pressed") == "false"


def test_closing_the_choice_of_screens_is_no_error(page):
    page.evaluate(REFUSE, ["getDisplayMedia", "NotAllowedError"])
    page.get_by_role("button", name="Share screen").click()
    page.get_by_role("button", name="Share screen").click()
    assert page.locator("#omni-alert").is_hidden()
    assert page.locator("#omni-camera").is_hidden()


def test_the_newest_entry_stays_in_sight_beside_pictures_and_the_camera(page):
    page.set_viewport_size({"width": 400, "height": 640})
    switch_on(page, "Camera")
    for _ in range(2):
        ask(page, "What do you see?")
        wait_for_state(page, "speaking")
    page.wait_for_function(
        "(list => list.scrollHeight > list.clientHeight + 40 &&"
        " list.scrollHeight - list.scrollTop - list.clientHeight < 2)"
        "(document.querySelector('#omni-log'))"
    )
