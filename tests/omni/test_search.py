"""Finding things by description, with an encoder that is small enough to be understood."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("lancedb")

from omni.errors import BusyError, InputError
from omni.search import Encoded, Index, Item, Recent, Report, Unusable, read_items
from omni.search.index import _writing
from omni.types import ImageFrame

WORDS = ("dress", "mug", "shoe", "floral", "silk")


class WordEncoder:
    """One axis for each of `WORDS`, and one that is never zero; looks are mean colours."""

    def __init__(self, version: str = "1") -> None:
        self.models = {"words": f"axes@{version}"}
        self.widths = (len(WORDS) + 1, 4)
        self.asked: list[str] = []

    def items(self, frames, words) -> Encoded:
        meaning = np.stack([self._axes(text) for text in words])
        look = np.stack([np.zeros(4) if f is None else self.look(f) for f in frames])
        return Encoded(meaning, look.astype(np.float32), [()] * len(words), [""] * len(words))

    def words(self, texts):
        self.asked += texts
        return np.stack([self._axes(text) for text in texts])

    def look(self, frame: ImageFrame):
        mean = np.append(frame.pixels.mean(axis=(0, 1)), 1.0)
        return (mean / np.linalg.norm(mean)).astype(np.float32)

    def _axes(self, text: str):
        axes = np.array([*(float(word in text.lower()) for word in WORDS), 0.1], np.float32)
        return axes / np.linalg.norm(axes)


def heard(_: Report) -> None:
    pass


def goods() -> list[Item | Unusable]:
    def item(id: str, title: str, price: float | None, **attributes: str) -> Item:
        return Item(id, None, title, "", price, "EUR", attributes, stamp=f"{title}{price}")

    return [
        item("summer", "summer dress floral", 39.0, colour="red", length="long"),
        item("evening", "evening dress silk", 120.0, colour="red", length="long"),
        item("maxi", "floral dress", 45.0, colour="blue", length="long"),
        item("mug", "mug", 9.5, colour="white"),
        item("shoe", "shoe", None, colour="black", maker="O'Neill"),
    ]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index.open(tmp_path / "index", WordEncoder(), create=True)
    made.build(goods(), heard)
    return made


def ids(index: Index, request: str, **options) -> list[str]:
    return [hit.id for hit in index.search(request, **options).hits]


def save(path: Path, colour: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), colour).save(path)
    return path


def test_meaning_and_attributes_decide_the_order(index: Index) -> None:
    assert ids(index, "red floral dress, long")[:3] == ["summer", "maxi", "evening"]


def test_a_price_in_the_request_is_a_condition(index: Index) -> None:
    assert set(ids(index, "dress under 50")) == {"summer", "maxi", "mug"}
    assert ids(index, "a dress for 100 to 150 euros") == ["evening"]
    in_dollars = index.search("dress under 50 dollars")
    assert in_dollars.hits == ()
    assert "USD" in in_dollars.notes[0]


def test_what_is_not_wanted_is_not_found(index: Index) -> None:
    assert "summer" not in ids(index, "dress, not red")
    assert ids(index, "dress, not red")[0] == "maxi"
    assert set(ids(index, "dress without silk")[:2]) == {"summer", "maxi"}


def test_a_request_may_be_nothing_but_a_price(index: Index) -> None:
    assert set(ids(index, "under 10")) == {"mug"}


def test_quotes_in_a_request_or_an_attribute_are_just_characters(index: Index) -> None:
    assert ids(index, "shoe o'neill")[0] == "shoe"
    assert "shoe" not in ids(index, "dress, not o'neill")
    assert index.delete(["it's not there'); DROP"]) == 0


def test_a_price_is_not_heeded_where_nothing_has_one(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index", WordEncoder(), create=True)
    index.build([Item("mug", title="mug", stamp="1")], heard)
    found = index.search("mug under 5")
    assert [hit.id for hit in found.hits] == ["mug"]
    assert "price" in found.notes[0]


def test_a_picture_finds_pictures_that_look_alike(tmp_path: Path) -> None:
    for colour in ("red", "blue", "green"):
        save(tmp_path / "pictures" / f"{colour}.png", colour)
    index = Index.open(tmp_path / "index", WordEncoder(), create=True)
    index.build(read_items(tmp_path / "pictures"), heard)
    asked = ImageFrame(np.full((8, 8, 3), (240, 10, 10), np.uint8))
    found = index.search(picture=asked).hits
    assert Path(found[0].picture or "").name == "red.png"
    assert found[0].score > 0.99 > found[1].score
    assert index.search("mug", asked).hits[0].id == found[0].id


def test_building_again_encodes_only_what_has_changed(index: Index) -> None:
    items = goods()
    items[0] = Item("summer", None, "summer mug", "", 39.0, "EUR", {}, stamp="other")
    del items[3]
    report = index.build([*items, Item("new", title="silk", stamp="1")], heard)
    assert (report.added, report.updated, report.unchanged, report.deleted) == (1, 1, 3, 1)
    assert len(index) == 5
    assert ids(index, "silk")[0] == "new"
    assert ids(index, "mug")[0] == "summer"


def test_add_leaves_known_items_and_update_leaves_new_ones(index: Index) -> None:
    changed = Item("mug", title="shoe", stamp="other")
    new = Item("new", title="silk", stamp="1")
    added = index.add([changed, new], heard)
    assert (added.added, added.updated, added.left_out, len(index)) == (1, 0, 1, 6)
    updated = index.update([changed, Item("newer", title="silk", stamp="1")], heard)
    assert (updated.added, updated.updated, updated.left_out, len(index)) == (0, 1, 1, 6)
    assert index.delete(["mug", "mug2"]) == 1
    assert "mug" not in ids(index, "shoe")


def test_of_items_with_the_same_id_the_first_counts(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index", WordEncoder(), create=True)
    twice = [Item("a", title="mug", stamp="1"), Item("b", title="shoe", stamp="1")]
    report = index.build([*twice, Item("a", title="silk", stamp="2")], heard)
    assert (len(index), report.unusable) == (2, 1)
    assert "same id" in report.problems[0].why


def test_unreadable_pictures_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    save(folder / "good.png", "red")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    (folder / "empty.png").touch()
    index = Index.open(tmp_path / "index", WordEncoder(), create=True)
    report = index.build(read_items(folder), heard)
    assert (report.added, report.unusable, len(index)) == (1, 2, 1)
    assert {Path(problem.name).name for problem in report.problems} == {"broken.jpg", "empty.png"}


def test_a_picture_that_has_become_unreadable_is_not_found_any_more(tmp_path: Path) -> None:
    picture = save(tmp_path / "pictures" / "dress.png", "red")
    index = Index.open(tmp_path / "index", WordEncoder(), create=True)
    index.build(read_items(picture.parent), heard)
    picture.write_bytes(b"broken")
    assert index.build(read_items(picture.parent), heard).unusable == 1
    assert len(index) == 0
    assert index.search("dress").hits == ()


def test_an_index_of_other_models_is_refused_until_it_is_made_anew(index: Index) -> None:
    with pytest.raises(InputError, match=r"axes@1.*axes@2.*--fresh") as refused:
        Index.open(index.directory, WordEncoder("2"))
    assert refused.value.code == "other_models"
    anew = Index.open(index.directory, WordEncoder("2"), create=True, fresh=True)
    assert len(anew) == 0


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    save(tmp_path / "mine.png", "red")
    with pytest.raises(InputError, match="holds other files"):
        Index.open(tmp_path, WordEncoder(), create=True)
    with pytest.raises(InputError, match="omni index build"):
        Index.open(tmp_path / "none", WordEncoder())


def test_two_cannot_change_an_index_at_once_but_one_sees_what_the_other_did(index: Index) -> None:
    other = Index.open(index.directory, WordEncoder())
    assert len(other.search("silk").hits) == 5
    index.add([Item("new", title="silk", stamp="1")], heard)
    assert ids(other, "silk")[0] == "new"
    with _writing(index.directory), pytest.raises(BusyError, match="another process"):
        other.delete(["new"])


@pytest.mark.parametrize(
    ("request_", "message"), [("  ", "empty"), ("?!", "empty"), ("x" * 10_000, "10000 characters")]
)
def test_absurd_requests_are_refused(index: Index, request_: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        index.search(request_)
    with pytest.raises(InputError, match="limit"):
        index.search("mug", limit=0)


def test_frequent_requests_are_not_computed_again(index: Index) -> None:
    encoder = index._encoder
    for _ in range(3):
        index.search("silk dress")
    index.search("show me a silk dress", limit=3)
    assert encoder.asked == ["silk dress"]
    figures = index.figures()
    assert figures["queries"] == {"hits": 2, "misses": 2, "rate": 0.5}
    assert figures["vectors"]["hits"] == 1
    index.delete(["evening"])
    assert "evening" not in ids(index, "silk dress")


def test_the_cache_has_a_bound() -> None:
    recent: Recent[int] = Recent(2)
    for key in (1, 2, 1, 3, 1, 2):
        recent.get(key, lambda key=key: key)
    assert (recent.hits, recent.misses) == (2, 4)


def test_more_items_than_are_compared_one_by_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("omni.search.index.INDEX_FROM", 300)
    index = Index.open(tmp_path / "index", WordEncoder(), create=True)
    items = [Item(f"{i}", title=WORDS[i % 5], price=float(i), stamp="1") for i in range(600)]
    index.build(items, heard)
    assert json.loads((index.directory / "index.json").read_text())["clustered"] >= 300
    index.add([Item("both", title="silk mug", price=5000.0, stamp="1")], heard)
    assert ids(index, "silk mug")[0] == "both"
    assert {int(id) % 5 for id in ids(index, "mug under 100", limit=20)} == {1}


def test_a_build_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with (tmp_path / "goods.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "title"])
        table.writerows([f"i{i}", WORDS[i % 5]] for i in range(100))
    script = f"""
import sys, time
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]!r}
from pathlib import Path
from test_search import WordEncoder
from omni.search import Index, read_items

def told(report):
    print(report.added, flush=True)
    time.sleep(0.05)

config = Index.Config(batch=5)
index = Index.open(Path("index"), WordEncoder(), config, create=True)
index.build(read_items(Path("goods.csv")), told)
"""
    build = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert build.stdout is not None
    acknowledged = 0
    while acknowledged < 20:
        acknowledged = int(build.stdout.readline())
    os.kill(build.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    acknowledged = int((build.stdout.read().split() or [acknowledged])[-1])
    build.wait()
    build.stdout.close()
    index = Index.open(tmp_path / "index", WordEncoder())
    kept = len(index)
    assert acknowledged <= kept < 100
    report = index.build(read_items(tmp_path / "goods.csv"), heard)
    assert (report.unchanged, report.added, len(index)) == (kept, 100 - kept, 100)


def test_what_an_index_is_about(index: Index) -> None:
    about = index.about()
    assert (about["items"], about["with_price"], about["with_picture"]) == (5, 4, 0)
    assert about["models"] == {"words": "axes@1"}
    hit = index.get("summer")
    assert hit is not None
    assert hit.attributes == {"colour": "red", "length": "long"}
    assert json.loads(json.dumps(hit.wire()))["colours"] == ["red"]
    assert index.get("nothing") is None
