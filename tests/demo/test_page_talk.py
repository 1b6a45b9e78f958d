"""Talking to the page: its microphone, its speaker and the turns between them."""

import base64
import time

import numpy as np
import pytest
from scripted import ANSWER, ANSWER_SECONDS, QUESTION, RATE, entries, wait_for_state


def test_talking_is_heard_at_24_khz_answered_and_interrupted_where_it_was_heard(page, fake):
    page.get_by_role("button", name="Talk").click()
    wait_for_state(page, "listening", "hearing")
    wait_for_state(page, "speaking")
    assert entries(page, "user").first.locator(".omni-words").inner_text() == QUESTION
    spectrum = np.abs(np.fft.rfft(np.frombuffer(bytes(fake.heard), "<i2")))
    peak = np.argmax(spectrum) * RATE / (len(fake.heard) / 2)
    assert peak == pytest.approx(440, abs=8)

    cut = fake.until("conversation.item.truncate", seconds=15)  # the question comes round again
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


def test_escape_stops_an_answer_before_its_first_word(page, fake):
    fake.paused = True
    page.get_by_label("Type a question").fill("Hello")
    page.get_by_role("button", name="Send").click()
    wait_for_state(page, "thinking")
    page.keyboard.press("Escape")
    fake.until("response.cancel")
    wait_for_state(page, "ready")
    assert entries(page, "assistant").count() == 0


def test_the_stop_button_silences_a_spoken_answer(page, fake):
    page.get_by_label("Type a question").fill("Hello")
    page.get_by_label("Type a question").press("Enter")
    wait_for_state(page, "speaking")
    time.sleep(1.0)
    page.get_by_role("button", name="Stop answer").click()
    wait_for_state(page, "ready", seconds=2)
    heard = fake.until("conversation.item.truncate")["audio_end_ms"]
    assert 300 < heard < 2500
    assert not fake.of_type("response.cancel")  # it had been made whole


def play(page, script: str):
    """Run the playback worklet by hand: ``script`` has ``take(message)``, ``blocks(count)`` and
    ``told``; the sample rate is 24 kHz."""
    frame = """async (script) => {
      const told = [];
      let Playback;
      Object.assign(globalThis, {
        sampleRate: 24000,
        currentFrame: 0,
        registerProcessor: (name, processor) => (Playback = processor),
        AudioWorkletProcessor: class {
          port = { postMessage: (message) => told.push(message) };
        },
      });
      await import('/static/omni/playback-worklet.js?' + Math.random());
      const player = new Playback();
      const take = (message) => player.port.onmessage({ data: message });
      const tone = (length, value = 0.5) => new Float32Array(length).fill(value);
      const blocks = (count) => {
        const all = [];
        for (let i = 0; i < count; i++) {
          const out = new Float32Array(128);
          player.process([], [[out]]);
          globalThis.currentFrame += 128;
          all.push(...out);
        }
        return all;
      };
      return await new Function('take', 'blocks', 'tone', 'told', script)(take, blocks, tone, told);
    }"""
    return page.evaluate(frame, script)


def steps(samples) -> float:
    return float(np.abs(np.diff([0, *samples, 0])).max())


def test_playback_begins_with_the_first_piece_and_counts_what_it_played(page):
    out, told = play(
        page,
        """take({item: 'a', pcm: tone(300)}); take({item: 'b', pcm: tone(100)});
        take({end: 'a'}); take({end: 'b'});
        return [blocks(4), told];""",
    )
    assert out[100:395] == [0.5] * 295
    assert steps(out) < 0.01
    assert not any(out[400 + 96 :])
    assert [one for one in told if "began" in one] == [
        {"item": "a", "began": 0},
        {"item": "b", "began": 300 / 24000},
    ]
    assert told[-1] == {"item": "b", "played": 100, "left": 0, "over": True}


def test_playback_that_runs_dry_fades_waits_for_more_and_does_not_click(page):
    out, told = play(
        page,
        """take({item: 'a', pcm: tone(1280)});
        const out = blocks(20);
        take({item: 'a', pcm: tone(1200)});
        out.push(...blocks(10));
        take({item: 'a', pcm: tone(1300)});
        take({end: 'a'});
        out.push(...blocks(30));
        return [out, told];""",
    )
    out = np.array(out)
    assert steps(out) < 0.01
    assert (out[1400 : 30 * 128] == 0).all()  # 50 ms are too little to go on with
    assert (out[30 * 128 + 128 : 30 * 128 + 2400] == 0.5).all()
    assert told[-1]["played"] == 3780
    assert not any(one["over"] for one in told[:-2] if "over" in one)


def test_playback_goes_on_with_little_when_that_is_all(page):
    out = play(
        page,
        """take({item: 'a', pcm: tone(128)});
        blocks(2);
        take({item: 'a', pcm: tone(256)});
        return blocks(100);""",
    )
    assert np.count_nonzero(out) >= 256


def test_playback_that_is_silenced_falls_silent_softly_and_at_once(page):
    out, told = play(
        page,
        """take({item: 'a', pcm: tone(24000)});
        const out = blocks(10);
        take({flush: 7});
        out.push(...blocks(4));
        return [out, told];""",
    )
    assert steps(out) < 0.01
    assert np.count_nonzero(out[1280:]) < 128
    answer = {"flushed": 7, "item": "a", "played": 1280, "left": 24000 - 1280, "over": False}
    assert told[-1] == answer


def test_an_answer_dropped_before_its_first_sample_counts_as_not_heard(page):
    told = play(
        page,
        """take({item: 'a', pcm: tone(128)});
        blocks(2);
        take({item: 'b', pcm: tone(24000)});
        take({flush: 7});
        return told.at(-1);""",
    )
    assert (told["item"], told["played"], told["left"]) == ("b", 0, 24000)


LOCKS = """() => {
  window.locks = [];
  const lock = () => ({ released: false, release: async () => window.locks.push('released') });
  Object.defineProperty(navigator, 'wakeLock', {
    value: { request: async (what) => (window.locks.push(what), lock()) },
  });
}"""


def test_the_screen_stays_on_during_a_call(page):
    page.evaluate(LOCKS)
    page.get_by_role("button", name="Talk").click()
    page.wait_for_function("window.locks.length === 1")
    page.get_by_role("button", name="Stop talking").click()
    page.wait_for_function("window.locks.length === 2")
    assert page.evaluate("window.locks") == ["screen", "released"]


# --- push to talk --------------------------------------------------------------------------------


@pytest.fixture
def pushing(page, fake):
    """The page, set to push to talk."""
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Taking turns").select_option("turns_push")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Hold to talk").wait_for()
    fake.until("input_audio_buffer.clear")
    page.get_by_text("Hold Talk or the space bar and ask").wait_for()
    return page


def loud(pcm: bytes) -> bool:
    return bool(np.abs(np.frombuffer(pcm, "<i2").astype(int)).max(initial=0) > 1000)


def hold(page, seconds: float) -> None:
    button = page.locator("#omni-talk")
    button.hover()
    page.mouse.down()
    wait_for_state(page, "hearing")
    page.wait_for_timeout(seconds * 1000)
    page.mouse.up()


def test_what_is_said_while_the_button_is_held_is_a_turn(pushing, fake):
    hold(pushing, 3.6)  # one round of the question
    fake.until("input_audio_buffer.commit")
    fake.until("response.create")
    assert 3.0 < fake.position < 5.0
    assert loud(bytes(fake.heard))
    wait_for_state(pushing, "speaking")
    sent = fake.position
    assert entries(pushing, "user").last.locator(".omni-words").inner_text() == QUESTION
    hold(pushing, 1.0)  # and again, into the answer
    assert fake.until("conversation.item.truncate")["audio_end_ms"] > 0
    fake.until("input_audio_buffer.commit", count=2)
    assert sent + 0.8 < fake.position < sent + 2.5, "nothing was sent between"


def test_the_space_bar_holds_unless_one_types(pushing, fake):
    box = pushing.get_by_label("Type a question")
    box.press("Space")
    assert box.input_value() == " "
    pushing.locator("#omni-log").focus()
    pushing.keyboard.down("Space")
    wait_for_state(pushing, "hearing")
    pushing.wait_for_timeout(1500)
    pushing.keyboard.up("Space")
    fake.until("input_audio_buffer.commit")
    wait_for_state(pushing, "speaking")


def test_who_cannot_hold_a_button_presses_it_twice(pushing, fake):
    pushing.locator("#omni-talk").focus()
    pushing.keyboard.press("Enter")
    pushing.get_by_role("button", name="Release to send").wait_for()
    pushing.wait_for_timeout(1500)
    pushing.keyboard.press("Enter")
    fake.until("input_audio_buffer.commit")


def test_a_slip_on_the_button_says_nothing(pushing, fake):
    hold(pushing, 0.05)
    fake.until("input_audio_buffer.clear", count=2)
    wait_for_state(pushing, "readyToPush")
    assert fake.of_type("input_audio_buffer.commit") == fake.of_type("response.create") == []


# --- devices -------------------------------------------------------------------------------------


def test_while_muted_nothing_but_silence_is_sent(page, fake):
    page.get_by_role("button", name="Talk").click()
    wait_for_state(page, "listening")
    page.get_by_role("button", name="Mute").click()
    wait_for_state(page, "muted")
    page.wait_for_timeout(200)  # what was on its way
    before = len(fake.heard)
    page.wait_for_timeout(4000)
    assert len(fake.heard) - before > 3 * 2 * RATE
    assert not any(fake.heard[before:])
    page.get_by_role("button", name="Unmute").click()
    wait_for_state(page, "hearing")


def test_the_level_of_the_microphone_is_shown(page):
    page.get_by_role("button", name="Talk").click()
    page.get_by_role("button", name="Settings").click()
    meter = "document.querySelector('[role=meter]').getAttribute('aria-valuenow')"
    page.wait_for_function(f"{meter} > 70")
    page.wait_for_function(f"{meter} == 0")


FAKE_DEVICES = """() => {
  window.streams = [];
  const devices = navigator.mediaDevices;
  const open = devices.getUserMedia.bind(devices);
  window.missing = false;
  window.asked = [];
  devices.getUserMedia = async (wanted) => {
    window.asked.push(wanted.audio.deviceId?.ideal ?? null);
    if (window.missing) throw new DOMException('none', 'NotFoundError');
    window.streams.push(await open({ audio: true }));
    return window.streams.at(-1);
  };
  window.there = ['one', 'two'];
  devices.enumerateDevices = async () => window.there.flatMap((name) => [
    { kind: 'audioinput', deviceId: name, label: `Microphone ${name}` },
    { kind: 'audiooutput', deviceId: `${name}-out`, label: `Speaker ${name}` },
  ]);
  window.plug = (...names) => {
    window.there = names;
    devices.dispatchEvent(new Event('devicechange'));
  };
  window.sinks = [];
  AudioContext.prototype.setSinkId = async (id) => void window.sinks.push(id);
}"""


def test_the_chosen_devices_are_used_again_after_they_were_pulled_out(page):
    page.add_init_script(f"({FAKE_DEVICES})()")
    page.reload()
    wait_for_state(page, "ready")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Microphone", exact=True).select_option("Microphone two")
    page.get_by_label("Speaker", exact=True).select_option("Speaker two")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Talk").click()
    wait_for_state(page, "listening", "hearing")
    assert page.evaluate("[asked, sinks]") == [["two"], ["two-out"]]

    page.evaluate("plug('one')")
    page.wait_for_function("streams.length === 2")
    assert page.evaluate("asked.at(-1)") is None
    page.evaluate("plug('one', 'two')")
    page.wait_for_function("asked.at(-1) === 'two'")
    wait_for_state(page, "listening", "hearing", "speaking", "thinking")
    page.reload()
    wait_for_state(page, "ready")
    page.get_by_role("button", name="Talk").click()
    page.wait_for_function("asked.at(-1) === 'two'")


def test_another_microphone_takes_over_and_without_one_that_is_said(page):
    page.add_init_script(f"({FAKE_DEVICES})()")
    page.reload()
    wait_for_state(page, "ready")
    page.get_by_role("button", name="Talk").click()
    page.wait_for_function("streams.length === 1")
    wait_for_state(page, "listening", "hearing", "speaking", "thinking")
    unplug = "streams.at(-1).getAudioTracks()[0].dispatchEvent(new Event('ended'))"
    page.evaluate(unplug)
    page.wait_for_function("streams.length === 2")
    page.wait_for_timeout(300)
    page.evaluate(f"() => {{ window.missing = true; {unplug} }}")
    page.get_by_text("microphone was unplugged").wait_for()
    assert page.get_by_role("button", name="Talk", exact=True).is_enabled()


def test_a_refused_microphone_is_explained(browser, fake):
    context = browser.new_context(permissions=[])
    page = context.new_page()
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = async () => {"
        " throw new DOMException('no', 'NotAllowedError') }"
    )
    page.goto(fake.url)
    wait_for_state(page, "ready")
    page.get_by_role("button", name="Talk").click()
    page.locator("#omni-alert").wait_for()
    assert "browser refused the microphone" in page.locator("#omni-alert").inner_text()
    assert page.get_by_role("button", name="Talk").is_enabled()
    context.close()


# --- measuring -----------------------------------------------------------------------------------


def test_the_page_measures_from_the_end_of_speech_to_the_first_sound(page):
    page.get_by_role("button", name="Talk").click()
    page.wait_for_function("omniPage.measurements.length > 0")
    (one,) = page.evaluate("omniPage.measurements.slice(0, 1)")
    assert one["timings"]["first_audio"] == 640
    assert 400 < one["heard"] < 2000  # 0.4 s of silence end a turn here
    shown = entries(page, "assistant").first.locator("summary").inner_text()
    assert shown == f"answered after {one['heard'] / 1000:.2f} s"


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
      const { encodePcm, decodePcm } = await import('/static/omni/omni-client.js');
      const text = encodePcm(Int16Array.from(samples));
      return [text, [...decodePcm(text)]];
    }"""
    text, back = page.evaluate(script, samples)
    assert base64.b64decode(text) == np.array(samples, "<i2").tobytes()
    assert back == [value / 32768 for value in samples]
