"""Python functions as tools: what the model is told of them, and how their calls are answered."""

import asyncio
import dataclasses
import enum
import json
import threading
from typing import Annotated, Any, Literal

import pydantic
import pytest
from realtime_fake import FakeRealtime, call, words

from omni.client import AsyncOmniClient, OmniClient, tool
from omni.client.answer import MAX_TOOL_ROUNDS
from omni.client.tools import FunctionTool
from omni.errors import InputError


@dataclasses.dataclass
class Place:
    name: str
    height: float = 0.0


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
    """Tell the weather of a city.

    It is always sunny.

    Args:
        city: Name of the city,
            in English.
        unit (str): Of the temperature.

    Returns:
        A sentence.
    """
    return f"sunny in {city}, 21 {unit}"


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    await asyncio.sleep(0)
    return a + b


@pytest.fixture
def server() -> FakeRealtime:
    return FakeRealtime()


@pytest.fixture
async def url(server):
    async with server.listening() as where:
        yield where


def test_the_docstring_and_the_signature_say_what_the_model_is_told():
    assert tool(weather).wire() == {
        "type": "function",
        "name": "weather",
        "description": "Tell the weather of a city.\n\nIt is always sunny.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city, in English."},
                "unit": {
                    "type": "string",
                    "enum": ["celsius", "fahrenheit"],
                    "default": "celsius",
                    "description": "Of the temperature.",
                },
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    }


def test_name_and_description_can_be_others_and_the_function_stays_callable():
    @tool(name="plus", description="Sum.")
    def add_up(a: int, b: int = 2) -> int:
        """Something else."""
        return a + b

    assert (add_up.name, add_up.description) == ("plus", "Sum.")
    assert add_up(1) == 3


async def test_arguments_arrive_as_the_types_that_the_function_names():
    seen: list[Any] = []

    def everything(
        place: Place,
        colours: list[Colour],
        table: dict[str, int],
        maybe: bool | None = None,
        copy: Annotated[int, pydantic.Field(ge=1)] = 1,
    ) -> None:
        seen.extend([place, colours, table, maybe, copy])

    arguments = {"place": {"name": "Alp"}, "colours": ["red"], "table": {"x": 1}, "copy": 3}
    assert await tool(everything).run(json.dumps(arguments)) == "null"
    assert seen == [Place("Alp"), [Colour.RED], {"x": 1}, None, 3]


async def test_what_a_function_gives_back_becomes_text():
    def given() -> Any:
        return results.pop()

    results = ["plain", 3, None, Place("Alp", 2.0), [Colour.BLUE], {"a": 1}, object()]
    outputs = [await tool(given).run("{}") for _ in range(7)]
    assert outputs[0].startswith('"<object object')
    assert outputs[1:] == [
        '{"a":1}',
        '["blue"]',
        '{"name":"Alp","height":2.0}',
        "null",
        "3",
        "plain",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('{"b": 2}', "a: Field required"),
        ('{"a": "x", "b": 2}', "a: Input should be a valid integer"),
        ('{"a": 1, "b": 2, "c": 3}', "c: Extra inputs"),
        ('{"a": 1', "arguments: Invalid JSON"),
        ("[]", "arguments: Input should be an object"),
    ],
)
async def test_wrong_arguments_are_told_to_the_model_and_the_function_is_not_called(
    arguments, words
):
    output = json.loads(await tool(add).run(arguments))
    assert output["error"] == "invalid arguments"
    assert output["problems"][0].startswith(words)


async def test_an_error_of_the_function_is_told_to_the_model():
    def broken() -> None:
        raise LookupError("no such city")

    assert json.loads(await tool(broken).run("{}")) == {"error": "LookupError: no such city"}


async def test_a_plain_function_does_not_block_the_loop():
    release = threading.Event()

    def slow() -> str:
        return "done" if release.wait(5) else "blocked"

    running = asyncio.create_task(tool(slow).run("{}"))
    await asyncio.sleep(0.01)
    release.set()
    assert await running == "done"


def untyped(city):
    return city


def starred(*cities: str) -> None: ...


def opaque(lock: threading.Lock) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (untyped, "parameter 'city' has no type; write one, like city: str"),
        (starred, "cannot be given by name"),
        (opaque, "a type that JSON cannot fill"),
        (lambda: None, "cannot be a tool's name"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused_in_words(function, words):
    with pytest.raises(InputError, match=words):
        FunctionTool(function)


async def test_a_question_is_answered_with_the_help_of_a_tool(url, server):
    server.answers = [
        [words("Let me look."), call("weather", city="Rome")],
        [words("It is sunny.", sound=True)],
    ]
    async with AsyncOmniClient(url) as omni:
        reply = await omni.ask("How is the weather in Rome?", tools=[weather], temperature=0.5)
    assert reply.text == "Let me look.\nIt is sunny."
    assert [(c.name, c.arguments, c.output) for c in reply.tool_calls] == [
        ("weather", {"city": "Rome"}, "sunny in Rome, 21 celsius")
    ]
    assert reply.usage == {"total_tokens": 6, "input_token_details": {"cached_tokens": 2}}
    assert reply.audio is not None
    first, second = (event["response"] for event in server.of_type("response.create"))
    assert first == second  # the same wishes hold for all of the answer
    assert [one["name"] for one in first["tools"]] == ["weather"]
    (output,) = server.outputs
    assert output["call_id"] == reply.tool_calls[0].id
    assert server.received[-1]["type"] == "response.create"


async def test_calls_of_one_response_run_at_the_same_time_and_are_all_answered_first(url, server):
    both = asyncio.Barrier(2)

    async def meet(name: str) -> str:
        async with asyncio.timeout(5):
            await both.wait()
        return name

    server.answers = [[call("meet", name="a"), call("meet", name="b")], [words("Done.")]]
    async with AsyncOmniClient(url) as omni:
        reply = await omni.ask("Meet", tools=[meet])
    assert [c.output for c in reply.tool_calls] == ["a", "b"]
    kinds = [event["type"] for event in server.received]
    assert kinds[2:] == ["conversation.item.create"] * 2 + ["response.create"]


async def test_a_model_that_does_not_stop_calling_has_to_answer_in_words(url, server):
    server.answers = [[call("add", a=1, b=1)]] * MAX_TOOL_ROUNDS + [[words("Two.")]]
    async with AsyncOmniClient(url) as omni:
        reply = await omni.ask("Add", tools=[add], tool_choice="required")
    choices = [event["response"].get("tool_choice") for event in server.of_type("response.create")]
    assert choices == ["required", *["auto"] * (MAX_TOOL_ROUNDS - 1), "none"]
    assert len(reply.tool_calls) == MAX_TOOL_ROUNDS
    assert reply.text == "Two."


async def test_a_tool_without_a_function_is_left_to_the_caller(url, server):
    server.answers = [[call("door", open=True)], [words("It is open.")]]
    schema = {"type": "function", "name": "door", "parameters": {"type": "object"}}
    async with AsyncOmniClient(url) as omni:
        stream = omni.events()
        reply = await omni.ask("Open the door", tools=[schema])
        (left,) = reply.tool_calls
        assert (left.name, left.arguments, left.output) == ("door", {"open": True}, None)
        async for event in stream:
            if (made := event.tool_call) is not None:
                await omni.send_tool_output(made, "opened")
                await omni.create_response()
            if event.words:
                break
        assert event.words == "It is open."
    assert server.outputs[0]["output"] == "opened"


async def test_tools_of_the_session_are_answered_in_live_talk(url, server):
    server.answers = [[call("weather", city="Oslo")], [words("Sunny.")]]
    async with AsyncOmniClient(url) as omni:
        settings = await omni.update_session(tools=[weather])
        assert settings["tools"][0]["name"] == "weather"
        await omni.send_text("And in Oslo?")
        await omni.create_response()
        async with asyncio.timeout(5):
            async for event in omni.events():
                if event.words:
                    break
    assert event.words == "Sunny."
    assert server.outputs[0]["output"] == "sunny in Oslo, 21 celsius"
    assert len(server.of_type("response.create")) == 2


async def test_tools_of_the_session_serve_questions_too_and_only_once(url, server):
    server.answers = [[call("add", a=1, b=2)], [words("Three.")]] * 2
    async with AsyncOmniClient(url) as omni:
        await omni.update_session(tools=[add])
        for _ in range(2):
            reply = await omni.ask("1 + 2?")
            assert (reply.text, reply.tool_calls[0].output) == ("Three.", "3")
    assert len(server.of_type("response.create")) == 4
    assert len(server.outputs) == 2


async def test_an_answer_to_a_tool_waits_while_the_user_gets_another_answer(url, server):
    started, release = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        started.set()
        await release.wait()
        return "ready"

    server.answers = [[call("slow")], ["wait"], [words("Here it is.")]]
    async with AsyncOmniClient(url) as omni:
        await omni.update_session(tools=[slow])
        await omni.create_response()
        await started.wait()
        await omni.send({"type": "response.create"})  # the user spoke meanwhile
        events = omni.events()
        while (await anext(events)).type != "response.done":
            pass
        while (event := await anext(events)).type != "response.created":
            pass
        release.set()
        await server.until("conversation.item.create")
        await asyncio.sleep(0.05)
        assert len(server.of_type("response.create")) == 2
        ended = {"id": event.response["id"], "status": "cancelled", "output": []}
        await server.tell(server.sockets[0], "response.done", response=ended)
        await server.until("response.create", 3)


async def test_pieces_tell_of_a_call_before_it_runs_and_of_its_output(url, server):
    server.answers = [[call("add", a=1, b=2)], [words("Three", ".")]]
    async with (
        AsyncOmniClient(url) as omni,
        omni.stream("1 + 2?", tools=[add]) as answer,
    ):
        pieces = [piece async for piece in answer]
    assert [piece.tool_call.output for piece in pieces if piece.tool_call] == [None, "3"]
    assert [piece.text for piece in pieces if piece.text] == ["Three", "."]
    assert answer.reply.text == "Three."


async def test_the_blocking_client_runs_tools_and_ends_their_thread(url, server):
    server.answers = [[call("weather", city="Rome")], [words("Sunny.")]]

    def talk() -> str:
        with OmniClient(url) as omni:
            return omni.ask("How is the weather?", tools=[weather]).tool_calls[0].output

    before = threading.active_count()
    assert await asyncio.to_thread(talk) == "sunny in Rome, 21 celsius"
    assert threading.active_count() <= before + 1  # the thread of this test's `to_thread`
