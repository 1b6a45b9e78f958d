"""Requests run side by side, and each gets what it would get alone."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from llm_tiny import write_model

from omni.errors import InputError
from omni.llm.cache import Feed
from omni.llm.generate import BatchGenerator, Finished, generate, prefill
from omni.llm.model import LanguageModel, load
from omni.types import Sampling, Step

LONG = [(11 * i) % 250 for i in range(90)]
SHORT = [5, 99, 17]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    directory = tmp_path_factory.mktemp("tiny")
    write_model(directory, "qwen2-untied")
    return load(directory, device="cpu", quantization="fp32", max_context=128)


def alone(model: LanguageModel, prompt: list[int], sampling: Sampling) -> list[int]:
    return [s.token for s in generate(model, prompt, sampling)]


def run(batch: BatchGenerator) -> tuple[dict[str, list[Step]], dict[str, Finished]]:
    steps: dict[str, list[Step]] = defaultdict(list)
    ends: dict[str, Finished] = {}
    while not batch.idle:
        for request_id, event in batch.step():
            if isinstance(event, Finished):
                assert request_id not in ends
                ends[request_id] = event
            else:
                assert request_id not in ends
                steps[request_id].append(event)
    return steps, ends


def test_requests_in_a_batch_get_the_tokens_they_get_alone(model: LanguageModel) -> None:
    settings = {
        "greedy": (LONG, Sampling(0, max_tokens=20)),
        "warm": (SHORT, Sampling(1.0, 0.9, 25, seed=4)),
        "hot": (LONG[:40], Sampling(2.0, 1.0, 15, seed=9)),
    }
    batch = BatchGenerator(model, BatchGenerator.Config(prefill_chunk=16))
    for request_id, (prompt, sampling) in settings.items():
        batch.add(request_id, prompt, model.new_cache(), sampling)
    steps, ends = run(batch)
    for request_id, (prompt, sampling) in settings.items():
        tokens = [s.token for s in steps[request_id]]
        assert tokens == alone(model, prompt, sampling)
        assert ends[request_id].input_tokens == len(prompt)
        assert ends[request_id].output_tokens == len(tokens)


def test_a_long_prompt_does_not_hold_up_who_decodes(model: LanguageModel) -> None:
    batch = BatchGenerator(model, BatchGenerator.Config(prefill_chunk=8))
    batch.add("talks", SHORT, model.new_cache(), Sampling(2.0, 1.0, 30, seed=1))
    batch.step()
    cache = model.new_cache()
    batch.add("reads", LONG, cache, Sampling(0, max_tokens=1))
    for fed in range(8, len(LONG), 8):
        assert [request_id for request_id, _ in batch.step()] == ["talks"]
        assert cache.length == fed


def test_only_what_is_new_is_read_and_the_last_token_always(model: LanguageModel) -> None:
    cache = model.new_cache()
    first = [s.token for s in generate(model, LONG, Sampling(0, max_tokens=4), cache)]
    assert cache.tokens == LONG + first[:-1]
    batch = BatchGenerator(model)
    batch.add("same", LONG, cache, Sampling(0, max_tokens=4))
    steps, ends = run(batch)
    assert [s.token for s in steps["same"]] == first
    assert ends["same"] == Finished("length", len(LONG), len(LONG) - 1, 4)
    other = [*LONG[:50], 1, 2]
    batch.add("other", other, cache, Sampling(0, max_tokens=4))
    steps, ends = run(batch)
    assert ends["other"].cached_tokens == 50
    assert [s.token for s in steps["other"]] == alone(model, other, Sampling(0, max_tokens=4))


def test_a_prompt_read_ahead_is_not_read_again(model: LanguageModel) -> None:
    cache = model.new_cache()
    assert prefill(model, cache, LONG) == Finished("stop", len(LONG), 0, 0)
    assert cache.tokens == LONG
    batch = BatchGenerator(model)
    batch.add("a", LONG, cache, Sampling(0, max_tokens=3))
    steps, ends = run(batch)
    assert ends["a"].cached_tokens == len(LONG)
    assert [s.token for s in steps["a"]] == alone(model, LONG, Sampling(0, max_tokens=3))
    batch.add("b", LONG, cache, Sampling(0, max_tokens=3))
    steps, ends = run(batch)
    assert ends["b"].cached_tokens == len(LONG) - 1, "what was read ahead is used once"
    assert [s.token for s in steps["b"]] == alone(model, LONG, Sampling(0, max_tokens=3))


def test_cancel_stops_one_request_and_leaves_its_cache_usable(model: LanguageModel) -> None:
    batch = BatchGenerator(model, BatchGenerator.Config(prefill_chunk=32))
    cache = model.new_cache()
    keep = Sampling(1.0, 1.0, 12, seed=3)
    batch.add("gone", LONG, cache, Sampling(0))
    batch.add("stays", SHORT, model.new_cache(), keep)
    batch.step()
    batch.cancel("gone")
    batch.cancel("never was")
    steps, ends = run(batch)
    assert ends["gone"] == Finished("cancelled", len(LONG), 0, 0)
    assert "gone" not in steps
    assert [s.token for s in steps["stays"]] == alone(model, SHORT, keep)
    assert cache.tokens == LONG[:32]
    batch.add("again", LONG, cache, Sampling(0, max_tokens=3))
    steps, ends = run(batch)
    assert ends["again"].cached_tokens == 32
    assert [s.token for s in steps["again"]] == alone(model, LONG, Sampling(0, max_tokens=3))


def test_the_end_token_ends_and_is_not_given_out(model: LanguageModel) -> None:
    for seed in range(50):
        sampling = Sampling(3.0, 1.0, seed=seed)
        batch = BatchGenerator(model)
        batch.add("a", SHORT, model.new_cache(), sampling)
        steps, ends = run(batch)
        if ends["a"].reason == "stop":
            assert 257 not in {s.token for s in steps["a"]}
            return
    pytest.fail("no generation met the end token")


def test_a_stop_string_ends_and_is_named(model: LanguageModel) -> None:
    tokens = alone(model, SHORT, Sampling(2.0, 1.0, 30, seed=8))
    spelled = [model.tokenizer.token_bytes(t) for t in tokens]
    at = next(
        i for i in range(3, 30) if all(len(b) == 1 and b < b"\x80" for b in spelled[i : i + 2])
    )
    stop = b"".join(spelled[at : at + 2]).decode()
    batch = BatchGenerator(model)
    batch.add("a", SHORT, model.new_cache(), Sampling(2.0, 1.0, 30, ("never, I hope", stop), 8))
    steps, ends = run(batch)
    assert ends["a"].reason == "stop"
    assert ends["a"].stop_text == stop
    assert len(steps["a"]) <= at + 2


def test_the_context_ends_an_answer_and_refuses_a_longer_prompt(model: LanguageModel) -> None:
    prompt = [(7 * i) % 250 for i in range(126)]
    batch = BatchGenerator(model)
    batch.add("a", prompt, model.new_cache(), Sampling(0))
    steps, ends = run(batch)
    if ends["a"].reason == "length":
        assert len(steps["a"]) == 3
    with pytest.raises(InputError, match="prompt has 129 tokens") as caught:
        batch.add("b", [1] * 129, model.new_cache(), Sampling(0))
    assert caught.value.code == "context_length_exceeded"
    assert batch.idle


def test_steps_carry_the_hidden_state_when_asked(model: LanguageModel) -> None:
    batch = BatchGenerator(model)
    batch.add("a", SHORT, model.new_cache(), Sampling(0, max_tokens=2), hidden=True)
    batch.add("b", SHORT, model.new_cache(), Sampling(0, max_tokens=2))
    steps, _ = run(batch)
    expected = model.run([Feed(model.new_cache(), SHORT)], hidden=True).hidden
    assert expected is not None
    assert steps["a"][0].hidden is not None
    torch.testing.assert_close(steps["a"][0].hidden, expected[0], rtol=1e-4, atol=1e-4)
    assert steps["b"][0].hidden is None


def test_embeddings_survive_chunks(model: LanguageModel) -> None:
    torch.manual_seed(1)
    rows = torch.randn(10, 48)
    prompt = [1, 2, 3, *[-1] * 6, 4, 5, *[-2] * 4, 6]
    results = []
    for chunk in (4, 128):
        batch = BatchGenerator(model, BatchGenerator.Config(prefill_chunk=chunk))
        batch.add("a", prompt, model.new_cache(), Sampling(0, max_tokens=6), embeds=rows)
        results.append([s.token for s in run(batch)[0]["a"]])
    assert results[0] == results[1]


def test_misuse_is_refused(model: LanguageModel) -> None:
    batch = BatchGenerator(model)
    cache = model.new_cache()
    batch.add("a", SHORT, cache, Sampling(0))
    with pytest.raises(InputError, match="runs already"):
        batch.add("a", SHORT, model.new_cache(), Sampling(0))
    with pytest.raises(InputError, match="used by another request"):
        batch.add("b", SHORT, cache, Sampling(0))
    with pytest.raises(InputError, match="prompt is empty"):
        batch.add("c", [], model.new_cache(), Sampling(0))
    with pytest.raises(InputError, match="max_tokens is 0"):
        batch.add("d", SHORT, model.new_cache(), Sampling(0, max_tokens=0))


def test_a_stop_check_ends_and_closing_keeps_the_cache(model: LanguageModel) -> None:
    cache = model.new_cache()
    seen: list[int] = []

    def third(token: int) -> bool:
        seen.append(token)
        return len(seen) == 3

    assert len(list(generate(model, LONG, Sampling(2.0, seed=6), cache, third))) == 3
    steps = generate(model, LONG, Sampling(0, max_tokens=20), cache)
    next(steps)
    steps.close()
    assert cache.tokens[: len(LONG)] == LONG
