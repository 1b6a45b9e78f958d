"""The default 0.5B, packed for this machine, is still the model it was."""

from __future__ import annotations

import re

import pytest
import torch

from omni.llm.cache import Feed
from omni.llm.generate import BatchGenerator, Finished, generate
from omni.llm.model import LanguageModel, find, load
from omni.types import Message, Sampling

pytestmark = pytest.mark.e2e

NAME = "qwen2.5-coder-0.5b"
SYSTEM = "You are Omni, a friendly voice assistant. Answer in one short sentence."
QUESTIONS = {
    "What is the capital of France?": "Paris",
    "How many days are there in a week?": "seven|7",
    "What is two plus three?": "five|5",
    "What color is the sky on a clear day?": "blue",
    "What is the opposite of hot?": "cold",
    "Which planet do we live on?": "Earth",
    "What do bees make?": "honey",
    "What is the largest ocean?": "Pacific",
    "How many legs does a dog have?": "four|4",
    "What is the chemical formula of water?": "H2O|H₂O",
    "Who wrote Romeo and Juliet?": "Shakespeare",
    "In which country is Tokyo?": "Japan",
}
RIGHT = 10
"""Of the twelve; measured: 12 with int8, fp16 and auto."""


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    model = load(NAME, device="cpu")
    model.warm_up()
    return model


def chat(model: LanguageModel, question: str) -> list[int]:
    return model.tokenizer.encode_chat([Message("system", (SYSTEM,)), Message("user", (question,))])


def test_simple_questions_get_right_answers_in_a_batch(model: LanguageModel) -> None:
    batch = BatchGenerator(model)
    for question in QUESTIONS:
        batch.add(question, chat(model, question), model.new_cache(), Sampling(0, max_tokens=20))
    answers: dict[str, list[int]] = {question: [] for question in QUESTIONS}
    while not batch.idle:
        for question, event in batch.step():
            if not isinstance(event, Finished):
                answers[question].append(event.token)
    texts = {question: model.tokenizer.decode(ids) for question, ids in answers.items()}
    right = [q for q, text in texts.items() if re.search(QUESTIONS[q], text, re.IGNORECASE)]
    assert len(right) >= RIGHT, texts


def test_a_chinese_question_is_answered_in_chinese(model: LanguageModel) -> None:
    prompt = chat(model, "中国的首都是哪里？")
    ids = [s.token for s in generate(model, prompt, Sampling(0, max_tokens=20))]
    assert "北京" in model.tokenizer.decode(ids)


def test_a_system_prompt_read_once_is_not_read_again(model: LanguageModel) -> None:
    cache = model.new_cache()
    for _ in generate(model, chat(model, "Hello."), Sampling(0, max_tokens=3), cache):
        pass
    batch = BatchGenerator(model)
    prompt = chat(model, "What do bees make?")
    batch.add("a", prompt, cache, Sampling(0, max_tokens=1))
    ends = [e for _ in range(3) for _, e in batch.step() if isinstance(e, Finished)]
    assert ends[0].cached_tokens >= len(prompt) - 14


def test_greedy_answers_are_those_of_transformers() -> None:
    from transformers import AutoModelForCausalLM

    exact = load(NAME, device="cpu", quantization="fp16")
    reference = AutoModelForCausalLM.from_pretrained(find(NAME), dtype=torch.float32).eval()
    for question in ("What is the capital of France?", "What do bees make?", "法国的首都是哪里？"):
        prompt = chat(exact, question)
        answer = [s.token for s in generate(exact, prompt, Sampling(0, max_tokens=12))]
        ids = prompt + answer
        with torch.inference_mode():
            expected = reference(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
        got = exact.run([Feed(exact.new_cache(), ids)], all_logits=True).logits[
            len(prompt) - 1 : -1
        ]
        assert expected.argmax(-1).tolist() == answer
        assert (got - expected).norm() / expected.norm() < 0.001
