"""Embeddings through OpenAI's own client, over a stand-in for the model."""

import base64
import threading

import numpy as np
import openai
import pytest
from http_server import served

from omni import embedding
from omni.errors import WeightsError


class Letters:
    """Counts letters; ``gate`` can hold it up."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def encode(self, texts):
        self.gate.wait(10)
        rows = np.zeros((len(texts), 512), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for letter in text:
                row[ord(letter) % 512] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def tokens(self, texts):
        return [len(text.split()) for text in texts]


@pytest.fixture(scope="module")
def server():
    with served() as running:
        yield running


@pytest.fixture(autouse=True)
def model(monkeypatch):
    letters = Letters()
    monkeypatch.setattr(embedding, "embedder", lambda: letters)
    return letters


def test_openais_client_gets_one_vector_for_each_text(server):
    made = server.openai.embeddings.create(
        model="text-embedding-3-small", input=["two words", "one"]
    )
    assert [item.index for item in made.data] == [0, 1]
    want = Letters().encode(["two words", "one"])
    np.testing.assert_allclose([item.embedding for item in made.data], want, atol=1e-6)
    assert made.usage.prompt_tokens == made.usage.total_tokens == 3
    assert made.model == "use-multilingual-v3"
    assert made.model in [known.id for known in server.openai.models.list()]


def test_floats_and_base64_are_the_same_numbers(server):
    body = {"input": "some text", "dimensions": 512}
    floats = server.http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    packed = server.http.post("/v1/embeddings", json=body | {"encoding_format": "base64"})
    raw = base64.b64decode(packed.json()["data"][0]["embedding"])
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), np.array(floats, np.float32))


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": ["good", "  "]}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"dimensions": 256}, "dimensions"),
        ({"model": "no-such-model"}, "model"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(server, change, param):
    answer = server.http.post("/v1/embeddings", json={"input": "text"} | change)
    assert answer.status_code in (400, 404)
    error = answer.json()["error"]
    assert error["param"].split(".")[0] == param
    assert error["message"]


def test_a_model_that_cannot_be_fetched_is_said_so(server, monkeypatch):
    def missing():
        raise WeightsError("use-multilingual-v3 is not in the cache, and no source gives it")

    monkeypatch.setattr(embedding, "embedder", missing)
    with pytest.raises(openai.InternalServerError, match="no source gives it"):
        server.openai.embeddings.create(model="omni", input="text")


def test_the_server_answers_others_while_it_embeds(server, model):
    model.gate.clear()
    waiting = threading.Thread(
        target=lambda: server.openai.embeddings.create(model="omni", input="text")
    )
    waiting.start()
    try:
        assert server.http.get("/health").status_code == 200
        assert waiting.is_alive()
    finally:
        model.gate.set()
        waiting.join(10)
    assert not waiting.is_alive()
