"""The default model and tools: forced calls are valid, and forbidden ones never come."""

from __future__ import annotations

import json

import jsonschema
import pytest

from omni.llm.constraint import Grammars
from omni.llm.generate import BatchGenerator, Finished
from omni.llm.model import LanguageModel, load
from omni.types import Message, Sampling, Tool, ToolUse

pytestmark = pytest.mark.e2e

BOOK = Tool(
    "book_table",
    "Book a table in a restaurant.",
    {
        "type": "object",
        "properties": {
            "restaurant": {"type": "string", "maxLength": 40},
            "city": {"enum": ["北京", "Zürich", "New York"]},
            "guests": {"type": "integer", "minimum": 1, "maximum": 12},
            "when": {
                "type": "object",
                "properties": {
                    "day": {"type": "string", "format": "date"},
                    "hour": {"type": "integer", "minimum": 11, "maximum": 23},
                },
                "required": ["day", "hour"],
            },
            "wishes": {
                "type": "array",
                "items": {"type": "string", "maxLength": 20},
                "maxItems": 3,
            },
            "outside": {"type": "boolean"},
        },
        "required": ["restaurant", "city", "guests", "when", "wishes"],
    },
)
CLOCK = Tool("get_time", "Tell the current time.")
REQUESTS = ("Book a table for four at Kronenhalle.", "帮我订一张四个人的桌子。")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    model = load("qwen2.5-coder-0.5b", device="cpu")
    model.warm_up()
    return model


def answers(model: LanguageModel, use: ToolUse, requests, sampling) -> list[str]:
    batch, grammars, cache = (
        BatchGenerator(model),
        Grammars(model.tokenizer, lenient=True),
        model.new_cache(),
    )
    texts = []
    for i, request in enumerate(requests):
        prompt = model.tokenizer.encode_chat([Message("user", (request,))], tools=use.tools)
        batch.add("r", prompt, cache, sampling(i), constraint=grammars.constraint(use))
        spelled = b""
        while not batch.idle:
            for _, event in batch.step():
                if isinstance(event, Finished):
                    assert event.reason in ("stop", "length")
                else:
                    spelled += model.tokenizer.token_bytes(event.token)
        texts.append(spelled.decode(errors="ignore"))
    return texts


def test_a_forced_call_is_valid_with_twenty_seeds_at_full_temperature(model: LanguageModel) -> None:
    use = ToolUse((BOOK, CLOCK), "required", "book_table", parallel=False)
    requests = [REQUESTS[i % 2] for i in range(20)]
    for text in answers(model, use, requests, lambda i: Sampling(1.0, 1.0, 300, seed=i)):
        call = json.loads(text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
        assert call["name"] == "book_table"
        jsonschema.validate(
            call["arguments"], BOOK.parameters, format_checker=jsonschema.FormatChecker()
        )


def test_the_model_finds_the_tool_and_its_arguments(model: LanguageModel) -> None:
    use = ToolUse((BOOK, CLOCK))
    [text] = answers(model, use, ["What time is it?"], lambda i: Sampling(0, max_tokens=60))
    assert text.strip() == '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'


def test_a_model_that_may_not_call_answers_in_words(model: LanguageModel) -> None:
    use = ToolUse((BOOK, CLOCK), "none")
    requests = ["What time is it?", *REQUESTS]
    for text in answers(model, use, requests, lambda i: Sampling(1.0, 1.0, 40, seed=i)):
        assert text.strip()
        assert "<tool_call>" not in text
        assert not text.lstrip().startswith("{")
