"""Searching over HTTP, in an index of a small encoder."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from http_server import served
from PIL import Image

pytest.importorskip("lancedb")

from omni.search import Encoded, Index, Item, read_items


class Colours:
    """Means by the first letter, looks by the mean colour."""

    models = {"words": "letters"}  # noqa: RUF012
    widths = (26, 4)

    def items(self, frames, words) -> Encoded:
        looks = [np.zeros(4) if frame is None else self.look(frame) for frame in frames]
        count = len(words)
        return Encoded(
            self.words(words), np.stack(looks).astype(np.float32), [()] * count, ["dot"] * count
        )

    def words(self, texts):
        return np.stack([np.eye(26, dtype=np.float32)[ord(text[0].lower()) - 97] for text in texts])

    def look(self, frame):
        mean = np.append(frame.pixels.mean(axis=(0, 1)), 1.0)
        return (mean / np.linalg.norm(mean)).astype(np.float32)


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    for name, colour in (("apple", "red"), ("berry", "blue")):
        (folder / "pictures").mkdir(exist_ok=True)
        (folder / "pictures" / f"{name}.png").write_bytes(png(colour))
    index = Index.open(folder / "index", Colours(), create=True)
    index.build(read_items(folder / "pictures"), lambda _: None)
    index.add([Item("cup", title="cup", price=9.0, stamp="1")], lambda _: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.hub.open_index", lambda path: Index.open(path, Colours()))
        with served(index=folder / "index") as running:
            yield running


def test_a_description_finds_things_and_their_pictures(server) -> None:
    answer = server.http.post("/v1/search", json={"query": "find me an apple", "limit": 1}).json()
    (found,) = answer["data"]
    assert found["title"] == "apple"
    assert found["score"] == pytest.approx(1.0, abs=0.1)
    assert "picture" not in found
    assert answer["query"]["text"] == "apple"
    assert server.http.get(found["picture_url"]).content == png("red")


def test_prices_are_heeded_and_said(server) -> None:
    answer = server.http.post("/v1/search", json={"query": "cup under 5"}).json()
    assert answer["data"] == []
    assert answer["query"]["max_price"] == 5.0


def test_a_picture_finds_what_looks_alike(server) -> None:
    url = f"data:image/png;base64,{base64.b64encode(png('navy')).decode()}"
    answer = server.http.post("/v1/search", json={"image": url}).json()
    assert answer["data"][0]["title"] == "berry"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": " "}, "query"),
        ({"query": "a" * 10_000}, "query"),
        ({"query": "a", "limit": 0}, "limit"),
        ({"image": "data:image/png;base64,AAAA"}, None),
    ],
)
def test_what_cannot_be_searched_for_is_refused(server, body, param) -> None:
    answer = server.http.post("/v1/search", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_only_pictures_of_the_index_are_given(server) -> None:
    for id in (str(Path(__file__)), "/etc/passwd", "cup", "x' OR '1'='1"):
        answer = server.http.get("/v1/search/pictures", params={"id": id})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "media_not_found"


def test_the_hit_rate_is_among_the_metrics(server) -> None:
    for _ in range(2):
        server.http.post("/v1/search", json={"query": "blue berry"})
    text = server.http.get("/metrics").text
    assert 'omni_search_cache_total{cache="queries",result="hits"}' in text
    assert 'omni_search_cache_hit_rate{cache="vectors"}' in text


def test_without_an_index_the_answer_says_how_to_make_one() -> None:
    with served() as running:
        answer = running.http.post("/v1/search", json={"query": "apple"})
    assert answer.status_code == 400
    assert "omni index build" in answer.json()["error"]["message"]
