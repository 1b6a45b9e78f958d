"""Finding things in a conversation: shown as an item, said in a sentence."""

import io
import json
from typing import Any

import numpy as np
import pytest
from http_server import served
from PIL import Image
from websockets.sync.client import connect

pytest.importorskip("lancedb")

from omni.client import OmniClient
from omni.search import Encoded, Index, Item
from omni.search.asking import asked_to_find
from omni.types import ImageFrame
from runtime.search_tool import find

WORDS = ("cup", "shoe", "杯子")


class Words:
    """One axis for each of `WORDS`."""

    models = {"words": "axes"}  # noqa: RUF012
    widths = (4, 2)

    def items(self, frames, words) -> Encoded:
        count = len(words)
        return Encoded(
            self.words(words), np.ones((count, 2), np.float32), [()] * count, [""] * count
        )

    def words(self, texts):
        rows = np.array([[*(float(word in text) for word in WORDS), 0.1] for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def look(self, frame: ImageFrame):
        return np.ones(2, np.float32)


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Index:
    folder = tmp_path_factory.mktemp("things")
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "PNG")
    (folder / "cup.png").write_bytes(file.getvalue())
    index = Index.open(folder / "index", Words(), create=True)
    things = [
        Item("cup", folder / "cup.png", "red cup", "", 9.5, "EUR", stamp="1"),
        Item("other", folder / "cup.png", "blue cup", "", 40.0, "EUR", stamp="1"),
        Item("shoe", None, "shoe", stamp="1"),
        Item("杯子", None, "杯子", "", 20.0, "CNY", stamp="1"),
    ]
    index.build(things, lambda _: None)
    return index


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Find me something to drink coffee from.", "something to drink coffee from."),
        ("could you show me a red dress?", "a red dress"),
        ("search for red shoes under 50", "red shoes under 50"),
        ("I'm looking for a birthday present", "a birthday present"),
        ("Do you have any pictures of cats?", "cats"),
        ("给我找一个红色的杯子", "一个红色的杯子"),
        ("有没有狗的照片？", "狗的照片"),
        ("show me how to tie a tie", None),
        ("find out who won", None),
        ("find the square root of nine", None),
        ("Find 3 times 4", None),
        ("search for the meaning of life", None),
        ("show me what you can do", None),
        ("I found a cat yesterday", None),
        ("What is the capital of France?", None),
        ("我找不到我的手机", None),
        ("帮我找出答案", None),
        ("find me " + "x" * 1000, None),
    ],
)
def test_plain_requests_are_searched_for_and_talk_is_not(text: str, wanted: str | None) -> None:
    assert asked_to_find(text) == wanted


def test_what_fits_is_named_with_its_price_in_the_language_of_the_request(index: Index) -> None:
    found = find(index, "a cup under 50")
    assert found.said == "I found 2 things: red cup for 9.5 euros and blue cup for 40 euros."
    results = json.loads(found.output)["results"]
    assert [result["id"] for result in results] == ["cup", "other"]
    assert results[0]["picture_url"] == "/v1/search/pictures?id=cup"
    assert "picture" not in results[0]
    assert find(index, "杯子").said == "我找到了一个：杯子，20元。"


def test_what_does_not_fit_is_not_shown(index: Index) -> None:
    assert find(index, "a bicycle").said == "I found nothing that fits."
    assert find(index, "cup under 5").said == "I found nothing that fits."


def test_a_search_that_breaks_is_said_and_the_conversation_goes_on(index: Index) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the disk is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "search", broken)
        assert "does not work" in find(index, "cup").said


def test_in_a_conversation_it_is_an_item_and_a_sentence(index: Index) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.hub.open_index", lambda path: Index.open(path, Words()))
        with served(index=index.directory) as running:
            shown = ask(running.url, "Find me a cup, please")
            talk = ask(running.url, "hello there")
            with OmniClient(running.url) as omni:
                reply = omni.ask("show me a cup")
    call, message = shown["output"]
    assert (call["type"], call["name"]) == ("mcp_call", "search")
    assert json.loads(call["arguments"]) == {"query": "a cup, please"}
    assert json.loads(call["output"])["results"][0]["id"] == "cup"
    assert message["content"][0]["text"].startswith("I found 2 things: red cup")
    assert shown["status"] == "completed"
    assert [item["type"] for item in talk["output"]] == ["message"]
    assert reply.text == message["content"][0]["text"]


def ask(url: str, text: str) -> dict[str, Any]:
    """The response to a written message."""
    item = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": text}],
    }
    with connect(f"{url.replace('http', 'ws', 1)}/v1/realtime") as socket:
        socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        socket.send(
            json.dumps({"type": "response.create", "response": {"output_modalities": ["text"]}})
        )
        while (event := json.loads(socket.recv(timeout=20)))["type"] != "response.done":
            assert event["type"] != "error", event
    response: dict[str, Any] = event["response"]
    return response
