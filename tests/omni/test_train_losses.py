"""Losses against their definitions, schedules, bad steps and bad samples."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from omni.adapters.audio import AudioAdapter
from omni.errors import InputError, WeightsError
from omni.sequence import Text
from omni.train.bridges import CTC, Projector
from omni.train.contrastive import Contrastive, hard_negatives, info_nce, same_texts
from omni.train.data import Batches, Clip, Counter, Example, Media, Pair, bucket
from omni.train.metrics import read
from omni.train.model import LoRA
from omni.train.objective import BridgeLoss, Language, Preference
from omni.train.optimiser import Optimiser, Schedule
from omni.train.recipe import Recipe, Stage
from omni.train.run import train
from omni.train.synthetic import WIDTH, MadeUp, TinyModel
from omni.train.trainer import DivergedError

BRIDGES = {m: Projector.Config(features=WIDTH) for m in ("audio", "image")}


def tiny(**options):
    return TinyModel(bridges=BRIDGES, **options).build(1)


def items(modality, count=4, **options):
    return MadeUp.Config(modality=modality, size=50, **options).build(None, 0).held_out(count)


def test_the_language_loss_of_a_packed_row_is_the_sum_over_its_samples():
    model = tiny()
    mixed = [*items("text"), *items("audio")]
    with torch.no_grad():
        together = Language().loss(model, mixed).total
        alone = sum(Language().loss(model, [item]).total for item in mixed)
    torch.testing.assert_close(together, alone)


def test_the_language_loss_is_that_of_transformers():
    model = tiny()
    example = Example((Text((1, 20, 21, 22)), Text((23, 2), learn=True)))
    labels = torch.tensor([[-100] * 4 + [23, 2]])
    want = model.causal(input_ids=torch.tensor([[1, 20, 21, 22, 23, 2]]), labels=labels).loss
    loss = Language().loss(model, [example])
    torch.testing.assert_close(loss.total / example.units, want)
    assert example.units == 2


def test_a_clip_is_its_frames_and_its_sound_on_one_clock():
    model = tiny()
    frames = [Media("image", torch.randn(2, WIDTH), times=(t, t + 2.0)) for t in (0.0, 2.0)]
    sound = Media("audio", torch.randn(8, WIDTH), times=(0.0, 4.0))
    answer = Text((20, 2), learn=True)
    example = Example((Text((1,)), Clip(tuple(frames), (sound,)), answer))
    rows, _ = model.bridge(example.media)
    laid = model.lay_out([example], rows)[0]
    order = [*rows[0], *rows[2][:4], *rows[1], *rows[2][4:]]
    torch.testing.assert_close(laid.embeds, torch.stack(order))
    assert math.isfinite(Language().loss(model, [example]).total)


def test_a_medium_without_a_bridge_is_an_error():
    with pytest.raises(WeightsError, match="no bridge for video"):
        tiny().bridge([Media("video", torch.randn(2, WIDTH))])


def test_dpo_begins_at_ln_2_and_falls_where_the_chosen_answer_gains():
    model, objective = tiny(), Preference(beta=0.5)
    pairs = items("text", pairs=True)
    with torch.no_grad():
        reference = objective.log_probs(model, pairs)
        start = objective.loss(model, pairs, reference).total / len(pairs)
        shifted = reference - torch.tensor([1.0, 0.0])
        better = objective.loss(model, pairs, shifted).total / len(pairs)
    assert float(start) == pytest.approx(math.log(2))
    assert float(better) == pytest.approx(math.log1p(math.exp(-0.5)))


def test_log_probs_of_a_pair_are_those_of_each_answer_alone():
    model = tiny()
    pair = items("audio", 1, pairs=True)[0]
    with torch.no_grad():
        both = Preference().log_probs(model, [pair])[0]
        alone = [Language().loss(model, [e]).total for e in (pair.chosen, pair.rejected)]
    torch.testing.assert_close(both, -torch.stack(alone))


def test_the_reference_is_the_first_weights_and_the_model_comes_back():
    model = tiny(lora=LoRA(rank=2))
    model.freeze(("llm",))
    first = {n: p.detach().clone() for n, p in model.learned().items()}
    with torch.no_grad():
        for p in model.learned().values():
            p.add_(0.1)
    now = {n: p.detach().clone() for n, p in model.learned().items()}
    with model.with_values(first):
        assert all(p.equal(first[n]) for n, p in model.learned().items())
        assert not model.training
    assert all(p.equal(now[n]) for n, p in model.learned().items())
    assert model.training


def test_info_nce_is_low_for_pairs_that_agree_and_twins_are_no_negatives():
    same = same_texts([(1,), (2,), (3,)])
    assert float(info_nce(20 * torch.eye(3), same)) < 1e-6
    assert float(info_nce(torch.zeros(3, 3), same)) == pytest.approx(math.log(3))
    twins = same_texts([(1,), (1,), (3,)])
    assert float(info_nce(torch.zeros(3, 3), twins)) == pytest.approx(
        (2 * math.log(2) + math.log(3)) / 3
    )


def test_hard_negatives_are_the_most_alike_and_never_the_same_text():
    torch.manual_seed(0)
    similarity = torch.tensor([[0.0, 50.0, 0.0], [0.0, 0.0, 50.0], [50.0, 0.0, 0.0]])
    found = hard_negatives(similarity, same_texts([(1,), (2,), (3,)]))
    assert found == [(0, 1), (1, 2), (2, 0), (2, 0), (0, 1), (1, 2)]
    assert hard_negatives(similarity, same_texts([(1,), (1,), (1,)])) == []


def test_contrast_and_matching_stand_beside_the_language_loss_and_reach_the_bridge():
    model = tiny(contrastive=Contrastive.Config(width=8))
    model.freeze(("bridges", "heads"))
    loss = Language().loss(model, items("image"))
    assert loss.beside.keys() == {"contrastive", "matching"}
    sum(term.mean for term in loss.beside.values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(g is not None and g.abs().sum() > 0 for n, g in gradients.items() if "image" in n)
    assert gradients["heads.contrastive.log_scale"] is not None


def test_the_ctc_bridge_is_ctc_over_the_tokens_of_the_llm():
    torch.manual_seed(0)
    units = (16, 17, 18)
    sizes = AudioAdapter.Config(
        units=units, states=WIDTH, width=12, layers=2, heads=2, kernel=3, stride=2, dropout=0.0
    )
    bridge = CTC.Config(adapter=sizes).build(32).eval()
    media = [
        Media("audio", torch.randn(9, WIDTH), (16, 18)),
        Media("audio", torch.randn(6, WIDTH), (17, 99)),
    ]
    rows, terms = bridge(media, torch.randn(40, 32))
    alone = []
    for medium, target in zip(media, ((1, 3), (2,)), strict=True):
        log_probs, counts = bridge.adapter(
            medium.features[None], torch.tensor([len(medium.features)])
        )
        size, wanted = torch.tensor([len(target)]), torch.tensor([target])
        log_probs = log_probs.transpose(0, 1)
        alone.append(F.ctc_loss(log_probs, wanted, counts, size, reduction="sum"))
    torch.testing.assert_close(terms["ctc"].mean, sum(alone) / 3)
    assert all(r.shape[1] == 32 for r in rows)
    assert terms["middle"].weight == pytest.approx(0.3)
    only, same = bridge(media, None)
    assert only == []
    torch.testing.assert_close(same["ctc"].mean, terms["ctc"].mean)


def test_what_learns_hears_with_gaps():
    sizes = AudioAdapter.Config(units=(16, 17), states=WIDTH, width=12, layers=2, heads=2)
    bridge = CTC.Config(adapter=sizes, stretch=10, hide=5, blind=0.5).build(32)
    states = torch.ones(2, 100, WIDTH)
    hidden = bridge._hidden(states, torch.tensor([100, 60]))
    assert (states == 1).all()
    zero = hidden == 0
    assert 0.2 < zero.all(1).float().mean() < 0.8
    assert zero.all(2)[0].any()
    assert not zero.all(2)[1, 70:].any()


def test_the_bridges_own_losses_need_no_llm():
    model = TinyModel(
        bridges={
            "audio": CTC.Config(
                adapter=AudioAdapter.Config(
                    units=(16, 17), states=WIDTH, width=12, layers=2, heads=2, kernel=3
                )
            )
        }
    ).build(1)
    model.freeze(("bridges",))
    model.causal.model = None
    heard = Example((Media("audio", torch.randn(12, WIDTH), (16, 17)), Text((20,), learn=True)))
    loss = BridgeLoss().loss(model, [heard])
    assert float(loss.total) == 0
    loss.beside["ctc"].mean.backward()
    assert model.bridges["audio"].adapter.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", ["cosine", "linear", "wsd"])
def test_a_schedule_warms_up_stays_within_bounds_and_ends_at_its_floor(shape):
    schedule = Schedule(shape=shape, warmup=10, floor=0.1)
    rates = [schedule.at(step, 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[110] == pytest.approx(0.1)


def test_wsd_stays_up_until_its_decay():
    schedule = Schedule(shape="wsd", decay=0.2, floor=0.0)
    assert [schedule.at(s, 100) for s in (0, 79, 90, 100)] == pytest.approx([1, 1, 0.5, 0])


def test_vectors_do_not_decay_and_the_llm_has_its_own_rate():
    model = tiny()
    model.freeze(("bridges", "llm"))
    groups = Optimiser(lr=1.0, llm_lr=0.5, weight_decay=0.1).build(model.named_parameters())
    found = {
        (group["lr"], group["weight_decay"], p.ndim > 1)
        for group in groups.param_groups
        for p in group["params"]
    }
    assert found == {(1.0, 0.1, True), (1.0, 0.0, False), (0.5, 0.1, True), (0.5, 0.0, False)}


def test_micro_batches_hold_like_lengths_and_all_items_once():
    many = items("audio", 40)
    groups = bucket(many, 40)
    assert sorted(map(id, many)) == sorted(id(i) for g in groups for i in g)
    assert all(sum(i.cost for i in g) <= 40 for g in groups)
    ends = [(g[0].cost, g[-1].cost) for g in groups]
    assert all(a[1] >= b[0] for a, b in pairwise(ends))


def test_micro_batches_go_on_where_they_stopped():
    source = MadeUp.Config(modality="text", size=30).build(None, 0)

    def reader():
        return Batches("text", source, tokens=30, pool=12, seed=3, counter=Counter(0))

    one, two = reader(), reader()
    for _ in range(7):
        one.next()
    two.load(one.state())
    assert [one.next() for _ in range(15)] == [two.next() for _ in range(15)]


class Spoiled(MadeUp):
    """Every third sample cannot be read."""

    def read(self, position):
        for i, (item, after) in enumerate(super().read(position)):
            yield (InputError(f"sample {i} is torn") if i % 3 == 2 else item), after


def test_bad_samples_are_counted_up_to_a_bound_and_the_last_one_is_named():
    source = Spoiled(MadeUp.Config(modality="text", size=30), 0)
    counter = Counter(4)
    batches = Batches("text", source, tokens=100, pool=6, seed=0, counter=counter)
    batches.next()
    assert counter.bad == {"text": 2}
    with pytest.raises(InputError, match=r"more than 4 bad samples .* is torn"):
        list(iter(batches.next, None))


def test_a_sample_that_does_not_fit_is_a_bad_one():
    source = MadeUp.Config(modality="text", size=30).build(None, 0)
    with pytest.raises(InputError, match="does not fit into 3"):
        Batches("text", source, tokens=3, pool=6, seed=0, counter=Counter(1)).next()


def one_stage(**options):
    stage = Stage(
        name="only",
        data={m: MadeUp.Config(modality=m, size=40) for m in ("text", "audio")},
        micro_batches=4,
        tokens=128,
        train=("bridges", "llm"),
        **options,
    )
    return Recipe(name="n", threads=1, model=TinyModel(bridges=BRIDGES), stages=(stage,))


def spoil(monkeypatch, *steps):
    """Make the loss of these calls not a number."""
    loss, calls = Language.loss, []

    def maybe(self, model, given, reference=None):
        calls.append(1)
        found = loss(self, model, given, reference)
        if model.training and len(calls) in steps:
            found.total = found.total * math.nan
        return found

    monkeypatch.setattr(Language, "loss", maybe)


def test_a_step_that_is_not_finite_is_skipped_and_counted(monkeypatch, tmp_path):
    spoil(monkeypatch, 8)
    result = train(one_stage(steps=6), tmp_path, device="cpu")
    assert result.finished
    assert result.skipped == 1
    lines = [line for line in read(tmp_path / "only" / "metrics.jsonl") if "loss" in line]
    assert [line["loss"] is None for line in lines].count(True) == 1
    assert all(math.isfinite(v) for v in result.held_out["only"].values())


def test_too_many_steps_that_are_not_finite_end_the_run_with_advice(monkeypatch, tmp_path):
    spoil(monkeypatch, *range(10, 100))
    with pytest.raises(DivergedError, match=r"lower the learning rate"):
        train(one_stage(steps=20, bad_steps=2, save_every=1), tmp_path, device="cpu")


def test_a_pair_counts_once_and_costs_both_answers():
    pair = items("text", 1, pairs=True)[0]
    assert isinstance(pair, Pair)
    assert (pair.units, pair.cost) == (1, pair.chosen.cost + pair.rejected.cost)
