"""Models that only transformers knows have the same interface."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from llm_tiny import SIZES, write_tokenizer
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from omni.errors import InputError
from omni.llm.cache import Feed
from omni.llm.generate import generate
from omni.llm.model import LanguageModel, load
from omni.types import Sampling

PROMPT = [5, 99, 17, 255, 3, 250]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    directory = tmp_path_factory.mktemp("neox")
    torch.manual_seed(3)
    config = GPTNeoXConfig(**{k: v for k, v in SIZES.items() if k != "num_key_value_heads"})
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    write_tokenizer(directory)
    return load(directory, device="cpu", quantization="fp32")


def test_it_runs_through_transformers_within_its_own_context(model: LanguageModel) -> None:
    assert model.describe().kernels.startswith("transformers")
    assert model.max_context == 512


def test_cached_pieces_crop_and_embeddings_agree_with_the_whole(model: LanguageModel) -> None:
    whole = model.run([Feed(model.new_cache(), PROMPT)], all_logits=True).logits
    cache = model.new_cache()
    model.forward([Feed(cache, [*PROMPT[:2], 9, 9])])
    cache.crop(2)
    rest = model.run([Feed(cache, PROMPT[2:])], all_logits=True).logits
    torch.testing.assert_close(rest, whole[2:], rtol=1e-4, atol=1e-4)
    assert cache.tokens == PROMPT
    assert cache.bytes > 0
    rows = model._network._model.get_input_embeddings().weight.detach()[PROMPT[1:3]]  # type: ignore[attr-defined]
    mixed = [PROMPT[0], -1, -1, *PROMPT[3:]]
    got = model.forward([Feed(model.new_cache(), mixed, embeds=rows)])
    torch.testing.assert_close(got[0], whole[-1], rtol=1e-4, atol=1e-4)


def test_it_generates_the_same_again_from_a_reused_prefix(model: LanguageModel) -> None:
    cache = model.new_cache()
    first = [s.token for s in generate(model, PROMPT, Sampling(0, max_tokens=8), cache)]
    again = [s.token for s in generate(model, PROMPT, Sampling(0, max_tokens=8), cache)]
    assert len(first) == 8
    assert first == again


def test_packed_kernels_are_refused_for_it(tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(
        GPTNeoXConfig(**{k: v for k, v in SIZES.items() if k != "num_key_value_heads"})
    ).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(InputError, match="Qwen2 and Llama families only"):
        load(tmp_path, device="cpu", quantization="int8")
