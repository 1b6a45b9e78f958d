"""Tool calls and long conversations, from the command to the events, with a scripted model."""

import json

import pytest
from test_engine import words

from fakes import Running
from omni import events as ev
from omni.types import Message, Sampling, Span, Tool, ToolCall, ToolUse
from omni.weights import DEFAULT_MODEL

CLOCK = Tool("clock", "The time.")
ADD = Tool(
    "add",
    "Add numbers.",
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
)
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 42}}\n</tool_call>'


def shown(events) -> list[tuple]:
    """Calls as (index, name, arguments), each checked to be whole."""
    calls = []
    for start in (e for e in events if isinstance(e, ev.ToolCallStarted)):
        mine = [e for e in events if getattr(e, "index", None) == start.index]
        deltas = "".join(e.delta for e in mine if isinstance(e, ev.ToolCallDelta))
        ended = [e for e in mine if isinstance(e, ev.ToolCallEnded)]
        assert not ended or ended[0].arguments == deltas
        calls.append((start.index, start.name, ended[0].arguments if ended else None))
    return calls


@pytest.fixture
def answer():
    def ask(script, **options):
        with Running(lambda asked: script) as running:
            running.open("a")
            options.setdefault("tools", ToolUse((CLOCK, ADD)))
            options.setdefault("sampling", Sampling(0))
            return running.answer("a", "go", **options)

    return ask


def test_the_words_before_a_call_are_heard_before_it_and_markup_never_is(answer):
    events = answer(f"Let me see. One moment.\n{CALL}")
    assert words(events) == "Let me see. One moment."
    assert shown(events) == [(0, "add", '{"a": 42}')]
    sound = [e for e in events if isinstance(e, ev.AudioDelta)]
    assert sum(len(e.chunk.pcm) for e in sound) >= 240 * len("Letmesee.Onemoment.")
    kinds = [type(e) for e in events]
    last_sound = len(kinds) - 1 - kinds[::-1].index(ev.AudioDelta)
    assert last_sound < kinds.index(ev.ToolCallStarted)
    assert events[-1].reason == "stop"


def test_several_calls_are_counted_and_parallel_false_ends_after_the_first(answer):
    script = f"{CALL}\n{CALL}"
    assert shown(answer(script)) == [(0, "add", '{"a": 42}'), (1, "add", '{"a": 42}')]
    once = answer(script, tools=ToolUse((CLOCK, ADD), parallel=False))
    assert shown(once) == [(0, "add", '{"a": 42}')]
    assert once[-1].reason == "stop"


def test_a_required_call_is_made_whatever_the_model_wants_to_say(answer):
    events = answer("I would rather talk.", tools=ToolUse((CLOCK, ADD), "required", "clock"))
    assert {call[1:] for call in shown(events)} == {("clock", "{}")}
    assert words(events) == ""


def test_a_model_that_may_not_call_does_not(answer):
    events = answer(CALL, tools=ToolUse((ADD,), "none"), sampling=Sampling(0, max_tokens=30))
    assert shown(events) == []
    assert "<tool_call>" not in words(events)


def test_a_call_that_max_tokens_cut_off_never_ends(answer):
    events = answer(CALL, sampling=Sampling(max_tokens=len(CALL) - 20))
    assert [call[2] for call in shown(events)] == [None]
    assert words(events) == ""
    assert events[-1].reason == "length"


def test_an_answer_in_json_follows_the_schema(answer):
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}}
    schema["required"] = ["n"]
    events = answer('{"n": 5}', tools=ToolUse(), schema=schema, speak=False)
    assert json.loads(words(events)) == {"n": 5}


def test_a_tool_call_of_a_cancelled_answer_is_not_shown():
    with Running(lambda asked: "Well, well. " * 40 + CALL, pace=0.001) as running:
        running.open("a")
        running.ask("a", "go", tools=ToolUse((ADD,)), sampling=Sampling(0))
        running.until("a", ev.AudioDelta)
        running.engine.submit("a", ev.Cancel("r"))
        events = running.until("a", ev.ResponseDone)
        assert events[-1].reason == "cancelled"
        assert shown(events) == []


def test_a_prompt_prepared_with_its_tools_is_not_read_again():
    with Running() as running:
        running.open("a")
        running.engine.submit("a", ev.Prepare((Message("user", ("go",)),), (CLOCK,)))
        running.engine.on_device(lambda: None)
        while not running.engine.on_device(lambda: running.engine._device.generator.idle):
            pass
        usage = running.answer("a", "go", tools=ToolUse((CLOCK,)))[-1].usage
        assert usage.cached_tokens == usage.input_tokens


class Inclined:
    """A model whose odds of a call are the same, and high or low, whatever it is asked."""

    def __init__(self, brace: float) -> None:
        self.brace = brace

    def __call__(self, run):
        def inclined(feeds, **options):
            out = run(feeds, **options)
            for row in out.logits:
                if int(row.argmax()) == ord("F"):
                    row[ord("{")] = self.brace
            return out

        return inclined


@pytest.mark.parametrize("brace", [-20.0, 5.0, 9.0, 30.0])
@pytest.mark.parametrize("last", [Message("user", ("go",)), Message("tool", ("12",), (), "c")])
def test_an_inclination_to_call_that_the_question_does_not_change_calls_nothing(brace, last):
    with Running(lambda asked: "Fine.", name=DEFAULT_MODEL) as running:
        running.open("a")
        running.parts.llm.run = Inclined(brace)(running.parts.llm.run)
        called = Message("assistant", (), (ToolCall("c", "clock", "{}"),))
        tools = ToolUse((CLOCK, ADD))
        messages = (Message("user", ("go",)), called, last)
        running.engine.submit("a", ev.Start("r", messages, Sampling(0), tools=tools))
        events = running.until("a", ev.ResponseDone)
        assert (words(events), shown(events)) == ("Fine.", [])


@pytest.mark.parametrize(("name", "helped"), [(DEFAULT_MODEL, True), ("scripted", False)])
def test_only_a_model_that_needs_it_is_shown_an_example_and_weighed(name, helped):
    with Running(lambda asked: "Fine.", name=name) as running:
        running.open("a")
        seen = spy(running.parts.llm.tokenizer)
        running.ask("a", "go", tools=ToolUse((CLOCK,)))
        running.until("a", ev.ResponseDone)
        said = {message.text for messages in seen for message in messages}
        assert ("How can I help you?" in " ".join(said)) is helped
        assert ("Okay." in said) is helped


def talk(count: int) -> list[Message]:
    return [
        message
        for i in range(count)
        for message in (Message("user", (f"question {i}",)), Message("assistant", (f"answer {i}",)))
    ]


def start(running, messages, **options):
    options = {"sampling": Sampling(max_tokens=20), "speak": False, **options}
    running.engine.submit("a", ev.Start("r", tuple(messages), **options))
    return running.until("a", ev.ResponseDone)[-1]


def spy(tokenizer) -> list:
    """The lists of messages that it encodes from now on."""
    seen, encode = [], tokenizer.encode_chat
    tokenizer.encode_chat = lambda messages, **o: seen.append(messages) or encode(messages, **o)
    return seen


def test_with_a_ratio_the_prompt_keeps_its_beginning_for_the_next_turns():
    with Running(max_context=400) as running:
        running.open("a")
        messages, dropped, cached = talk(12), [], []
        for i in range(10):
            messages.append(Message("user", (f"more {i}",)))
            done = start(running, messages, keep_ratio=0.5)
            dropped.append(done.usage.dropped_messages)
            cached.append(done.usage.cached_tokens)
            messages.append(Message("assistant", (f"You said more {i}.",)))
        assert dropped[0] > 0
        assert len(set(dropped)) < 5, "dropped in a few large steps"
        assert sum(c > 100 for c in cached) >= 6


def test_a_limit_of_the_conversation_leaves_the_instructions_out():
    with Running() as running:
        running.open("a")
        head = Message("system", ("Be good. " * 50,))
        messages = [head, *talk(10), Message("user", ("last",))]
        done = start(running, messages, context_limit=100)
        assert done.reason == "stop"
        assert 0 < done.usage.dropped_messages < 20
        assert done.usage.input_tokens <= len(head.text) + 130


def test_without_truncation_a_conversation_that_is_too_long_fails_with_the_code():
    with Running(max_context=200) as running:
        running.open("a")
        done = start(running, [*talk(20), Message("user", ("last",))], keep_ratio=None)
        assert (done.reason, done.code) == ("failed", "context_length_exceeded")
        assert "truncation is disabled" in done.error


def test_dropping_never_parts_a_call_from_its_output():
    called = (
        Message("user", ("what time is it?",)),
        Message("assistant", (), (ToolCall("c", "clock", "{}"),)),
        Message("user", ("x" * 60,)),
        Message("tool", ("noon",), call_id="c"),
        Message("assistant", ("It is noon.",)),
    )
    for size in range(60, 420, 10):
        with Running(lambda asked: "ok", max_context=size) as running:
            running.open("a")
            seen = spy(running.parts.llm.tokenizer)
            start(running, [*talk(3), *called, Message("user", ("ok?",))])
            for messages in seen:
                outputs = {m.call_id for m in messages if m.role == "tool"}
                assert outputs == {c.id for m in messages for c in m.tool_calls}


def test_the_output_of_a_tool_alone_is_answered_with_its_call():
    messages = [
        *talk(12),
        Message("user", ("what time is it?",)),
        Message("assistant", (), (ToolCall("c", "clock", "{}"),)),
        Message("tool", ("noon",), call_id="c"),
    ]
    with Running(lambda asked: "ok", max_context=100) as running:
        running.open("a")
        done = start(running, messages)
        assert done.reason == "stop"
        assert len(messages) - done.usage.dropped_messages in (2, 3)


def test_nothing_to_answer_is_said_plainly():
    with Running() as running:
        running.open("a")
        done = start(running, [])
        assert (done.reason, done.code) == ("failed", "empty_conversation")
        assert "nothing to answer" in done.error
        assert start(running, [Message("system", ("Greet the user.",))]).reason == "stop"


def test_tokens_of_sound_and_pictures_are_counted_apart():
    with Running() as running:
        running.open("a")
        parts = (Span("audio", "four"), Span("image", "a cat"), Span("video", "a"), "text")
        usage = start(running, [Message("user", parts)]).usage
        assert (usage.audio_tokens, usage.image_tokens) == (4, 6)


def test_a_schema_that_cannot_be_followed_fails_its_answer_alone():
    with Running() as running:
        running.open("a")
        tools = ToolUse((Tool("t", "", {"type": "object", "properties": {"x": {"not": {}}}}),))
        done = start(running, [Message("user", ("hi",))], tools=tools)
        assert done.reason == "failed"
        assert "not" in done.error
        assert start(running, [Message("user", ("hi",))]).reason == "stop"
