"""Low-rank updates: what was trained is what runs, and nothing changes before a picture."""

import pytest
import torch
from llm_tiny import write_model
from safetensors.torch import save_file

from omni.errors import WeightsError
from omni.llm.cache import Feed
from omni.llm.model import load
from omni.llm.updates import Updates, save_updates
from omni.sequence import Text, interleave
from omni.train.model import LoRA, OmniModel
from omni.train.run import whole
from omni.train.updates import ship
from omni.types import Span

WORDS, QUESTION = [5, 6, 7, 8], [40, 41, 42]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model with random updates, as training has it; and the file that the runtime reads."""
    folder = tmp_path_factory.mktemp("tiny")
    write_model(folder, "qwen2-tied")
    lora = LoRA(rank=4, alpha=8, layers=1, after="image")
    config = OmniModel.Config(llm=str(folder), bridges={}, lora=lora, boundaries=False)
    model = config.build(0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.normal_(0, 0.2).copy_(p.half())
    values = {n: whole(p.detach()).contiguous() for n, p in model.learned().items()}
    save_file(values, folder / "weights.safetensors")
    ship(folder / "weights.safetensors", folder / "updates", config, {"licence": "none"})
    return folder, model


def runtime(folder, updated=True):
    llm = load(folder, quantization="fp32", device="cpu")
    if updated:
        updates, card = Updates.load(folder / "updates")
        assert card == {"licence": "none"}
        llm.adapt(updates)
    return llm


def picture(rows=3):
    torch.manual_seed(2)
    return Span("image", embeds=torch.randn(rows, 48) * 0.1)


def logits(llm, laid, cut=None):
    """Of every token; ``cut``: fed in two parts."""
    cache = llm.new_cache()
    parts = [(0, cut), (cut, len(laid))] if cut else [(0, len(laid))]
    found = []
    for begin, end in parts:
        ids = laid.ids[begin:end]
        before = sum(i < 0 for i in laid.ids[:begin])
        rows = laid.embeds[before : before + sum(i < 0 for i in ids)]
        feed = Feed(cache, ids, rows if len(rows) else None)
        found.append(llm.run([feed], all_logits=True).logits)
    return torch.cat(found)


def test_the_runtime_computes_what_was_trained(trained):
    folder, model = trained
    laid = interleave([Text(tuple(WORDS)), picture(), Text(tuple(QUESTION))], hashed=False)
    model.eval()
    with torch.no_grad():
        batch = model.batch([laid, laid], packed=True)
        wanted = model.causal.lm_head(model.hidden(batch))[0]
    llm = runtime(folder)
    found = logits(llm, laid)
    torch.testing.assert_close(found, wanted[: len(laid)], rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(found, wanted[len(laid) :], rtol=1e-3, atol=2e-4)
    # Token by token from within the picture on, as an answer is written.
    torch.testing.assert_close(logits(llm, laid, cut=5), found, rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(logits(llm, laid, cut=9), found, rtol=1e-3, atol=2e-4)


def test_before_a_picture_the_model_is_what_it_was(trained):
    folder, _ = trained
    plain, updated = runtime(folder, updated=False), runtime(folder)
    laid = interleave([Text(tuple(WORDS)), picture(), Text(tuple(QUESTION))], hashed=False)
    before, after = logits(plain, laid), logits(updated, laid)
    assert torch.equal(before[: len(WORDS)], after[: len(WORDS)])
    assert not torch.allclose(before[len(WORDS) :], after[len(WORDS) :], atol=0.05)


def test_side_by_side_each_sequence_has_its_own_beginning(trained):
    folder, _ = trained
    plain, llm = runtime(folder, updated=False), runtime(folder)
    laid = interleave([Text(tuple(WORDS)), picture(), Text(tuple(QUESTION))], hashed=False)
    feeds = [
        Feed(llm.new_cache(), WORDS),
        Feed(llm.new_cache(), laid.ids, laid.embeds),
        Feed(llm.new_cache(), QUESTION),
    ]
    found = llm.run(feeds).logits
    alone = [plain.run([Feed(plain.new_cache(), ids)]).logits[0] for ids in (WORDS, QUESTION)]
    torch.testing.assert_close(found[0], alone[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], logits(llm, laid)[-1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[2], alone[1], rtol=1e-4, atol=1e-4)


def test_a_conversation_that_forgets_its_picture_is_as_before(trained):
    folder, _ = trained
    plain, llm = runtime(folder, updated=False), runtime(folder)
    laid = interleave([Text(tuple(WORDS)), picture(), Text(tuple(QUESTION))], hashed=False)
    cache = llm.new_cache()
    llm.run([Feed(cache, laid.ids, laid.embeds)])
    cache.crop(len(WORDS))
    assert cache.first_picture is None
    found = llm.run([Feed(cache, QUESTION)]).logits
    wanted = plain.run([Feed(plain.new_cache(), WORDS + QUESTION)]).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_updates_of_another_model_are_refused(trained, tmp_path):
    folder, _ = trained
    llm = runtime(folder, updated=False)
    pair = torch.zeros(4, 48), torch.zeros(48, 4)
    save_updates(tmp_path / "other", {0: {"o_proj": pair}}, "other", {})
    with pytest.raises(WeightsError, match="are those of other"):
        llm.adapt(Updates.load(tmp_path / "other")[0])
    save_updates(tmp_path / "deep", {7: {"o_proj": pair}}, folder.name, {})
    with pytest.raises(WeightsError, match="do not fit"):
        llm.adapt(Updates.load(tmp_path / "deep")[0])
    save_updates(tmp_path / "part", {0: {"q_proj": pair}}, folder.name, {})
    with pytest.raises(WeightsError, match="no such adapter"):
        Updates.load(tmp_path / "part")
    with pytest.raises(WeightsError, match="no such adapter"):
        Updates.load(folder / "weights.safetensors")


def test_only_updates_that_act_after_pictures_can_be_shipped(trained, tmp_path):
    folder, _ = trained
    weights = folder / "weights.safetensors"
    everywhere = OmniModel.Config(llm=str(folder), bridges={}, lora=LoRA(rank=4))
    with pytest.raises(WeightsError, match="after="):
        ship(weights, tmp_path / "out", everywhere, {})
    after = OmniModel.Config(llm=str(folder), bridges={}, lora=LoRA(rank=4, after="image"))
    with pytest.raises(WeightsError, match="holds no LoRA"):
        ship(folder / "model.safetensors", tmp_path / "out", after, {})
