"""Tokens are drawn as asked, whatever else is in the batch."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from omni.errors import InputError
from omni.llm.sampling import Sampler, sample
from omni.types import Sampling


def draws(logits: torch.Tensor, sampling: Sampling, count: int) -> list[int]:
    sampler = Sampler(sampling)
    return [sampler.draw(logits) for _ in range(count)]


def test_frequencies_follow_temperature() -> None:
    logits = torch.tensor([0.1, 0.5, 0.4]).log()
    seen = Counter(draws(logits, Sampling(0.5, 1.0, seed=1), 4000))
    expected = torch.tensor([0.01, 0.25, 0.16]) / 0.42
    for token, p in enumerate(expected.tolist()):
        assert abs(seen[token] / 4000 - p) < 0.03


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    logits = torch.tensor([0.1, 0.5, 0.25, 0.15]).log()
    assert set(draws(logits, Sampling(1.0, 0.7, seed=1), 500)) == {1, 2}
    assert set(draws(logits, Sampling(1.0, 0.3, seed=1), 100)) == {1}
    assert set(draws(logits, Sampling(1.0, 1.0, seed=1), 500)) == {0, 1, 2, 3}


def test_a_nucleus_wider_than_the_likeliest_tokens_is_drawn_from_whole() -> None:
    seen = set(draws(torch.zeros(2000), Sampling(1.0, 0.9, seed=2), 9000))
    assert 1600 < len(seen) <= 1801


def test_rows_have_their_own_settings_and_random_numbers() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 500)
    settings = [Sampling(0.0), Sampling(1.0, 0.95, seed=11), Sampling(2.0, 0.8, seed=12)]
    alone = [draws(row, s, 20) for row, s in zip(logits, settings, strict=True)]
    samplers = [Sampler(s) for s in settings]
    together = [sample(logits, samplers, 500) for _ in range(20)]
    assert [list(column) for column in zip(*together, strict=True)] == alone
    assert set(alone[0]) == {int(logits[0].argmax())}


def test_a_seed_repeats_and_none_does_not() -> None:
    logits = torch.zeros(1000)
    assert draws(logits, Sampling(1.0, 1.0, seed=5), 8) == draws(
        logits, Sampling(1.0, 1.0, seed=5), 8
    )
    assert draws(logits, Sampling(1.0, 1.0), 8) != draws(logits, Sampling(1.0, 1.0), 8)
    assert draws(logits, Sampling(1.0, 1.0, seed=-5), 2) is not None


def test_padding_of_the_vocabulary_is_never_drawn() -> None:
    logits = torch.zeros(2, 100)
    logits[:, 60:] = 50.0
    samplers = [Sampler(Sampling(0.0)), Sampler(Sampling(1.5, 1.0, seed=3))]
    for _ in range(50):
        assert max(sample(logits, samplers, 60)) < 60


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling(temperature=-0.1), "temperature is -0.1"),
        (Sampling(temperature=float("nan")), "temperature is nan"),
        (Sampling(top_p=0.0), "top_p is 0.0"),
        (Sampling(top_p=1.01), "top_p is 1.01"),
    ],
)
def test_settings_out_of_range_are_refused(sampling: Sampling, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampler(sampling)
