"""Calls are taken out of an answer, however its text is cut into pieces."""

from __future__ import annotations

import itertools

import pytest

from decoders.toolcalls import CallDelta, CallEnded, CallStarted, ToolCallParser
from omni.llm.tools import HERMES, ToolFormat

BARE = ToolFormat("", "", "parameters", "", "")
ONE = '<tool_call>\n{"name": "f", "arguments": {"a": "}\\"{"}}\n</tool_call>'
TWO = '<tool_call>\n{"name": "g_2", "arguments": {}}\n</tool_call>'


def parse(format: ToolFormat, pieces) -> tuple[str, list[tuple[str, str]], list]:
    """The words, the complete calls, and every event; deltas must join to the arguments."""
    parser = ToolCallParser(format)
    events = [event for piece in pieces for event in parser.feed(piece)]
    words = "".join(e for e in events if isinstance(e, str)) + parser.flush()
    names = {e.index: e.name for e in events if isinstance(e, CallStarted)}
    calls = []
    for end in (e for e in events if isinstance(e, CallEnded)):
        deltas = [e.text for e in events if isinstance(e, CallDelta) and e.index == end.index]
        assert "".join(deltas) == end.arguments
        calls.append((names[end.index], end.arguments))
    return words, calls, events


def splits(text: str):
    """The text whole, character by character, and cut at any two places."""
    yield [text]
    yield list(text)
    for a, b in itertools.combinations(range(len(text) + 1), 2):
        yield [text[:a], text[a:b], text[b:]]


@pytest.mark.parametrize(
    ("format", "text", "words", "calls"),
    [
        (HERMES, "Just words, 你好 < 3 <tool.", "Just words, 你好 < 3 <tool.", []),
        (HERMES, "Words end.\n\n", "Words end.\n\n", []),
        (HERMES, "a <tool_cal b", "a <tool_cal b", []),
        (HERMES, ONE, "", [("f", '{"a": "}\\"{"}')]),
        (HERMES, f"Wait.\n{TWO}\n", "Wait.", [("g_2", "{}")]),
        (HERMES, f"{ONE}\n{TWO}", "", [("f", '{"a": "}\\"{"}'), ("g_2", "{}")]),
        (HERMES, '{"name": "no call"}', '{"name": "no call"}', []),
        (BARE, '{"name": "f", "parameters": {"x": [1, {"y": 2}]}}', "",
         [("f", '{"x": [1, {"y": 2}]}')]),
        (BARE, 'See {"name": "f"}', 'See {"name": "f"}', []),
    ],
)  # fmt: skip
def test_words_and_calls_come_out_the_same_for_every_split(format, text, words, calls):
    for pieces in splits(text):
        assert parse(format, pieces)[:2] == (words, calls), pieces


def test_words_leave_at_once_and_the_name_as_soon_as_it_is_known():
    parser = ToolCallParser(HERMES)
    assert parser.feed("Let me see") == ["Let me see"]
    assert parser.feed(". ") == ["."]
    assert parser.feed('<tool_call>\n{"name": "get') == []
    assert parser.feed('_time"') == [CallStarted(0, "get_time")]
    assert parser.feed(', "arguments": {"zone": "U') == [CallDelta(0, '{"zone": "U')]
    assert parser.feed('TC"}') == [CallDelta(0, 'TC"}'), CallEnded(0, '{"zone": "UTC"}')]
    assert parser.feed("}\n</tool_call>") == []
    assert parser.flush() == ""


@pytest.mark.parametrize("size", range(1, len(ONE)))
def test_a_call_that_breaks_off_never_ends_and_shows_no_markup(size):
    words, calls, _ = parse(HERMES, ["Hm. ", ONE[:size]])
    complete = size >= ONE.index("}\n</tool_call>")
    assert len(calls) == complete
    # What breaks off inside the marker was no call.
    assert words in ("Hm.", "Hm. " + "<tool_call>"[:size])
    assert "tool_call>" not in words
