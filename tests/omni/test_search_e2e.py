"""The search with the real models, on photographs."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("lancedb")

from encoders.media import load_image
from omni.cli import app
from omni.data.pictures import draw
from omni.search import Index, read_items
from omni.types import ImageFrame
from runtime.search import PictureEncoder, main_colours, open_index

PHOTOS = Path(__file__).parents[1] / "data" / "photos"

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Index:
    folder = tmp_path_factory.mktemp("photos")
    photos = sorted(PHOTOS.glob("*.jpg"))
    for number, photo in enumerate(photos):
        (folder / f"IMG_{number}.jpg").write_bytes(photo.read_bytes())
    names = "\n".join(f"IMG_{number}={photo.stem}" for number, photo in enumerate(photos))
    (folder / "names.txt").write_text(names)
    made = open_index(tmp_path_factory.mktemp("index") / "index", create=True)
    assert made.build(read_items(folder), lambda _: None).unusable == 0
    return made


def name(picture: str | None) -> str:
    path = Path(picture or "")
    names = dict(line.split("=") for line in (path.parent / "names.txt").read_text().split())
    return names[path.stem]


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        ("find me something to drink coffee from", "coffee"),
        ("a cat", "cat"),
        ("一只猫", "cat"),
        ("给我找一杯咖啡", "coffee"),
    ],
)
def test_photographs_are_found_by_what_they_show(index: Index, request_: str, wanted: str) -> None:
    assert name(index.search(request_).hits[0].picture) == wanted


def test_a_photograph_finds_itself(index: Index) -> None:
    hit = index.search(picture=load_image(PHOTOS / "cat.jpg", max_side=512)).hits[0]
    assert name(hit.picture) == "cat"
    assert hit.score > 0.99


def test_words_of_items_are_found_across_languages(tmp_path: Path) -> None:
    table = tmp_path / "goods.csv"
    table.write_text(
        "id,title,price,colour,length,description\n"
        "maxi,Summer dress,39 EUR,red,long,floral cotton for the seaside\n"
        "gown,Evening gown,120 EUR,red,long,silk\n"
        "blue,Floral dress,45 EUR,blue,long,light\n"
        "mug,Mug,9 EUR,white,,ceramic cup\n"
    )
    index = Index.open(tmp_path / "index", PictureEncoder(), create=True)
    index.build(read_items(table), lambda _: None)
    for request in ("red floral dress, long, under 50", "50欧元以下的红色长款碎花连衣裙"):
        hits = [hit.id for hit in index.search(request).hits]
        assert hits[0] == "maxi"
        assert "gown" not in hits
    assert index.search("a cup").hits[0].id == "mug"


def test_the_command_builds_and_finds(tmp_path: Path) -> None:
    runner = CliRunner()
    where = ["--index", str(tmp_path / "index"), "--json"]
    built = runner.invoke(app, ["index", "build", str(PHOTOS), *where])
    assert built.exit_code == 0, built.output
    assert json.loads(built.stdout.splitlines()[-1])["added"] >= 2
    found = runner.invoke(app, ["index", "search", "a cat", *where])
    best = json.loads(found.stdout.splitlines()[-1])["results"][0]
    assert Path(best["picture"]).name == "cat.jpg"


def test_colours_are_those_of_the_thing_and_not_of_the_ground() -> None:
    import numpy as np

    pixels = np.full((100, 100, 3), 255, np.uint8)
    pixels[30:70, 30:70] = (220, 20, 20)
    assert main_colours(pixels) == ("red",)
    assert main_colours(np.full((9, 9, 3), 255, np.uint8)) == ("white",)


def test_what_the_image_adapter_names_is_found_by_its_name():
    circle = draw("circle", (214, 32, 32), Random(0)).resize((150, 150))
    picture = Image.new("RGB", (224, 224), "white")
    picture.paste(circle, (37, 37), circle)
    frames = [ImageFrame(np.asarray(picture))]
    asked = ["a red circle", "a cup of coffee"]

    def apart(encoder):
        meant, other = encoder.words(asked) @ encoder.items(frames, [""]).meaning[0]
        return meant - other

    plain = PictureEncoder(PictureEncoder.Config(adapter=False))
    assert apart(PictureEncoder()) > max(0.2, apart(plain))
