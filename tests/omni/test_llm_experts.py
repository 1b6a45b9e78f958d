"""Experts compute what is routed to them, as a loop over them would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from llm_tiny import write_model
from torch import Tensor, nn

from omni.errors import InputError, WeightsError
from omni.llm.cache import Feed
from omni.llm.experts import Experts, ExpertsConfig, losses, set_modalities, upcycle
from omni.llm.model import load
from omni.sequence import Text, collate, inputs, interleave, pack
from omni.types import Span

PROMPT = [5, 99, 17, 255, 3, 250, 8, 8, 41, 77, 120, 6]
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-4}
WIDTH = 48


def layer(seed: int = 0, **config: Any) -> Experts:
    """A layer whose experts differ and whose router has opinions."""
    generator = torch.Generator().manual_seed(seed)
    dense = nn.Sequential(nn.Linear(WIDTH, 64), nn.SiLU(), nn.Linear(64, WIDTH))
    made = Experts(ExpertsConfig((0,), **config), dense, WIDTH, generator)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(0, 0.3, generator=generator)
    return made.eval()


def states(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def by_loop(made: Experts, x_ND: Tensor, modality: int = 0, capacity: int | None = None) -> Tensor:
    """Every expert over every token, masked; no sorting."""
    config = made.config
    weight = made.router.weight
    if config.routing == "separate":
        weight = weight[modality * config.experts : (modality + 1) * config.experts]
    logits = x_ND @ weight.T
    if made.router.bias is not None:
        logits = logits + made.router.bias[modality]
    gates, chosen = logits.softmax(-1).topk(config.top_k)
    if config.normalise:
        gates = gates / gates.sum(-1, keepdim=True)
    taken = [0] * config.experts
    y = torch.zeros_like(x_ND)
    for k in range(config.top_k):
        for n in range(len(x_ND)):
            e = int(chosen[n, k])
            taken[e] += 1
            if capacity is None or taken[e] <= capacity:
                y[n] = y[n] + gates[n, k] * made.experts[e](x_ND[n])
    return y


@pytest.mark.parametrize("routing", ["shared", "bias", "separate"])
@pytest.mark.parametrize(("top_k", "normalise"), [(1, False), (2, True), (4, True)])
def test_it_is_a_loop_over_the_experts(routing: Any, top_k: int, normalise: bool) -> None:
    made = layer(experts=4, top_k=top_k, normalise=normalise, routing=routing)
    x = states(33)
    torch.testing.assert_close(made(x), by_loop(made, x), **CLOSE)
    set_modalities(made, torch.full((3, 11), 2))
    torch.testing.assert_close(
        made(x.view(3, 11, WIDTH)).view(33, WIDTH), by_loop(made, x, 2), **CLOSE
    )


def test_gradients_are_those_of_the_loop_and_an_idle_expert_has_none() -> None:
    made = layer(experts=4, top_k=2)
    made.train()
    x = states(1).requires_grad_()

    def gradients(y: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(y.square().sum(), [x, *made.parameters()], allow_unused=True)
        names = ["x", *(name for name, _ in made.named_parameters())]
        unused = {n for n, g in zip(names, found, strict=True) if g is None}
        assert all(name.startswith("experts.") for name in unused)
        given = zip(found, [x, *made.parameters()], strict=True)
        return [torch.zeros_like(p) if g is None else g for g, p in given]

    for got, expected in zip(gradients(made(x)), gradients(by_loop(made, x)), strict=True):
        torch.testing.assert_close(got, expected, **CLOSE)
    # One token leaves two idle; sharded training needs zeros of them, not nothing.
    made(x).sum().backward()
    assert all(p.grad is not None for p in made.parameters())
    assert any(not p.grad.any() for p in made.experts.parameters() if p.grad is not None)


def test_only_routed_tokens_are_computed() -> None:
    made = layer(experts=4, top_k=2)
    seen: list[int] = []
    for expert in made.experts:
        expert.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    made(states(50))
    assert sum(seen) == 100
    seen.clear()
    made(states(1))
    assert seen == [1, 1]


def test_beyond_its_capacity_an_expert_lets_tokens_pass_in_training_only() -> None:
    made = layer(experts=4, top_k=2, capacity=0.5)
    x = states(40)
    torch.testing.assert_close(made(x), by_loop(made, x), **CLOSE)
    made.train()
    got = made(x)
    torch.testing.assert_close(got, by_loop(made, x, capacity=10), **CLOSE)
    assert got.eq(0).all(1).any()


def test_padding_is_neither_routed_nor_counted() -> None:
    made = layer(experts=4, top_k=2, capacity=1.0).train()
    x = states(20)
    alone = made(x)
    terms = losses(made)
    set_modalities(made, torch.tensor([0] * 20 + [-1] * 30))
    padded = made(torch.cat([x, states(30, 9)]))
    torch.testing.assert_close(padded[:20], alone, **CLOSE)
    assert not padded[20:].any()
    torch.testing.assert_close(losses(made), terms, **CLOSE)
    with pytest.raises(InputError, match="set for 50 tokens, and 20 came"):
        made(x)


def test_the_losses_are_least_for_an_even_load_and_small_logits() -> None:
    made = layer(experts=4, top_k=1).train()
    x = torch.eye(4, WIDTH).repeat(5, 1)
    with torch.no_grad():
        made.router.weight.zero_()
        made.router.weight[:, :4] = 8 * torch.eye(4)
    made(x)
    even = {name: float(value.detach()) for name, value in losses(made).items()}
    assert even["balance"] == pytest.approx(1.0, abs=1e-3)
    assert even["z"] == pytest.approx(64, rel=0.01)
    with torch.no_grad():
        made.router.weight[0] += 20
    made(x)
    skewed = losses(made)
    assert float(skewed["balance"].detach()) == pytest.approx(4.0, abs=0.01)
    # Its gradient takes load from the expert that has it all.
    skewed["balance"].backward()
    grad = made.router.weight.grad
    assert grad is not None
    assert grad[0, :4].sum() > 0


@pytest.mark.parametrize("name", ["qwen2-tied", "llama-untied"])
@pytest.mark.parametrize("routing", ["shared", "separate"])
def test_an_upcycled_model_gives_what_the_dense_one_gave(
    tmp_path: Path, name: str, routing: Any
) -> None:
    model = write_model(tmp_path, name)
    ids = torch.tensor([PROMPT])
    with torch.inference_mode():
        dense = model(ids).logits
        upcycle(model, layers=[1], experts=3, top_k=2, routing=routing)
        torch.testing.assert_close(model(ids).logits, dense, **CLOSE)
        torch.testing.assert_close(model.train()(ids).logits, dense, **CLOSE)


def trained(directory: Path, routing: Any, layers: list[int]) -> Any:
    """A model with experts that have parted, saved as transformers saves."""
    model = write_model(directory, "qwen2-untied")
    upcycle(model, layers=layers, experts=4, top_k=2, capacity=1.25, routing=routing)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for made in (m for m in model.modules() if isinstance(m, Experts)):
            for p in made.parameters():
                p.add_(torch.randn(p.shape, generator=generator) * 0.1)
    model.save_pretrained(directory)
    return model.eval()


@pytest.mark.parametrize(
    ("routing", "layers"), [("shared", [0, 1]), ("bias", [1]), ("separate", [0])]
)
def test_a_checkpoint_with_experts_decodes_here_as_in_transformers(
    tmp_path: Path, routing: Any, layers: list[int]
) -> None:
    reference = trained(tmp_path, routing, layers)
    model = load(tmp_path, device="cpu", quantization="fp32")
    media = Span("image", embeds=states(5) * 0.3)
    sound = Span("audio", embeds=states(4, 2) * 0.3)
    sequence = interleave([Text(PROMPT[:3]), media, Text(PROMPT[3:7]), sound, Text([9, 1])])
    batch = collate(pack([sequence], 64))
    set_modalities(reference, batch.modality_BT)
    with torch.inference_mode():
        expected = reference(**inputs(batch, reference.get_input_embeddings())).logits[0]
    feed = Feed(model.new_cache(), sequence.ids, sequence.embeds)
    torch.testing.assert_close(model.run([feed], all_logits=True).logits, expected, **CLOSE)
    # Token by token, and beside another sequence: nobody's experts depend on who else is there.
    cache, other = model.new_cache(), model.new_cache()
    done = 0
    for i, token in enumerate(sequence.ids):
        assert sequence.embeds is not None
        embeds = sequence.embeds[done : done + 1] if token < 0 else None
        done += token < 0
        out = model.forward([Feed(other, [3, i]), Feed(cache, [token], embeds)])
        torch.testing.assert_close(out[1], expected[i], **CLOSE)


@pytest.mark.parametrize("quantization", ["int8", "auto"])
def test_experts_are_quantised_as_other_weights(tmp_path: Path, quantization: Any) -> None:
    reference = trained(tmp_path, "shared", [0])
    for _ in range(2):  # the second start reads the stored tables
        model = load(tmp_path, device="cpu", quantization=quantization)
        logits = model.run([Feed(model.new_cache(), PROMPT)], all_logits=True).logits
        with torch.inference_mode():
            expected = reference(torch.tensor([PROMPT])).logits[0]
        assert (logits - expected).norm() / expected.norm() < 0.1


def test_upcycling_again_and_its_state_bring_a_model_back(tmp_path: Path) -> None:
    reference = trained(tmp_path / "a", "bias", [0, 1])
    other = write_model(tmp_path / "b", "qwen2-untied")
    upcycle(other, **reference.config.experts, seed=5)
    other.load_state_dict(reference.state_dict())
    ids = torch.tensor([PROMPT])
    with torch.inference_mode():
        assert torch.equal(other(ids).logits, reference(ids).logits)


def test_training_moves_the_router_and_parts_the_experts(tmp_path: Path) -> None:
    model = write_model(tmp_path, "qwen2-untied", scale=0.5)
    model.activation_checkpointing_enable()
    [made] = upcycle(model, layers=[1], experts=4, top_k=2, capacity=2.0, routing="bias")
    model.train()
    router = made.router.weight.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    sample = interleave([Text([7, 3, 9, 4] * 6, learn=True)])
    batch = collate(pack([sample], 32))
    set_modalities(model, batch.modality_BT)
    values = []
    for _ in range(12):
        loss = model(**inputs(batch, model.get_input_embeddings())).loss
        terms = losses(model)
        (loss + 0.01 * terms["balance"] + 0.001 * terms["z"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(float(loss.detach()))
    assert values[-1] < 0.7 * values[0]
    assert not torch.equal(made.router.weight, router)
    first, second = (made.experts[i].gate_proj.weight for i in (0, 1))  # type: ignore[union-attr]
    assert not torch.equal(first, second)  # type: ignore[arg-type]


def test_bad_sizes_and_configs_are_named(tmp_path: Path) -> None:
    model = write_model(tmp_path, "qwen2-tied")
    with pytest.raises(InputError, match="top_k is 5; expected 1 to 4"):
        upcycle(model, layers=[0], top_k=5)
    with pytest.raises(InputError, match=r"layer 2 cannot be upcycled; expected .* 0 to 1"):
        upcycle(model, layers=[0, 2])
    with pytest.raises(InputError, match="routing is 'random'"):
        upcycle(model, layers=[0], routing="random")  # type: ignore[arg-type]
    upcycle(model, layers=[0])
    with pytest.raises(InputError, match="layer 0 cannot be upcycled"):
        upcycle(model, layers=[0])
    model.config.experts = {"layers": [0], "count": 4}
    model.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="'experts' that cannot be used"):
        load(tmp_path, device="cpu", quantization="fp32")
