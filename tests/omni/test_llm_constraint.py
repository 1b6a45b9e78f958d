"""What is drawn under a constraint always fits its schema, whatever the model would have said."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from llm_tiny import write_model, write_tokenizer

from omni.errors import InputError
from omni.llm.constraint import Grammars
from omni.llm.generate import BatchGenerator, Finished
from omni.llm.model import LanguageModel, load
from omni.llm.tokenizer import ChatTokenizer
from omni.types import Message, Sampling, Tool, ToolUse

END, TOOL_TOKEN = 257, 258
RICH = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "unit": {"enum": ["°C", "°F"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "place": {
            "type": "object",
            "properties": {"lat": {"type": "number", "minimum": -90, "maximum": 90}},
            "required": ["lat"],
        },
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
    },
    "required": ["city", "unit", "days", "place"],
}
FORECAST = Tool("forecast", "Weather to come.", RICH)
CLOCK = Tool("clock", "The time.")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    directory = tmp_path_factory.mktemp("tiny")
    write_model(directory, "qwen2-tied", scale=3.0)
    return load(directory, device="cpu", quantization="fp32")


@pytest.fixture(scope="module")
def grammars(model: LanguageModel) -> Grammars:
    return Grammars(model.tokenizer, lenient=True)


def write(
    model: LanguageModel, grammars: Grammars, use: ToolUse, schema=None, seed=0, **sampling
) -> tuple[str, Finished]:
    prompt = model.tokenizer.encode_chat([Message("user", ("?",))], tools=use.tools)
    prompt = prompt[-40:]
    batch = BatchGenerator(model)
    options = Sampling(**{"temperature": 1.0, "top_p": 1.0, "seed": seed, **sampling})
    constraint = grammars.constraint(use, schema)
    batch.add("r", prompt, model.new_cache(), options, constraint=constraint)
    spelled = b""
    while True:
        for _, event in batch.step():
            if isinstance(event, Finished):
                return spelled.decode(errors="ignore"), event
            spelled += model.tokenizer.token_bytes(event.token)


def calls(text: str) -> list[dict]:
    pieces = text.removesuffix("\n").split("<tool_call>\n")
    assert pieces[0] == ""
    return [
        json.loads(piece.removesuffix("\n").removesuffix("\n</tool_call>")) for piece in pieces[1:]
    ]


@pytest.mark.parametrize("seed", range(20))
def test_a_required_call_is_valid_even_from_a_model_that_speaks_noise(model, grammars, seed):
    use = ToolUse((FORECAST, CLOCK), "required", parallel=False)
    text, end = write(model, grammars, use, seed=seed)
    assert end.reason == "stop"
    [call] = calls(text)
    if call["name"] == "clock":
        assert call["arguments"] == {}
    else:
        assert call["name"] == "forecast"
        jsonschema.validate(call["arguments"], RICH)
        assert set(call["arguments"]) <= set(RICH["properties"])


def test_a_named_call_is_of_that_tool(model, grammars):
    for seed in range(5):
        use = ToolUse((FORECAST, CLOCK), "required", "clock", parallel=False)
        text, _ = write(model, grammars, use, seed=seed)
        assert text == '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'


def test_a_tool_that_is_not_there_cannot_be_required(grammars):
    with pytest.raises(InputError, match="not among the tools") as raised:
        grammars.constraint(ToolUse((CLOCK,), "required", "forecast"))
    assert raised.value.param == "tool_choice"


def test_several_calls_follow_each_other_and_their_number_has_a_bound(model, grammars):
    constraint = grammars.constraint(ToolUse((CLOCK,), "required"))
    text, ends = b"", 0
    while not constraint.finished:
        logits = torch.zeros(model.tokenizer.vocabulary)
        constraint.apply(logits)
        ends += bool(logits[END] > -torch.inf)
        logits[END] = -torch.inf  # a model that never wants to stop
        if logits.max() == -torch.inf:
            break
        token = int(logits.argmax())
        for written in (token, *constraint.advance(token)):
            text += model.tokenizer.token_bytes(written)
    assert len(calls(text.decode())) == 8
    assert ends >= 8, "it could have stopped after each"


def test_an_answer_follows_its_schema(model, grammars):
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}
    for seed in range(5):
        text, end = write(model, grammars, ToolUse(), schema, seed=seed)
        jsonschema.validate(json.loads(text), schema)
        assert end.reason == "stop"


def test_without_choice_no_call_is_ever_opened(model, grammars):
    for seed in range(20):
        text, _ = write(model, grammars, ToolUse((CLOCK,), "none"), seed=seed, max_tokens=40)
        assert "<tool_call>" not in text
        assert not text.lstrip().startswith("{")


def test_forced_tokens_cost_no_draw_and_count_as_output(model, grammars):
    passes = []
    run = model.run
    model.run = lambda feeds, **o: passes.append([len(f.tokens) for f in feeds]) or run(feeds, **o)
    try:
        use = ToolUse((CLOCK,), "required", parallel=False)
        text, end = write(model, grammars, use)
    finally:
        del model.run
    assert end.output_tokens == len(model.tokenizer.encode(text)) - len("<tool_call>") + 1
    assert len(passes) < 4


def test_max_tokens_end_an_answer_within_a_call(model, grammars):
    text, end = write(model, grammars, ToolUse((CLOCK,), "required"), max_tokens=9)
    assert (end.reason, end.output_tokens) == ("length", 9)
    assert text.startswith("<tool_call>\n")
    assert len(text) == len("<tool_call>") + 8


def test_stop_strings_do_not_end_a_call(model, grammars):
    use = ToolUse((CLOCK,), "required", parallel=False)
    text, _ = write(model, grammars, use, stop=("name",))
    assert calls(text)


def follow(grammars: Grammars, tokenizer: ChatTokenizer, constraint, tokens) -> list[int]:
    """Feed what a model draws; what is forced in between has to be what comes next anyway."""
    tokens, all_of_it = list(tokens), []
    while tokens:
        token = tokens.pop(0)
        logits = torch.zeros(tokenizer.vocabulary)
        constraint.apply(logits)
        assert logits[token] > -torch.inf
        forced = constraint.advance(token)
        all_of_it += [token, *forced]
        assert tokens[: len(forced)] == forced[: len(tokens)]
        tokens = tokens[len(forced) :]
    return all_of_it


def test_words_are_free_until_the_marker_and_then_the_call_is_held_to_the_tools(model, grammars):
    tokenizer = model.tokenizer
    constraint = grammars.constraint(ToolUse((CLOCK,)))
    written = follow(grammars, tokenizer, constraint, [*tokenizer.encode("Hm {\n"), TOOL_TOKEN])
    assert constraint.in_call
    text = b"".join(tokenizer.token_bytes(t) for t in written).decode()
    assert text.startswith('Hm {\n<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>')


def test_a_marker_that_is_spelled_out_is_one_too(model, grammars):
    constraint = grammars.constraint(ToolUse((CLOCK,), parallel=False))
    written = follow(grammars, model.tokenizer, constraint, model.tokenizer.encode("Hm <tool_"))
    text = b"".join(model.tokenizer.token_bytes(t) for t in written).decode()
    assert text == 'Hm <tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
    assert constraint.finished


def test_bare_json_at_the_very_start_becomes_a_marked_call(model, grammars):
    constraint = grammars.constraint(ToolUse((CLOCK,)))
    logits = torch.zeros(model.tokenizer.vocabulary)
    [brace] = model.tokenizer.encode("{")
    logits[brace] = 9.0
    constraint.apply(logits)
    assert int(logits.argmax()) == TOOL_TOKEN
    assert logits[brace] == -torch.inf


def test_json_that_a_larger_model_begins_with_is_no_call(model):
    constraint = Grammars(model.tokenizer).constraint(ToolUse((CLOCK,)))
    logits = torch.zeros(model.tokenizer.vocabulary)
    [brace] = model.tokenizer.encode("{")
    logits[brace] = 9.0
    constraint.apply(logits)
    assert int(logits.argmax()) == brace
    assert float(logits[TOOL_TOKEN]) == 0.0


def test_a_vocabulary_without_the_marker_spells_it(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, marker=False)
    tokenizer = ChatTokenizer(tmp_path)
    grammars = Grammars(tokenizer)
    constraint = grammars.constraint(ToolUse((CLOCK,), "required", parallel=False))
    forced = constraint.advance(tokenizer.encode("<")[0])
    text = "<" + b"".join(tokenizer.token_bytes(t) for t in forced).decode()
    assert text == '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'


def test_a_schema_that_gets_too_hard_ends_its_answer_and_no_other(model, grammars, monkeypatch):
    hard = grammars.constraint(ToolUse((CLOCK,), "required"))
    monkeypatch.setattr(hard, "_check", lambda matcher: (_ for _ in ()).throw(InputError("hard")))
    batch = BatchGenerator(model)
    prompt = model.tokenizer.encode_chat([Message("user", ("?",))])
    batch.add("hard", prompt, model.new_cache(), Sampling(), constraint=hard)
    batch.add("easy", prompt, model.new_cache(), Sampling(max_tokens=3, seed=1))
    ends = {}
    while not batch.idle:
        ends.update((r, e) for r, e in batch.step() if isinstance(e, Finished))
    assert (ends["hard"].reason, ends["hard"].error) == ("failed", "hard")
    assert ends["easy"].reason in ("length", "stop")
