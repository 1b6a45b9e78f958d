"""The audio adapter: batched equals single, greedy CTC, expected embeddings, and that it learns."""

import pytest
import torch

from omni.adapters.audio import AudioAdapter, stretches

UNITS = (7, 3, 11, 2)


def tiny(**changes) -> AudioAdapter:
    torch.manual_seed(0)
    sizes = {"states": 8, "width": 16, "layers": 2, "heads": 2, "kernel": 3, "dropout": 0.0}
    return AudioAdapter.Config(units=UNITS, **{**sizes, **changes}).build().eval()


def test_a_batch_gives_what_each_recording_gives_alone():
    adapter = tiny()
    torch.nn.init.normal_(adapter.enter.bias)
    one, two = torch.randn(1, 9, 8), torch.randn(1, 20, 8)
    both = torch.zeros(2, 20, 8)
    both[0, :9], both[1] = one[0], two[0]
    together, counts = adapter(both, torch.tensor([9, 20]))
    assert counts.tolist() == [3, 5]
    for row, alone in ((together[0], one), (together[1], two)):
        single, count = adapter(alone, torch.tensor([alone.shape[1]]))
        torch.testing.assert_close(row[: int(count)], single[0], rtol=1e-4, atol=1e-5)


def said(*units: int) -> torch.Tensor:
    """Log-probabilities that are nearly sure of each unit in turn."""
    logits = torch.full((len(units), len(UNITS) + 1), -20.0)
    logits[range(len(units)), units] = 0.0
    return logits.log_softmax(-1)


@pytest.mark.parametrize(
    ("path", "tokens"),
    [
        ((0, 1, 1, 0, 2), [7, 3]),
        ((1, 0, 1), [7, 7]),
        ((1, 2, 2, 1), [7, 3, 7]),
        ((0, 0), []),
        ((4,), [2]),
    ],
)
def test_runs_are_one_token_and_blanks_part_equal_ones(path, tokens):
    assert tiny().tokens(said(*path)) == tokens


def test_stretches_say_where_a_token_is_heard():
    assert stretches(said(0, 1, 1, 0, 2)) == [(1, 1, 3), (2, 4, 5)]


def test_the_llm_reads_a_tokens_own_embedding_where_it_is_sure_and_a_mean_where_not():
    adapter, embedding = tiny(), torch.randn(20, 6)
    sure = adapter.rows(said(1, 0, 3), embedding)
    torch.testing.assert_close(sure, embedding[[7, 11]], rtol=1e-4, atol=1e-5)
    unsure = torch.tensor([[0.1, 0.45, 0.45, 0.0, 0.0]]).clamp_min(1e-9).log()
    mean = (embedding[7] + embedding[3]) / 2
    torch.testing.assert_close(adapter.rows(unsure, embedding)[0], mean, rtol=1e-4, atol=1e-4)
    assert adapter.rows(said(0, 0), embedding).shape == (0, 6)


def test_it_learns_to_spell_what_it_hears():
    adapter = tiny(stride=2).train()
    patterns = torch.randn(4, 8)
    optimiser = torch.optim.Adam(adapter.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(1)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        units = torch.randint(0, 4, (16, 4), generator=generator)
        states = patterns[units].repeat_interleave(6, 1)
        return states + 0.1 * torch.randn(states.shape, generator=generator), units + 1

    for _ in range(120):
        states, units = batch()
        log_probs, counts = adapter(states, torch.full((16,), 24))
        loss = torch.nn.functional.ctc_loss(
            log_probs.transpose(0, 1), units, counts, torch.full((16,), 4)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    adapter.eval()
    states, units = batch()
    heard, counts = adapter(states, torch.full((16,), 24))
    right = [
        adapter.tokens(heard[i]) == [UNITS[u - 1] for u in units[i].tolist()] for i in range(16)
    ]
    assert sum(right) >= 12
