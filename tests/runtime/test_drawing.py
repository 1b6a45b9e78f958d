"""Pictures as answers, over a painter that paints one colour: engine, Realtime, HTTP and SDK."""

import base64
import io
import json
import threading

import numpy as np
import openai
import pytest
from http_server import served
from PIL import Image

from decoders.pictures import Progress
from fakes import Running, fake_parts
from omni import events as ev
from omni.client import OmniClient
from omni.draw.wishes import wish
from omni.errors import InputError, WeightsError
from runtime.assembly import Parts

STEPS = 8


class Plain:
    """Paints 64 by 64 pixels: red ones for red, blue ones otherwise; ``gate`` can hold it up."""

    name = "plain"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.painted: list[tuple[str, int]] = []

    def knows(self, wanted):
        return wanted.subject is not None

    def paint(self, wanted, *, seed, report=lambda progress: None):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[..., 0 if "red" in wanted.prompt else 2] = 255
        for step in range(1, STEPS + 1):
            self.gate.wait(10)
            report(Progress(step, STEPS, pixels))
        self.painted.append((wanted.prompt, seed))
        return pixels


class Paints:
    def __init__(self, problem: str | None = None) -> None:
        self.problem = problem
        self.painter = Plain()

    def load(self, read):
        if self.problem:
            raise InputError(self.problem, code="unsupported")
        return self.painter


def with_painter(paints: Paints) -> Parts:
    return Parts(**{**vars(fake_parts()), "painters": paints})


def colour(data: bytes) -> tuple[int, ...]:
    return Image.open(io.BytesIO(data)).convert("RGB").getpixel((5, 5))


def red(data: bytes) -> bool:
    return colour(data) == (255, 0, 0)


@pytest.fixture
def paints():
    return Paints()


@pytest.fixture
def server(paints):
    with served(with_painter(paints)) as running:
        yield running


# The engine


def test_words_and_their_sound_come_before_the_picture_and_coarse_versions_before_it(paints):
    with Running(real={"painters": paints}) as running:
        running.open("a")
        events = running.answer("a", "draw", wish=wish("draw a red apple"))
    kinds = [type(e) for e in events]
    said = "".join(e.text for e in events if isinstance(e, ev.TextDelta))
    assert said == "Here is a red apple."
    last_sound = len(kinds) - 1 - kinds[::-1].index(ev.AudioDelta)
    order = [ev.PictureStarted, *[ev.PicturePartial] * 3, ev.PictureEnded, ev.ResponseDone]
    assert kinds[last_sound + 1 :] == order
    assert [e.index for e in events if isinstance(e, ev.PicturePartial)] == [0, 1, 2]
    assert all(red(e.data) for e in events if isinstance(e, ev.PicturePartial | ev.PictureEnded))
    assert events[-1].reason == "stop"


def test_who_has_no_painter_answers_in_words():
    with Running() as running:
        running.open("a")
        events = running.answer("a", "draw a cat", wish=wish("draw a cat"))
    assert "".join(e.text for e in events if isinstance(e, ev.TextDelta)) == "You said draw a cat."


def test_that_nothing_is_installed_is_said_and_no_picture_begins():
    with Running(real={"painters": Paints("no picture decoder is installed")}) as running:
        running.open("a")
        events = running.answer("a", "draw", wish=wish("draw a cat"))
    said = "".join(e.text for e in events if isinstance(e, ev.TextDelta))
    assert said == "I cannot draw: no picture decoder is installed."
    assert not any(isinstance(e, ev.PictureStarted) for e in events)


def test_a_picture_that_is_cancelled_stops_between_two_steps(paints):
    paints.painter.gate.clear()
    with Running(real={"painters": paints}) as running:
        running.open("a")
        running.ask("a", "draw", wish=wish("draw a cat"))
        running.until("a", ev.PictureStarted)
        running.engine.submit("a", ev.Cancel("r"))
        paints.painter.gate.set()
        assert running.until("a", ev.ResponseDone)[-1].reason == "cancelled"
    assert paints.painter.painted == []


def test_a_painter_that_fails_ends_the_answer_with_its_reason(paints):
    def fail(wanted, *, seed, report):
        raise WeightsError("the weights are damaged")

    paints.painter.paint = fail
    with Running(real={"painters": paints}) as running:
        running.open("a")
        done = running.answer("a", "draw", wish=wish("draw a cat"))[-1]
    assert done.reason == "failed"
    assert "the weights are damaged" in done.error


# Realtime and the SDK


def test_asked_for_a_picture_the_reply_has_one_and_it_can_be_made_blue(server, paints):
    with OmniClient(server.url) as omni:
        first = omni.ask("Draw me a red apple.")
        assert first.text == "Here is a red apple."
        assert first.audio is not None
        assert [red(image) for image in first.images] == [True]
        second = omni.ask("Now make it blue.")
        assert colour(second.images[0]) == (0, 0, 255)
        assert omni.ask("How are you?").images == ()
        assert omni.ask("Now make it blue.").images == ()  # there is nothing to be blue any more
    assert [prompt for prompt, _ in paints.painter.painted] == ["a red apple", "a blue apple"]


def test_chinese_is_answered_in_chinese(server):
    with OmniClient(server.url) as omni:
        reply = omni.ask("画一个红苹果")
    assert reply.text == "好的，我来画一个红色的苹果。"
    assert red(reply.images[0])


async def test_partial_pictures_and_the_item_are_those_of_openais_types(server):
    from openai.types.responses import ResponseImageGenCallPartialImageEvent
    from openai.types.responses.response_output_item import ImageGenerationCall

    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none")
    async with client, client.realtime.connect(model="omni") as connection:
        content = [{"type": "input_text", "text": "draw a red apple"}]
        item = {"type": "message", "role": "user", "content": content}
        await connection.conversation.item.create(item=item)
        await connection.response.create()
        events = []
        while not events or events[-1]["type"] != "response.done":
            events.append(json.loads(await connection.recv_bytes()))
    partial = [e for e in events if e["type"].endswith(".partial_image")]
    assert [e["partial_image_index"] for e in partial] == [0, 1, 2]
    for event in partial:
        ResponseImageGenCallPartialImageEvent.model_validate(event | {"sequence_number": 0})
        assert red(base64.b64decode(event["partial_image_b64"]))
    message, picture = events[-1]["response"]["output"]
    assert message["type"] == "message"
    made = ImageGenerationCall.model_validate(picture)
    assert made.status == "completed"
    assert made.revised_prompt == "a red apple"
    assert red(base64.b64decode(made.result))
    added = next(
        e for e in events if e["type"] == "response.output_item.added" and e["output_index"]
    )
    assert added["item"]["result"] is None


def test_a_client_with_tools_of_its_own_gets_no_picture(server, paints):
    def clock() -> str:
        """Tell the time."""
        return "noon"

    with OmniClient(server.url) as omni:
        assert omni.ask("draw a red apple", tools=[clock]).images == ()


# HTTP


def test_openais_client_gets_pictures(server):
    made = server.openai.images.generate(prompt="a red apple", n=2, size="128x128")
    assert len(made.data) == 2
    assert made.size == "128x128"
    for one in made.data:
        data = base64.b64decode(one.b64_json)
        assert red(data)
        assert Image.open(io.BytesIO(data)).size == (128, 128)
        assert one.revised_prompt == "a red apple"


def test_a_chat_completion_has_the_picture_beside_its_words(server, paints):
    asked = {"role": "user", "content": "Draw a red apple."}
    more = [
        asked,
        {"role": "assistant", "content": "Here."},
        {"role": "user", "content": "Make it blue."},
    ]

    def ask(messages, **options):
        return server.openai.chat.completions.create(model="omni", messages=messages, **options)

    message = ask([asked]).choices[0].message
    assert message.content == "Here is a red apple."
    head, data = message.images[0]["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    assert red(base64.b64decode(data))
    ask(more)
    assert paints.painter.painted[-1][0] == "a blue apple"
    deltas = [chunk.choices[0].delta for chunk in ask([asked], stream=True)]
    assert "".join(d.content or "" for d in deltas) == "Here is a red apple."
    assert sum(len(getattr(d, "images", ())) for d in deltas) == 1
    plain = ask([{"role": "user", "content": "How are you?"}]).choices[0].message
    assert not hasattr(plain, "images")


def test_a_seed_is_used_and_told(server, paints):
    body = {"prompt": "draw a cat", "seed": 5, "n": 2}
    data = server.http.post("/v1/images/generations", json=body).json()["data"]
    assert [(d["seed"], d["known"], d["revised_prompt"]) for d in data] == [
        (5, True, "a cat"), (6, True, "a cat"),
    ]  # fmt: skip
    assert paints.painter.painted == [("a cat", 5), ("a cat", 6)]
    unknown = server.http.post("/v1/images/generations", json={"prompt": "a wug"}).json()
    assert [d["known"] for d in unknown["data"]] == [False]


def test_a_stream_has_as_many_coarse_versions_as_were_asked_for(server):
    events = list(
        server.openai.images.generate(
            model="omni", prompt="a red apple", stream=True, partial_images=2, output_format="webp"
        )
    )
    kinds = ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [e.type for e in events] == kinds
    assert [e.partial_image_index for e in events[:2]] == [0, 1]
    assert Image.open(io.BytesIO(base64.b64decode(events[2].b64_json))).format == "WEBP"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "  "}, "prompt"),
        ({"prompt": "x" * 32_001}, "prompt"),
        ({"prompt": "a cat", "size": "100x200"}, "size"),
        ({"prompt": "a cat", "size": "8x8"}, "size"),
        ({"prompt": "a cat", "n": 11}, "n"),
        ({"prompt": "a cat", "response_format": "url"}, "response_format"),
        ({"prompt": "a cat", "background": "transparent"}, "background"),
        ({"prompt": "a cat", "model": "nobody"}, "model"),
        ({}, "prompt"),
    ],
)
def test_what_cannot_be_drawn_so_is_named(server, body, param):
    answer = server.http.post("/v1/images/generations", json=body)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param


def test_ten_thousand_characters_are_drawn_as_far_as_they_are_known(server):
    body = {"prompt": "a house " * 1250}
    data = server.http.post("/v1/images/generations", json=body).json()["data"]
    assert data[0]["revised_prompt"] == "a house"


def test_a_server_that_cannot_draw_says_how_it_could():
    with served(with_painter(Paints("no picture decoder is installed; train one"))) as running:
        answer = running.http.post("/v1/images/generations", json={"prompt": "a cat"})
    assert answer.status_code == 400
    assert "train one" in answer.json()["error"]["message"]
    with served() as running:
        answer = running.http.post("/v1/images/generations", json={"prompt": "a cat"})
    assert answer.json()["error"]["code"] == "unsupported"
