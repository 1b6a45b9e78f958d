"""What the page shows of a conversation, keeps, saves and sets, before a scripted server."""

import asyncio
import base64
import io
import json
import re
import time
import wave

import numpy as np
import pytest
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from PIL import Image
from scripted import ANSWER, QUESTION, RATE, ScriptedServer, entries, serving, wait_for_state

from support import chromium, free_port

KEPT = [
    {"id": "sess_paris", "title": "A trip to Paris", "model": "m", "created": 0.0},
    {"id": "sess_cats", "title": "Cats", "model": "m", "created": 0.0},
]


def picture(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class KeepingServer(ScriptedServer):
    """Also has kept sessions, and voices; ``say`` sends what a test wants to see."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = [one | {"updated": time.time() - 7200, "items": 2, "bytes": 0} for one in KEPT]
        self.media: dict[str, tuple[str, str, bytes]] = {}  # name -> item, type, content
        self.keeps_nothing = False
        router = APIRouter()
        router.get("/v1/models")(self.models)
        router.get("/v1/sessions")(self.list_sessions)
        router.get("/v1/sessions/{session_id}")(self.session)
        router.delete("/v1/sessions/{session_id}")(self.delete)
        router.get("/v1/sessions/{session_id}/media/{name}")(self.medium)
        self.app.router.routes[:0] = router.routes

    def models(self) -> dict:
        voices = ["ada", "ben"]
        return {"data": [{"id": "m"}, {"id": "omni-voice", "voices": voices}]}

    def list_sessions(self) -> object:
        if self.keeps_nothing:
            error = {"code": "session_not_found", "message": "this server keeps no conversations"}
            return JSONResponse({"error": error}, 404)
        return {"data": self.kept, "has_more": False}

    def session(self, session_id: str) -> dict:
        media = [{"item_id": i, "name": n, "type": t} for n, (i, t, _) in self.media.items()]
        return {"id": session_id, "media": media}

    def medium(self, session_id: str, name: str) -> Response:
        _, kind, content = self.media[name]
        return Response(content, media_type=kind)

    def delete(self, session_id: str) -> dict:
        self.kept = [one for one in self.kept if one["id"] != session_id]
        return {"deleted": True}

    async def tell(self, kind: str, **fields: object) -> None:
        if kind == "session.created":
            fields["session"] |= {"id": self.ws.query_params.get("session_id", "sess")}
        await super().tell(kind, **fields)

    def say(self, kind: str, **fields: object) -> None:
        asyncio.run_coroutine_threadsafe(self.tell(kind, **fields), self.loop).result()

    def add(self, item: dict, previous: str | None = None) -> None:
        self.say("conversation.item.added", item=item, previous_item_id=previous)

    def settings(self, count: int) -> dict:
        return self.until("session.update", count=count)["session"]


@pytest.fixture(scope="module")
def browser(question):
    with chromium(
        "--autoplay-policy=no-user-gesture-required",
        f"--use-file-for-fake-audio-capture={question}",
    ) as browser:
        yield browser


@pytest.fixture
def server():
    scripted = KeepingServer()
    with serving(scripted.app, free_port()) as url:
        scripted.url = url
        yield scripted


@pytest.fixture
def page(browser, server):
    permissions = ["microphone", "camera", "clipboard-read", "clipboard-write"]
    context = browser.new_context(permissions=permissions, reduced_motion="reduce")
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(server.url)
    wait_for_state(page, "ready")
    yield page
    context.close()
    assert page.problems == []


def ask(page, text: str = QUESTION) -> None:
    page.get_by_label("Type a question").fill(text)
    page.get_by_label("Type a question").press("Enter")


def highlighted(page, name: str) -> str:
    script = "name => [...CSS.highlights.get(name)].map(String).join('')"
    return page.evaluate(script, f"omni-{name}")


def until_marked(page, *words: str) -> None:
    script = "words => words.includes([...CSS.highlights.get('omni-now')].join(''))"
    page.wait_for_function(script, arg=list(words), timeout=10_000)


def open_sheet(page, name: str):
    page.get_by_role("button", name=name, exact=True).click()
    sheet = page.get_by_role("dialog", name=name)
    sheet.wait_for()
    return sheet


def download(page, button: str) -> bytes:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=button).click()
    return waiting.value.path().read_bytes()


# --- the transcript ------------------------------------------------------------------------------


def test_what_the_user_says_grows_while_they_speak(page, server):
    server.say("input_audio_buffer.speech_started", item_id="u", audio_start_ms=0)
    for text in ("What", "What is the"):
        server.say("input_audio_buffer.partial_transcript", item_id="u", transcript=text)
        page.get_by_text(text, exact=True).wait_for()
    server.say("input_audio_buffer.committed", item_id="u")
    prefix = "conversation.item.input_audio_transcription."
    server.say(prefix + "delta", item_id="u", delta="What is that?")
    page.get_by_text("What is that?", exact=True).wait_for()
    server.say(prefix + "completed", item_id="u", transcript="What is that?")
    assert entries(page, "user").locator(".omni-words").inner_text() == "What is that?"
    assert server.settings(1)["audio"]["input"]["transcription"] == {"partial": True}


def test_entries_follow_the_order_of_the_conversation(page, server):
    def message(name: str) -> dict:
        content = [{"type": "input_text", "text": name}]
        return {"id": name, "type": "message", "role": "user", "content": content}

    server.add(message("first"))
    server.add(message("third"), "first")
    server.add(message("second"), "first")
    page.get_by_text("second").wait_for()
    assert page.locator(".omni-words").all_inner_texts() == ["first", "second", "third"]


def test_a_tool_call_shows_its_arguments_and_output_when_opened(page, server):
    ask(page)
    wait_for_state(page, "speaking")
    call = {"id": "call", "type": "function_call", "name": "weather", "call_id": "c1"}
    server.say("response.created", response={"id": "r2"})
    server.say("response.output_item.added", response_id="r2", item=call | {"arguments": ""})
    for delta in ('{"city": ', '"Rome"}'):
        event = {"item_id": "call", "response_id": "r2", "call_id": "c1", "delta": delta}
        server.say("response.function_call_arguments.delta", **event)
    page.get_by_text("Tool weather running…").wait_for()
    output = {"id": "out", "type": "function_call_output", "call_id": "c1", "output": "sunny"}
    server.add(output)
    page.get_by_text("Tool weather done").click()
    tool = page.locator(".omni-tool")
    assert '"city": "Rome"' in tool.inner_text()
    assert "sunny" in tool.inner_text()
    assert page.locator("#omni-log > li").last.get_attribute("data-item") == "call"


def test_a_picture_of_an_answer_forms_and_is_done(page, server):
    item = {"id": "art", "type": "image_generation_call", "status": "in_progress"}
    server.say("response.created", response={"id": "r"})
    server.say("response.output_item.added", response_id="r", item=item)
    shown = page.locator(".omni-picture img")
    shown.wait_for(state="attached")
    before = page.locator(".omni-picture").bounding_box()
    partial = "response.image_generation_call.partial_image"
    server.say(partial, item_id="art", partial_image_b64=picture("gray"), partial_image_index=0)
    page.get_by_alt_text("The picture so far").wait_for()
    assert page.locator(".omni-picture").bounding_box()["height"] == pytest.approx(
        before["height"], abs=1
    )
    done = item | {"status": "completed", "result": picture("red"), "revised_prompt": "a red dot"}
    server.say("response.output_item.done", response_id="r", item=done)
    page.get_by_alt_text("A picture in the answer").wait_for()
    assert shown.get_attribute("src").endswith(picture("red"))
    assert "a red dot" in page.locator(".omni-picture").inner_text()


def test_the_words_that_are_heard_are_marked_by_clauses(page, server):
    server.paused = True
    ask(page)
    server.until("response.create")
    wait_for_state(page, "thinking")
    where = {"response_id": server.response, "item_id": server.answer}
    words = "Yes. That is the Eiffel Tower, in Paris."
    server.say("response.output_audio_transcript.delta", delta=words, **where)
    second = base64.b64encode(bytes(2 * RATE)).decode()
    server.say("response.output_audio.delta", delta=second, clause="Yes.", **where)
    server.say("response.output_audio.delta", delta=second, clause="That is the", **where)
    last = "Eiffel Tower, in Paris."
    for clause in ({"clause": last}, {}, {}):
        server.say("response.output_audio.delta", delta=second, **clause, **where)
    until_marked(page, "Yes")
    assert highlighted(page, "coming").endswith("That is the Eiffel Tower, in Paris.")
    until_marked(page, "That", "is", "the")
    assert highlighted(page, "coming").endswith(last)
    until_marked(page, "Eiffel")
    page.keyboard.press("Escape")
    said = entries(page, "assistant").locator(".omni-words")
    page.get_by_text("interrupted").wait_for()
    assert re.fullmatch(r"Yes\. That is the( Eiffel)? …", said.inner_text())
    assert highlighted(page, "now") == highlighted(page, "coming") == ""


def test_a_marked_word_may_be_chinese(page):
    script = """async () => {
      const { SpokenWords } = await import('/static/omni/words.js');
      const p = document.createElement('p');
      p.textContent = '埃菲尔铁塔在巴黎。';
      const words = new SpokenWords(p);
      words.add(90000, '埃菲尔铁塔在巴黎。');
      words.whole = true;
      return [0, 55000, 90000].map((sample) => words.wordsUntil(sample));
    }"""
    none, some, everything = page.evaluate(script)
    assert none == 0
    assert 0 < some <= 6
    assert everything == 9


def test_the_waterfall_has_the_stages_of_the_server_and_what_the_page_heard(page):
    script = """async () => {
      const { Waterfall } = await import('/static/omni/waterfall.js');
      const one = new Waterfall();
      document.querySelector('#omni-empty').append(one.element);
      one.update({ speech_end: 0, turn_end: 200, first_audio: 640 });
      one.update({ heard: 700 });
    }"""
    page.evaluate(script)
    page.get_by_text("answered after 0.70 s").click()
    rows = page.locator("#omni-empty dd").all_inner_texts()
    assert [row.strip() for row in rows] == ["0.20 s", "0.64 s", "0.70 s"]
    assert page.locator("#omni-empty dt").last.inner_text() == "heard here"


# --- to take away --------------------------------------------------------------------------------


def test_a_message_and_all_of_them_can_be_copied(page):
    ask(page)
    wait_for_state(page, "ready", seconds=20)
    entries(page, "assistant").get_by_role("button", name="Copy this message").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "".join(ANSWER)
    open_sheet(page, "Copy or save").get_by_role("button", name="Copy all").click()
    page.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"You: {QUESTION}\n\nOmni: {''.join(ANSWER)}"


def test_the_conversation_is_saved_as_json_and_markdown_with_its_pictures(page, server, tmp_path):
    Image.new("RGB", (60, 40), "orange").save(tmp_path / "orange.png")
    page.locator("#omni-file").set_input_files(tmp_path / "orange.png")
    page.get_by_role("button", name="Remove orange.png").wait_for()
    ask(page)
    page.locator(".omni-timings summary").wait_for()
    open_sheet(page, "Copy or save")
    saved = json.loads(download(page, "Save as JSON"))
    asked, answered = saved["items"]
    assert saved["session"] == "sess"
    assert asked["text"] == QUESTION
    assert asked["pictures"][0].startswith("data:image/jpeg;base64,")
    assert answered["text"] == "".join(ANSWER)
    assert answered["timings"]["first_audio"] == 640.0
    markdown = download(page, "Save as Markdown").decode()
    assert f"# {QUESTION}" in markdown
    assert "](data:image/jpeg;base64," in markdown
    assert "".join(ANSWER) in markdown


def test_the_spoken_conversation_is_saved_as_sound_in_its_order(page, server):
    page.get_by_role("button", name="Talk").click()
    wait_for_state(page, "speaking", seconds=30)
    page.get_by_role("button", name="Stop talking").click()
    wait_for_state(page, "ready", seconds=30)
    open_sheet(page, "Copy or save")
    with wave.open(io.BytesIO(download(page, "Save the sound (WAV)"))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    spectrum = np.abs(np.fft.rfft(pcm[-RATE:]))
    assert np.argmax(spectrum) == pytest.approx(330, abs=5)  # the answer comes last
    spectrum = np.abs(np.fft.rfft(pcm[RATE // 2 : RATE]))
    assert 2 * np.argmax(spectrum) == pytest.approx(440, abs=8)  # and the question first


def test_a_conversation_without_sound_says_so(page):
    open_sheet(page, "Copy or save").get_by_role("button", name="Save as JSON").click()
    page.get_by_text("Nothing was said yet.").wait_for()


# --- earlier conversations -----------------------------------------------------------------------


def test_an_earlier_conversation_is_opened_with_its_words_and_pictures(page, server):
    ask(page, "Something else")
    wait_for_state(page, "speaking")
    server.keeps = True
    shown = {"type": "input_image"}
    server.items = [
        {
            **{"id": "q", "type": "message", "role": "user", "status": "completed"},
            "content": [shown, {"type": "input_text", "text": "Where is this?"}],
        },
        {
            **{"id": "a", "type": "message", "role": "assistant", "status": "completed"},
            "content": [{"type": "output_audio", "transcript": "In Paris."}],
        },
    ]
    server.media["q.0"] = ("q", "image/png", base64.b64decode(picture("blue")))
    sheet = open_sheet(page, "Conversations")
    assert "2 hours ago" in sheet.inner_text()
    sheet.get_by_role("button", name="A trip to Paris 2 hours ago").click()
    page.get_by_text("In Paris.").wait_for()
    page.get_by_alt_text("The picture you showed").wait_for()
    assert sheet.is_hidden()
    assert server.ws.query_params["session_id"] == "sess_paris"
    assert page.get_by_text("Something else").count() == 0
    wait_for_state(page, "ready")


def test_a_conversation_is_deleted_only_when_that_is_said_twice(page, server):
    sheet = open_sheet(page, "Conversations")
    sheet.get_by_role("button", name="Delete “Cats”").click()
    sheet.get_by_role("button", name="Cancel").click()
    assert len(server.kept) == 2
    sheet.get_by_role("button", name="Delete “Cats”").click()
    assert page.evaluate("document.activeElement.textContent") == "Cancel"
    sheet.get_by_role("button", name="Delete “Cats”").click()
    sheet.get_by_text("Cats").wait_for(state="detached")
    assert [one["id"] for one in server.kept] == ["sess_paris"]


def test_a_new_conversation_is_another_session(page, server):
    ask(page)
    wait_for_state(page, "speaking")
    server.items.clear()
    page.get_by_role("button", name="New conversation").click()
    page.get_by_text("What is on your mind?").wait_for()
    wait_for_state(page, "ready")
    assert "session_id" not in server.ws.query_params
    assert server.sessions == 2
    assert page.locator("#omni-log > li").count() == 0


def test_a_server_that_keeps_nothing_is_named_in_clear_words(page, server):
    server.keeps_nothing = True
    assert "keeps no conversations" in open_sheet(page, "Conversations").inner_text()


# --- settings ------------------------------------------------------------------------------------


def test_settings_are_sent_kept_and_sent_again_to_the_next_session(page, server):
    sheet = open_sheet(page, "Settings")
    sheet.get_by_label("Voice").select_option("ben")
    assert server.settings(2) == {"type": "realtime", "audio": {"output": {"voice": "ben"}}}
    sheet.get_by_label("Taking turns").select_option("turns_silence")
    detection = {"type": "server_vad", "silence_duration_ms": 500}
    assert server.settings(3)["audio"]["input"] == {"turn_detection": detection}
    sheet.get_by_label("Length of the silence").press("ArrowRight")
    assert server.settings(4)["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 550
    sheet.get_by_label("Your language").select_option("de")
    assert server.settings(5)["audio"]["input"] == {"transcription": {"language": "de"}}
    sheet.get_by_label("Noise reduction").select_option("far_field")
    assert server.settings(6)["audio"]["input"] == {"noise_reduction": {"type": "far_field"}}
    sheet.get_by_label("Instructions").fill("Be brief.")
    assert server.settings(7)["instructions"] == "Be brief."
    page.reload()
    wait_for_state(page, "ready")
    again = server.settings(8)
    assert again["instructions"] == "Be brief."
    assert again["audio"]["output"] == {"voice": "ben"}
    assert again["audio"]["input"] == {
        "transcription": {"partial": True, "language": "de"},
        "turn_detection": detection | {"silence_duration_ms": 550},
        "noise_reduction": {"type": "far_field"},
    }
    sheet = open_sheet(page, "Settings")
    sheet.get_by_label("Taking turns").select_option("turns_push")
    assert server.settings(9)["audio"]["input"] == {"turn_detection": None}
    sheet.get_by_role("button", name="Reset all").click()
    assert server.settings(10)["audio"]["output"] == {"voice": "auto"}
    assert page.evaluate("localStorage.getItem('omni-settings')") is None


def test_what_the_server_refuses_is_said_at_the_field(page, server):
    sheet = open_sheet(page, "Settings")
    sheet.get_by_label("Your language").select_option("de")
    server.settings(2)
    event_id = server.of_type("session.update")[-1]["event_id"]
    param = "session.audio.input.transcription.language"
    error = {"event_id": event_id, "param": param, "message": "'de' is not heard here"}
    server.say("error", error=error)
    sheet.get_by_text("'de' is not heard here").wait_for()
    assert sheet.get_by_label("Your language").get_attribute("aria-invalid") == "true"
    page.keyboard.press("Escape")
    assert page.locator("#omni-alert").is_hidden()


def test_the_settings_show_what_the_server_does_by_itself_and_which_model_answers(page, server):
    session = {"id": "sess", "type": "realtime", "model": "tiny-1b", "temperature": 0.2}
    server.say("session.updated", session=session)
    page.locator("#omni-model").get_by_text("tiny-1b").wait_for()
