"""What is read from a request, in English and Chinese."""

import pytest

from omni.search import Wish, read_request


@pytest.mark.parametrize(
    ("request_", "least", "most", "currency", "text"),
    [
        ("dress under 50", None, 50, None, "dress"),
        ("no more than 5 dollars", None, 5, "USD", ""),
        ("a cup between 10 and 20 euros", 10, 20, "EUR", "a cup"),
        ("shoes over $1,200", 1200, None, "USD", "shoes"),
        ("a toy car for $10-20", 10, 20, "USD", "a toy car"),
        ("lamp, around 30 euros", 24, 36, "EUR", "lamp"),
        ("a hat for 20 pounds or less", None, 20, "GBP", "a hat"),
        ("hat < 20", None, 20, None, "hat"),
        ("50元以下的裙子", None, 50, "CNY", "裙子"),
        ("不超过100元的鞋", None, 100, "CNY", "鞋"),
        ("五十块以内的鞋", None, 50, "CNY", "鞋"),
        ("20到30元的帽子", 20, 30, "CNY", "帽子"),
        ("一百元以上的包", 100, None, "CNY", "包"),
        ("a vase under 50 cm", None, None, None, "a vase under 50 cm"),
        ("20公斤以下的箱子", None, None, None, "20公斤以下的箱子"),
        ("two dogs", None, None, None, "two dogs"),
    ],
)
def test_prices(
    request_: str, least: float | None, most: float | None, currency: str | None, text: str
) -> None:
    wish = read_request(request_)
    assert (wish.least, wish.most, wish.currency) == (least, most, currency)
    assert wish.text == text


@pytest.mark.parametrize(
    ("request_", "wanted", "unwanted"),
    [
        ("a red dress", ("red",), ()),
        ("gray or navy shirt", ("grey", "blue"), ()),
        ("红色的杯子", ("red",), ()),
        ("白菜和黄瓜", (), ()),
        ("红裙子", ("red",), ()),
        ("dress, not red", (), ("red",)),
        ("non-red hat", (), ("red",)),
        ("杯子，不要蓝色", (), ("blue",)),
        ("a reddish credit card", ("red",), ()),
        ("a whiteboard", (), ()),
    ],
)
def test_colours(request_: str, wanted: tuple[str, ...], unwanted: tuple[str, ...]) -> None:
    wish = read_request(request_)
    assert (wish.colours, wish.not_colours) == (wanted, unwanted)


def test_what_is_not_wanted_is_taken_out_of_the_words() -> None:
    wish = read_request("shoes without laces and not black, size 42")
    assert wish.text == "shoes, size 42"
    assert wish.without == ("laces",)
    assert "size 42" in wish.phrases
    assert "laces" in wish.not_phrases


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ("find me something to drink coffee from", "something to drink coffee from"),
        ("Please show me a picture of a cat!", "a cat"),
        ("Show me pictures of cats", "cats"),
        ("I'm looking for a dress", "dress"),
        ("给我找一个杯子", "杯子"),
        ("cats", "cats"),
        ("finding nemo", "finding nemo"),
    ],
)
def test_the_way_of_asking_is_not_searched_for(request_: str, text: str) -> None:
    assert read_request(request_).text == text


def test_a_plain_request_is_just_words() -> None:
    assert read_request("dog") == Wish(text="dog", phrases=("dog",))


def test_hostile_requests_are_read_quickly_and_as_words() -> None:
    for request in ("not " * 250, "1" * 999, "no a " * 190, "不要" * 499, "between 1 and " * 70):
        assert read_request(request).most is None
