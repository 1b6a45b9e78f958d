"""The balance strategies on made-up loss curves."""

from collections import Counter
from random import Random

import pytest

from omni.errors import InputError
from omni.train.balance import AdaptiveBalance, Mixing, StepBalance, apportion

SIZES = {"text": 1_000, "audio": 100, "image": 100_000}


def counts(balance, steps=50):
    random = Random(1)
    return [Counter(balance.plan(random)) for _ in range(steps)]


def test_plain_mixing_follows_the_sizes_of_the_data():
    total = sum(counts(Mixing.Config().build(SIZES, 8), 500), Counter())
    assert total["image"] / 4000 == pytest.approx(100_000 / 101_100, abs=0.01)
    assert total["audio"] < 20


def test_every_balanced_step_reads_the_same_whatever_the_sizes():
    balance = StepBalance.Config(shares={"text": 2, "audio": 1, "image": 1}).build(SIZES, 8)
    assert all(step == {"text": 4, "audio": 2, "image": 2} for step in counts(balance))
    assert balance.shares() == {"text": 0.5, "audio": 0.25, "image": 0.25}


def test_text_has_a_quarter_by_default():
    balance = StepBalance.Config().build(SIZES, 8)
    assert counts(balance, 1)[0]["text"] == 2
    assert balance.shares()["text"] == 0.25


@pytest.mark.parametrize(
    ("shares", "micro_batches", "problem"),
    [
        ({"text": 1, "audio": 3, "image": 3}, 8, "share of 0.14"),
        ({"text": 1, "audio": 1}, 8, "shares for audio, text and data for audio, image, text"),
        ({"text": 1, "audio": 1, "image": 1}, 2, "leave none for image"),
        ({"text": 1, "audio": 0, "image": 1}, 8, "not above 0"),
    ],
)
def test_a_step_that_cannot_be_balanced_is_an_error(shares, micro_batches, problem):
    with pytest.raises(InputError, match=problem):
        StepBalance.Config(shares=shares).build(SIZES, micro_batches)


def test_data_without_text_cannot_be_balanced():
    with pytest.raises(InputError, match=r"text has a share of 0\.00"):
        StepBalance.Config().build({"audio": 10, "image": 10}, 8)


@pytest.mark.parametrize("count", range(4, 40))
def test_parts_add_up_and_text_is_never_rounded_below_a_quarter(count):
    parts = apportion({"text": 0.25, "audio": 0.45, "image": 0.3}, count)
    assert sum(parts.values()) == count
    assert parts["text"] >= count / 4


def test_a_modality_that_lags_gains_weight_and_one_that_is_done_loses_it():
    balance = AdaptiveBalance.Config(shares={"text": 1, "audio": 1, "image": 1}).build(SIZES, 6)
    for step in range(10):
        losses = {"text": 2 * 0.9**step, "audio": 3 * 0.98**step, "image": 4 * 0.7**step}
        balance.observe(losses, losses)
    shares = balance.shares()
    assert shares["audio"] > 1 / 3 > shares["image"]
    assert shares["audio"] > shares["text"] > shares["image"]
    assert sum(shares.values()) == pytest.approx(1)


def test_a_modality_that_overfits_loses_weight_although_its_held_out_loss_is_high():
    balance = AdaptiveBalance.Config(shares={"text": 1, "audio": 1, "image": 1}).build(SIZES, 6)
    for step in range(10):
        fall = 0.9**step
        train = {"text": 2 * fall, "audio": 2 * 0.6**step, "image": 2 * fall}
        held_out = {"text": 2 * fall, "audio": 2 * fall + 0.1 * step, "image": 2 * fall}
        balance.observe(train, held_out)
    assert balance.shares()["audio"] < 0.25


def test_text_is_held_at_its_floor_and_weights_at_their_bounds():
    config = AdaptiveBalance.Config(smoothing=0.0, low=0.5, high=2.0)
    balance = config.build(SIZES, 8)
    balance.observe({"text": 1, "audio": 1, "image": 1}, {"text": 1, "audio": 1, "image": 1})
    balance.observe({"text": 1, "audio": 1, "image": 1}, {"text": 1e-6, "audio": 1, "image": 1e-6})
    shares = balance.shares()
    assert shares["text"] == pytest.approx(0.25)
    assert shares["audio"] / shares["image"] == pytest.approx(2.0 / 0.5)


def test_losses_that_are_not_finite_change_nothing():
    balance = AdaptiveBalance.Config().build(SIZES, 8)
    before = balance.shares()
    balance.observe({"text": float("nan")}, {"text": 1.0, "audio": float("inf")})
    assert balance.shares() == before


def test_an_adaptive_balance_goes_on_from_its_state():
    a, b = (AdaptiveBalance.Config().build(SIZES, 8) for _ in range(2))
    a.observe({"text": 2, "audio": 3, "image": 1}, {"text": 2, "audio": 3, "image": 1})
    a.observe({"text": 1, "audio": 3, "image": 1}, {"text": 1, "audio": 3, "image": 2})
    b.load(a.state())
    for balance in (a, b):
        balance.observe({"text": 1, "audio": 2, "image": 1}, {"text": 1, "audio": 2, "image": 3})
    assert a.shares() == b.shares()
    assert len(set(a.shares().values())) == 3


def test_bounds_without_meaning_are_errors():
    with pytest.raises(InputError, match="low"):
        AdaptiveBalance.Config(low=2.0)
    with pytest.raises(InputError, match="text_floor"):
        AdaptiveBalance.Config(text_floor=0.1)
