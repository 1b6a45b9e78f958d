"""What can be indexed, and what is said about the rest."""

from pathlib import Path

import pytest
from PIL import Image

from omni.errors import InputError
from omni.search import Item, Unusable, read_items

WHY = ("'cheap'", "no title", "address")


def table(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_folder_gives_its_pictures_with_their_names_and_texts(tmp_path: Path) -> None:
    for name in ("red_dress.png", "deep/er/IMG_1234.JPG", "notes.pdf"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "red_dress.txt").write_text("a floral\ndress")
    items = [item for item in read_items(tmp_path) if isinstance(item, Item)]
    assert [(item.title, item.text) for item in items] == [
        ("", ""),
        ("red dress", "a floral dress"),
    ]
    assert all(item.picture is not None and item.picture.is_absolute() for item in items)


def test_a_stamp_changes_with_the_file_and_with_the_words(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    stamps = set()
    for side in (8, 9, 9):
        Image.new("RGB", (side, 8)).save(picture)
        stamps.add(next(iter(read_items(picture))).stamp)  # type: ignore[union-attr]
        (tmp_path / "a.txt").write_text(f"side {side}")
    assert len(stamps) == 3


def test_a_table_has_columns_with_a_meaning_and_attributes(tmp_path: Path) -> None:
    source = table(
        tmp_path / "goods.csv",
        "\ufeffSKU,Image,Name,Price,Colour,描述\n"
        'd1,pictures/d1.jpg,Dress,"1.299,90 €","red, white",海边穿的裙子\n'
        "d2,,Mug,$9.50,,\n",
    )
    first, second = read_items(source)
    assert isinstance(first, Item)
    assert isinstance(second, Item)
    assert (first.id, first.title, first.text) == ("d1", "Dress", "海边穿的裙子")
    assert (first.price, first.currency) == (1299.9, "EUR")
    assert first.picture == tmp_path.resolve() / "pictures" / "d1.jpg"
    assert first.attributes == {"Colour": "red, white"}
    assert (second.price, second.currency, second.picture) == (9.5, "USD", None)


def test_lines_of_json_may_nest_their_attributes(tmp_path: Path) -> None:
    source = table(
        tmp_path / "goods.jsonl",
        '{"title": "Dress", "price": 12, "attributes": {"size": [38, 40], "new": true}}\n\n'
        "not json\n[1]\n",
    )
    item, broken, list_ = read_items(source)
    assert isinstance(item, Item)
    assert item.attributes == {"size": "38, 40", "new": "yes"}
    assert isinstance(broken, Unusable)
    assert isinstance(list_, Unusable)
    assert broken.name == "goods.jsonl:3"
    assert "not a JSON object" in list_.why


def test_rows_that_cannot_be_used_are_named_by_their_lines(tmp_path: Path) -> None:
    source = table(
        tmp_path / "goods.csv",
        "title,price,image\nMug,cheap,\n,5,\nFar,5,https://example.org/a.jpg\nGood,5,\n",
    )
    bad = [item for item in read_items(source) if isinstance(item, Unusable)]
    assert [problem.name for problem in bad] == ["goods.csv:2", "goods.csv:3", "goods.csv:4"]
    assert [word in problem.why for problem, word in zip(bad, WHY, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("goods.csv", "colour,price\nred,5\n", r"found colour, price; needed is one of picture"),
        ("goods.csv", "", "found none"),
        ("goods.csv", "title,price\n", "has no items"),
        ("goods.xlsx", "x", "no folder, no table and no picture"),
    ],
)
def test_sources_that_are_of_no_use_say_why(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        list(read_items(table(tmp_path / name, text)))


def test_empty_and_missing_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no picture"):
        list(read_items(tmp_path))
    with pytest.raises(InputError, match="no folder or file"):
        read_items(tmp_path / "none")


def test_a_table_in_another_encoding_says_how_to_save_it(tmp_path: Path) -> None:
    (tmp_path / "goods.csv").write_bytes("title\n裙子\n".encode("gbk"))
    with pytest.raises(InputError, match="UTF-8"):
        list(read_items(tmp_path / "goods.csv"))
