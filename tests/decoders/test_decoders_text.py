import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.text import IncrementalDetokenizer, StopMatcher
from omni.errors import InputError


def stream(pieces):
    detokenizer = IncrementalDetokenizer(lambda token: pieces[token])
    out = [detokenizer.feed(i) for i in range(len(pieces))]
    return out, detokenizer.flush()


@given(st.lists(st.binary(max_size=4), max_size=30))
def test_streamed_bytes_equal_decoding_everything_at_once(pieces):
    out, rest = stream(pieces)
    assert "".join(out) + rest == b"".join(pieces).decode("utf-8", "replace")


@given(st.text(max_size=30), st.integers(1, 3))
def test_valid_text_never_shows_a_replacement_character_that_it_does_not_hold(text, size):
    data = text.encode()
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    out, rest = stream(pieces)
    assert "".join(out) + rest == text
    assert "".join(out).count("\ufffd") <= text.count("\ufffd")


def test_a_character_waits_for_its_last_byte():
    out, rest = stream([b"\xe4", b"\xb8", b"\xad", b"!"])
    assert out == ["", "", "中", "!"]
    assert rest == ""


def test_half_a_character_at_the_end_becomes_one_replacement_character():
    out, rest = stream([b"a", b"\xe4\xb8"])
    assert (out, rest) == (["a", ""], "\ufffd")


def test_an_invalid_byte_is_replaced_as_soon_as_it_is_certain():
    out, _ = stream([b"\xe4", b"a"])
    assert out == ["", "\ufffda"]


def test_an_emoji_joined_to_the_next_one_waits_for_it():
    out, rest = stream(["👩".encode(), "\u200d".encode(), "👧".encode(), b"."])
    assert out == ["👩", "", "\u200d👧", "."] or out[1] == ""
    assert "".join(out) + rest == "👩\u200d👧."


def test_an_emoji_and_its_joiner_in_one_token_are_held_together():
    out, _ = stream(["hi 👩🏽\u200d".encode(), "👧".encode()])
    assert out == ["hi ", "👩🏽\u200d👧"]


def test_flush_starts_anew():
    detokenizer = IncrementalDetokenizer(lambda token: [b"\xe4", b"a"][token])
    detokenizer.feed(0)
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.feed(1) == "a"


def split_at(text, cuts):
    bounds = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds)]


@given(
    st.text("abc", max_size=20),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 20), max_size=5),
)
def test_streamed_stopping_equals_stopping_in_the_whole_text(text, stops, cuts):
    matcher = StopMatcher(stops)
    got = "".join(matcher.feed(piece) for piece in split_at(text, cuts)) + matcher.flush()
    ends = {s: text.find(s) + len(s) for s in stops if s in text}
    if not ends:
        assert got == text
        assert not matcher.stopped
        return
    assert matcher.stopped
    # Whichever stop string completes first ends the answer; nothing of it is shown.
    assert text.startswith(got)
    assert not any(s in got for s in stops)


def test_a_possible_beginning_of_a_stop_string_is_held_back():
    matcher = StopMatcher(["</s>"])
    assert matcher.feed("Hello <") == "Hello "
    assert matcher.feed("/b>") == "</b>"
    assert matcher.feed(" bye</") == " bye"
    assert matcher.feed("s> more") == ""
    assert matcher.stopped
    assert matcher.feed("more") == ""


def test_an_empty_stop_string_is_refused():
    with pytest.raises(InputError, match="empty"):
        StopMatcher([""])
