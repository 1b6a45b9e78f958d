"""What happens when the connection breaks: the session goes on, nothing acknowledged is lost."""

import asyncio

import pytest
from realtime_fake import FakeRealtime, call, words

from omni.client import AsyncOmniClient, OmniServerError, connection
from omni.errors import ConnectionClosedError


@pytest.fixture
def server() -> FakeRealtime:
    return FakeRealtime()


@pytest.fixture
async def url(server):
    async with server.listening() as where:
        yield where


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.01)


async def drop(server: FakeRealtime, code: int = 1011) -> None:
    await server.sockets[-1].close(code, "the server is shutting down")


async def until(events, kind: str) -> list[str]:
    """Types of the events up to one of ``kind``."""
    seen = []
    async with asyncio.timeout(5):
        while not seen or seen[-1] != kind:
            seen.append((await anext(events)).type)
    return seen


async def test_a_lost_connection_is_restored_and_the_events_say_so(url, server):
    async with AsyncOmniClient(url) as omni:
        assert (await omni.ask("Are you there?")).text == "Yes."
        before = omni.session_id
        events = omni.events()
        await drop(server)
        seen = await until(events, "client.reconnected")
        seen = seen[seen.index("client.disconnected") :]
        assert seen == [
            "client.disconnected",
            "session.created",
            *["conversation.item.added", "conversation.item.done"] * 2,
            "client.reconnected",
        ]
        assert omni.session_id == before
        assert server.queries[1].endswith(f"session_id={before}")
        assert (await omni.ask("And now?")).text == "Yes."
    assert len(server.sessions) == 1


async def test_what_the_server_never_got_is_sent_again_in_order(url, server):
    async with AsyncOmniClient(url) as omni:
        events = omni.events()
        server.deaf_to = {"conversation.item.create", "response.create"}
        await omni.send_text("one")
        await omni.send_text("two")
        await omni.create_response()
        await asyncio.sleep(0.05)
        server.deaf_to = set()
        await drop(server)
        await until(events, "response.done")
    items = server.of_type("conversation.item.create")
    assert [event["item"]["content"][0]["text"] for event in items] == ["one", "two"]
    assert len(server.of_type("response.create")) == 1


async def test_what_the_server_has_is_not_sent_twice(url, server):
    async with AsyncOmniClient(url) as omni:
        events = omni.events()
        await omni.send_text("one")
        await until(events, "conversation.item.done")
        server.deaf_to = {"response.create"}
        await omni.create_response()
        await asyncio.sleep(0.05)
        server.deaf_to = set()
        await drop(server)
        await until(events, "response.done")
        await drop(server)
        await until(events, "client.reconnected")
        await omni.ask("two")
    assert len(server.of_type("conversation.item.create")) == 2
    assert len(server.of_type("response.create")) == 2


async def test_settings_that_got_lost_are_set_after_all(url, server):
    async with AsyncOmniClient(url) as omni:
        server.deaf_to = {"session.update"}
        updating = asyncio.create_task(omni.update_session(instructions="Be brief."))
        await asyncio.sleep(0.05)
        server.deaf_to = set()
        await drop(server)
        assert (await updating)["instructions"] == "Be brief."


async def test_a_question_whose_answer_had_not_begun_is_answered_after_all(url, server):
    server.answers = [["drop"], [words("Paris.")]]
    async with AsyncOmniClient(url) as omni:
        assert (await omni.ask("Capital of France?")).text == "Paris."
    assert len(server.of_type("conversation.item.create")) == 1


async def test_an_answer_that_broke_off_is_an_error_and_the_session_goes_on(url, server):
    server.answers = [[words("It is "), "drop"], [words("Paris.")]]
    async with AsyncOmniClient(url) as omni:
        with pytest.raises(ConnectionClosedError, match="in the middle of this answer"):
            await omni.ask("Capital of France?")
        assert (await omni.ask("Again, please")).text == "Paris."
    assert len(server.sessions) == 1


async def test_the_outputs_of_tools_survive_a_lost_connection(url, server):
    async def time() -> str:
        """Tell the time."""
        server.answers = [[words("Noon.")]]
        await drop(server)
        return "12:00"

    server.answers = [[call("time")]]
    async with AsyncOmniClient(url) as omni:
        reply = await omni.ask("How late is it?", tools=[time])
    assert reply.text == "Noon."
    assert [item["output"] for item in server.outputs] == ["12:00"]


async def test_sending_waits_until_the_connection_is_back(server, unused_tcp_port):
    async with server.listening(unused_tcp_port) as url:
        omni = await AsyncOmniClient(url).connect()
        await omni.ask("Hello")
    late = asyncio.create_task(omni.send_text("And?"))
    await asyncio.sleep(0.1)
    assert not late.done()
    async with server.listening(unused_tcp_port):
        await asyncio.wait_for(late, 5)
        await server.until("conversation.item.create", 2)
        await omni.close()


async def test_closing_while_the_server_is_gone_ends_all(server, unused_tcp_port):
    before = asyncio.all_tasks()
    async with server.listening(unused_tcp_port) as url:
        omni = await AsyncOmniClient(url).connect()
    waiting = asyncio.create_task(omni.send_text("Hello"))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(omni.close(), 5)
    with pytest.raises(ConnectionClosedError):
        await waiting
    assert {task for task in asyncio.all_tasks() - before if "client" in task.get_name()} == set()


async def test_a_timeout_while_the_server_is_gone_comes_in_time(server, unused_tcp_port):
    async with server.listening(unused_tcp_port) as url:
        omni = await AsyncOmniClient(url).connect()
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError, match="longer timeout"):
            await omni.ask("Hello", timeout=0.2)
    await omni.close()


@pytest.mark.parametrize("code", [1000, 1008, 1013])
async def test_a_server_that_ends_the_session_on_purpose_is_believed(url, server, code):
    async with AsyncOmniClient(url) as omni:
        await drop(server, code)
        with pytest.raises(Exception, match="shutting down"):  # Busy or closed
            await omni.ask("Hello")
    assert len(server.queries) == 1


async def test_without_reconnect_a_lost_connection_is_an_error(url, server):
    async with AsyncOmniClient(url, reconnect=False) as omni:
        await drop(server)
        with pytest.raises(ConnectionClosedError, match="shutting down"):
            await omni.ask("Hello")


async def test_a_server_that_forgot_the_session_is_named(url, server):
    async with AsyncOmniClient(url) as omni:
        await omni.ask("Hello")
        server.sessions.clear()
        await drop(server)
        with pytest.raises(ConnectionClosedError, match=r"cannot be resumed: there is no session"):
            await omni.ask("Hello")


async def test_a_session_in_which_nothing_was_said_is_begun_anew_with_its_settings(url, server):
    async with AsyncOmniClient(url) as omni:
        await omni.update_session(instructions="Be brief.", audio={"output": {"voice": "a"}})
        await omni.update_session(audio={"output": {"speed": 1.5}})
        before, events = omni.session_id, omni.events()
        server.sessions.clear()
        await drop(server)
        await until(events, "client.reconnected")
        await omni.ask("Hello")
        assert omni.session_id != before
        assert omni.session["instructions"] == "Be brief."
        assert omni.session["audio"] == {"output": {"voice": "a", "speed": 1.5}}


async def test_a_server_that_opens_another_session_instead_is_named(url, server):
    async with AsyncOmniClient(url) as omni:
        await omni.ask("Hello")
        server.sessions[omni.session_id]["settings"] = {"id": "sess_other"}
        await drop(server)
        with pytest.raises(ConnectionClosedError, match="does not know how to resume"):
            await omni.ask("Hello")


async def test_tries_end_after_a_while(server, unused_tcp_port, monkeypatch):
    monkeypatch.setattr(connection, "GIVE_UP", 0.1)
    async with server.listening(unused_tcp_port) as url:
        omni = await AsyncOmniClient(url).connect()
    with pytest.raises(ConnectionClosedError, match=r"not be resumed within 0\.1 s"):
        await omni.send_text("Hello")
    await omni.close()


async def test_a_full_server_is_tried_again(url, server):
    async with AsyncOmniClient(url) as omni:
        events = omni.events()
        server.refuse = (1013, "8 of 8 sessions are in use")
        await drop(server)
        await asyncio.sleep(0.1)
        server.refuse = None
        await until(events, "client.reconnected")


async def test_an_earlier_session_is_resumed_by_its_id(url, server):
    async with AsyncOmniClient(url) as first:
        await first.ask("Hello")
        name = first.session_id
    async with AsyncOmniClient(url, session_id=name) as second:
        events = second.events()
        assert (await until(events, "conversation.item.done"))[0] == "session.created"
        assert second.session_id == name


async def test_an_earlier_session_that_is_gone_is_an_error_of_the_server(url):
    with pytest.raises(OmniServerError, match="no session sess_x") as caught:
        await AsyncOmniClient(url, session_id="sess_x").connect()
    assert caught.value.code == "session_not_found"
