"""Answers that are taken piece by piece, and the typed sides of events."""

import asyncio
import io

import numpy as np
import pytest
from PIL import Image
from realtime_fake import SOUND, FakeRealtime, words

from omni.client import AsyncOmniClient, Event, OmniClient, events
from omni.types import ToolCall


@pytest.fixture
def server() -> FakeRealtime:
    return FakeRealtime()


@pytest.fixture
async def url(server):
    async with server.listening() as where:
        yield where


async def test_words_and_sound_come_as_they_are_made_and_the_reply_holds_all(url, server):
    server.answers = [[words("It is ", "Paris.", sound=True)]]
    async with AsyncOmniClient(url) as omni, omni.stream("Capital?") as answer:
        with pytest.raises(RuntimeError, match="not complete"):
            _ = answer.reply
        pieces = [piece async for piece in answer]
    assert [piece.text for piece in pieces] == ["It is ", "Paris.", ""]
    np.testing.assert_allclose(pieces[2].audio.pcm, SOUND / 32768, atol=1e-6)
    assert answer.reply.text == "It is Paris."
    assert answer.reply.timings == {"first_token": 100.0}
    np.testing.assert_array_equal(answer.reply.audio.pcm, pieces[2].audio.pcm)


async def test_pictures_in_an_answer_are_files(url, server):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    server.answers = [[words("Look."), {"image": file.getvalue()}]]
    async with AsyncOmniClient(url) as omni:
        reply = await omni.ask("Draw")
    assert reply.images == (file.getvalue(),)


async def test_leaving_early_stops_the_answer_and_the_next_question_is_answered(url, server):
    server.answers = [[words("Once upon a time"), "wait"], [words("Yes.")]]
    async with AsyncOmniClient(url) as omni:
        async with omni.stream("A story") as answer:
            async for piece in answer:
                if piece.text:
                    break
        cancel = await server.until("response.cancel")
        assert cancel["response_id"].startswith("resp_")
        assert (await omni.ask("Are you there?")).text == "Yes."


async def test_an_answer_that_was_read_to_its_end_is_not_cancelled(url, server):
    async with AsyncOmniClient(url) as omni:
        async with omni.stream("Hello") as answer:
            reply = await answer.read()
        await omni.ask("Hello")
    assert reply.text == "Yes."
    assert not server.of_type("response.cancel")


async def test_an_answer_to_live_speech_is_not_taken_for_the_answer_to_a_question():
    class Busy(FakeRealtime):
        async def respond(self, socket, session, options):
            live = {"id": "resp_live", "metadata": None, "status": "completed", "output": []}
            await self.tell(socket, "response.created", response=live)
            await self.tell(socket, "response.done", response=live)
            await super().respond(socket, session, options)

    async with Busy().listening() as url, AsyncOmniClient(url) as omni:
        assert (await omni.ask("Hello")).text == "Yes."


async def test_the_blocking_client_streams_and_stops_too(url, server):
    server.answers = [[words("One.")], [words("Two"), "wait"], [words("Three.")]]

    def talk() -> tuple[str, str, str]:
        with OmniClient(url) as omni:
            with omni.stream("1") as answer:
                first = "".join(piece.text for piece in answer)
                assert answer.reply.text == first
            with omni.stream("2") as answer:
                second = next(piece.text for piece in answer)
            with omni.stream("3") as answer:
                third = answer.read().text
        return first, second, third

    assert await asyncio.to_thread(talk) == ("One.", "Two", "Three.")
    await server.until("response.cancel")


async def test_an_error_in_the_block_of_the_blocking_client_stops_the_answer(url, server):
    server.answers = [[words("One"), "wait"], [words("Two.")]]

    def talk() -> str:
        with OmniClient(url) as omni:
            try:
                with omni.stream("1") as answer:
                    next(iter(answer))
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                return omni.ask("2").text

    assert await asyncio.to_thread(talk) == "Two."
    await server.until("response.cancel")


def test_events_know_their_words_sound_and_calls():
    said = Event("response.output_audio_transcript.delta", {"delta": "Hel"})
    assert (said.words, said.sound, said.tool_call) == ("Hel", None, None)
    heard = Event("response.output_audio.delta", {"delta": "AAAA"})
    assert heard.words is None
    assert len(heard.sound.pcm) == 1
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": 1}'}
    done = Event("response.output_item.done", {"item": item})
    assert done.tool_call == ToolCall("c", "f", '{"a": 1}')
    cut = Event("response.output_item.done", {"item": item | {"status": "incomplete"}})
    assert cut.tool_call is None


def test_an_event_can_be_had_as_the_class_of_the_official_package():
    from openai.types.realtime import ResponseDoneEvent

    data = {"event_id": "e", "response": {"id": "r", "status": "completed", "timings": {}}}
    typed = Event("response.done", data).typed()
    assert isinstance(typed, ResponseDoneEvent)
    assert typed.response.id == "r"
    with pytest.raises(LookupError, match=r"client\.disconnected is no server event"):
        Event("client.disconnected").typed()


async def test_events_past_the_limit_are_dropped_and_counted():
    box = events.Mailbox(limit=2)
    for number in range(5):
        box.put(Event(str(number)))
    assert box.dropped == 3
    assert (await box.get()).type == "3"
