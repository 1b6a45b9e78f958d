"""The lean forward pass gives what transformers gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from llm_tiny import CONFIGS, write_model

from omni.errors import InputError, WeightsError
from omni.llm.cache import Feed
from omni.llm.loading import TABLES
from omni.llm.model import LanguageModel, load

PROMPT = [5, 99, 17, 255, 3, 250, 8, 8, 41, 77, 120, 6]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=sorted(CONFIGS), scope="module")
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LanguageModel, Any]:
    directory = tmp_path_factory.mktemp(request.param)
    reference = write_model(directory, request.param)
    return load(directory, device="cpu", quantization="fp32", max_context=256), reference


def reference_logits(reference: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = reference(torch.tensor([ids])).logits[0]
    return logits


def test_logits_of_a_whole_prompt_equal_transformers(pair: tuple[LanguageModel, Any]) -> None:
    model, reference = pair
    ids = [(7 * i) % 300 for i in range(150)]
    got = model.run([Feed(model.new_cache(), ids)], all_logits=True).logits
    torch.testing.assert_close(got, reference_logits(reference, ids), **CLOSE)


def test_chunks_and_single_tokens_equal_the_whole_prompt(pair: tuple[LanguageModel, Any]) -> None:
    model, reference = pair
    cache = model.new_cache()
    rows = [
        model.run([Feed(cache, part)], all_logits=True).logits
        for part in (PROMPT[:5], PROMPT[5:6], PROMPT[6:10], PROMPT[10:11], PROMPT[11:])
    ]
    torch.testing.assert_close(torch.cat(rows), reference_logits(reference, PROMPT), **CLOSE)
    assert cache.tokens == PROMPT


def test_a_mixed_batch_equals_each_sequence_alone(pair: tuple[LanguageModel, Any]) -> None:
    model, reference = pair
    decoding, reading = model.new_cache(), model.new_cache()
    model.forward([Feed(decoding, PROMPT[:-1])])
    quiet = model.new_cache()
    logits = model.forward(
        [Feed(decoding, PROMPT[-1:]), Feed(quiet, [1, 2], logits=False), Feed(reading, [9, 8, 7])]
    )
    assert logits.shape == (2, 300)
    torch.testing.assert_close(logits[0], reference_logits(reference, PROMPT)[-1], **CLOSE)
    torch.testing.assert_close(logits[1], reference_logits(reference, [9, 8, 7])[-1], **CLOSE)
    assert quiet.tokens == [1, 2]


def test_a_cropped_cache_continues_as_if_the_rest_had_never_been(
    pair: tuple[LanguageModel, Any],
) -> None:
    model, reference = pair
    cache = model.new_cache()
    model.forward([Feed(cache, PROMPT)])
    cache.crop(4)
    other = [200, 201, 202]
    got = model.forward([Feed(cache, other)])[0]
    expected = reference_logits(reference, PROMPT[:4] + other)[-1]
    torch.testing.assert_close(got, expected, **CLOSE)
    assert cache.length == 7


def test_a_cache_grows_past_its_first_room(pair: tuple[LanguageModel, Any]) -> None:
    model, reference = pair
    cache = model.new_cache()
    ids = [(3 * i) % 290 for i in range(256)]
    before = cache.bytes
    model.forward([Feed(cache, ids[:200])])
    got = model.forward([Feed(cache, ids[200:])])[0]
    torch.testing.assert_close(got, reference_logits(reference, ids)[-1], **CLOSE)
    assert cache.bytes > before


def test_embeddings_equal_the_ids_they_come_from(pair: tuple[LanguageModel, Any]) -> None:
    model, reference = pair
    rows = reference.get_input_embeddings().weight.detach()[PROMPT[2:5]]
    mixed = [*PROMPT[:2], -1, -2, -3, *PROMPT[5:]]
    cache = model.new_cache()
    got = model.run([Feed(cache, mixed, embeds=rows)], all_logits=True).logits
    torch.testing.assert_close(got, reference_logits(reference, PROMPT), **CLOSE)
    assert cache.tokens == mixed


def test_hidden_states_are_those_behind_the_logits(pair: tuple[LanguageModel, Any]) -> None:
    model, reference = pair
    out = model.run([Feed(model.new_cache(), PROMPT)], hidden=True)
    assert out.hidden is not None
    with torch.inference_mode():
        logits = reference.get_output_embeddings()(out.hidden)
    torch.testing.assert_close(out.logits, logits, **CLOSE)


@pytest.mark.parametrize(
    ("quantization", "bound"), [("fp16", 0.003), ("int8", 0.03), ("bf16", 0.03), ("auto", 0.03)]
)
def test_quantised_weights_stay_close(tmp_path: Path, quantization: Any, bound: float) -> None:
    reference = write_model(tmp_path, "qwen2-untied", scale=0.5)
    model = load(tmp_path, device="cpu", quantization=quantization)
    cache = model.new_cache()
    rows = [model.run([Feed(cache, p)], all_logits=True).logits for p in (PROMPT, [4], [1, 2, 3])]
    expected = reference_logits(reference, [*PROMPT, 4, 1, 2, 3])
    assert (torch.cat(rows) - expected).norm() / expected.norm() < bound


def test_eight_bit_tables_are_stored_once_and_made_anew_when_damaged(tmp_path: Path) -> None:
    write_model(tmp_path, "llama-untied")

    def logits() -> torch.Tensor:
        model = load(tmp_path, device="cpu", quantization="int8")
        return model.forward([Feed(model.new_cache(), PROMPT)])

    first = logits()
    stamp = (tmp_path / TABLES).stat().st_mtime_ns
    torch.testing.assert_close(logits(), first, rtol=0, atol=0)
    assert (tmp_path / TABLES).stat().st_mtime_ns == stamp
    (tmp_path / TABLES).write_bytes(b"not a safetensors file")
    torch.testing.assert_close(logits(), first, rtol=0, atol=0)
    write_model(tmp_path, "llama-untied", scale=2.0)
    assert not torch.equal(logits(), first)


def test_bad_feeds_are_refused_and_change_nothing(pair: tuple[LanguageModel, Any]) -> None:
    model, _ = pair
    cache = model.new_cache()
    with pytest.raises(InputError, match="no tokens"):
        model.forward([Feed(cache, [1]), Feed(model.new_cache(), [])])
    with pytest.raises(InputError, match="300 is outside"):
        model.forward([Feed(cache, [300])])
    with pytest.raises(InputError, match="257 tokens do not fit"):
        model.forward([Feed(cache, [1] * 257)])
    with pytest.raises(InputError, match=r"expected \(1, 48\)"):
        model.forward([Feed(cache, [-1], embeds=torch.zeros(2, 48))])
    with pytest.raises(InputError, match="share one cache"):
        model.forward([Feed(cache, [1]), Feed(cache, [2])])
    assert cache.length == 0


def test_wrong_options_are_named(tmp_path: Path) -> None:
    write_model(tmp_path, "qwen2-tied")
    with pytest.raises(InputError, match="quantization is 'int4'"):
        load(tmp_path, quantization="int4")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="device is 'gpu'"):
        load(tmp_path, device="gpu")
    with pytest.raises(InputError, match="no directory"):
        load(tmp_path / "nothing")
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(WeightsError, match="get the file again"):
        load(tmp_path, device="cpu")
