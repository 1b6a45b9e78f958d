"""Pictures as sentences in the LLM's own embeddings: exact where sure, mixed where not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from llm_tiny import write_model
from safetensors.torch import save_file

from omni.adapters.image import (
    FIELDS,
    Choice,
    ImageAdapter,
    Scene,
    load_image_adapter,
    rows,
    save_image_adapter,
    text,
)
from omni.errors import WeightsError
from omni.llm.model import load
from omni.train.data import Media
from omni.train.scenes import Scenes, ship

CONFIG = ImageAdapter.Config(
    names=("circle", "ox", "tulip"),
    kinds=("shape", "animal", "flower"),
    colours=("red", "teal", "white"),
    channels=8,
    fine=12,
    cells=49,
    width=12,
    layers=1,
    heads=2,
)


def scene(ground="white", **things) -> Scene:
    """Sure logits; a thing is (name, kind, colour or None) in a field such as ``f00``."""
    sure = 40.0
    names = torch.zeros(1, 9, 4)
    names[..., 0] = sure
    kinds, colours = torch.zeros(1, 9, 3), torch.zeros(1, 9, 4)
    for place, (name, kind, colour) in things.items():
        f = FIELDS.index((int(place[1]), int(place[2])))
        names[0, f] = 0
        names[0, f, CONFIG.names.index(name) + 1] = sure
        kinds[0, f, CONFIG.kinds.index(kind)] = sure
        colours[0, f, 0 if colour is None else CONFIG.colours.index(colour) + 1] = sure
    grounds = torch.zeros(1, 3)
    grounds[0, CONFIG.colours.index(ground)] = sure
    return Scene(names, kinds, colours, grounds)


RED, OX = ("circle", "shape", "red"), ("ox", "animal", None)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (scene(), ""),
        (scene("teal", f11=OX), "an ox (an animal) in the middle, on a teal background"),
        (scene(f02=RED), "a red circle at the top right, on a white background"),
        (scene(f00=RED, f12=RED), "two red circles on a white background"),
        (
            scene("red", f21=OX, f10=("circle", "shape", "teal")),
            "two things on a red background: a teal circle on the left, "
            "an ox (an animal) at the bottom",
        ),
    ],
)
def test_a_scene_is_one_sentence(seen, said) -> None:
    [sentence] = CONFIG.build().sentences(seen)
    assert text(sentence) == said


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    write_model(directory, "qwen2-untied")
    return directory


@pytest.fixture(scope="module")
def llm(directory):
    return load(directory, device="cpu", quantization="fp32")


def test_rows_of_a_sure_sentence_are_those_of_its_words(llm) -> None:
    [sentence] = CONFIG.build().sentences(scene("red", f21=OX, f10=RED))
    words = text(sentence)
    assert torch.allclose(rows(sentence, llm.embed), llm.embed(f" {words}"), atol=1e-5)


def test_a_doubtful_word_is_the_mean_of_what_it_may_be(llm) -> None:
    word = Choice.of(["ab", "cde", "x"], torch.tensor([3.0, 1.0, 0.01]))
    assert word.words == ("ab", "cde")
    found = rows([word], llm.embed)
    assert len(found) == 2
    assert torch.allclose(found, 0.75 * llm.embed("ab") + 0.25 * llm.embed("cd"), atol=1e-6)
    # A word that has no second token leaves that to the others.
    short = rows([Choice.of(["ab", "x"], torch.tensor([3.0, 1.0]))], llm.embed)
    assert torch.allclose(short[0], 0.75 * llm.embed("a")[0] + 0.25 * llm.embed("x")[0])
    assert torch.allclose(short[1], llm.embed("b")[0])


def test_a_mirrored_map_is_that_of_the_mirrored_picture() -> None:
    adapter, random = CONFIG.build(), np.random.default_rng(0)
    channels = random.standard_normal((7, 7, 8)).astype(np.float32)
    pixels = random.standard_normal((14, 14, 3)).astype(np.float32)

    def features(channels, pixels):
        parts = pixels.reshape(7, 2, 7, 2, 3).transpose(0, 2, 1, 3, 4).reshape(49, 12)
        return torch.from_numpy(np.concatenate([channels.reshape(49, 8), parts], 1))

    plain = features(channels, pixels)
    turned = features(channels[:, ::-1], pixels[:, ::-1])
    both = adapter.mirrored(torch.stack([plain, plain]), torch.tensor([True, False]))
    assert torch.equal(both, torch.stack([turned, plain]))


def example(seed: int) -> tuple[Media, int, int]:
    """A picture with one thing whose field is bright in the channel of its name."""
    random = np.random.default_rng(seed)
    field, name = int(random.integers(9)), int(random.integers(3))
    cells = np.zeros((7, 7, 20), np.float32)
    row, column = FIELDS[field]
    cells[3 * row, 3 * column, name] = 3.0
    kind = CONFIG.kinds[name]
    things = [[CONFIG.names[name], kind, "red" if name == 0 else None, [row, column]]]
    facts = {"things": things, "ground": "teal"}
    return Media("image", torch.from_numpy(cells.reshape(49, 20)), facts=facts), field, name


def test_it_learns_what_is_where(llm, tmp_path) -> None:
    torch.manual_seed(0)
    bridge = Scenes.Config(adapter=replace(CONFIG, width=32, dropout=0.0), blind=0.0).build(48)
    optimiser = torch.optim.AdamW(bridge.parameters(), lr=4e-3)
    for step in range(200):
        media = [example(32 * step + i)[0] for i in range(32)]
        _, losses = bridge(media, None)
        sum(term.mean * term.weight for term in losses.values()).backward()
        optimiser.step()
        optimiser.zero_grad()
    bridge.eval()
    fresh = [example(10_000 + i) for i in range(50)]
    with torch.inference_mode():
        seen = bridge.adapter(torch.stack([medium.features for medium, _, _ in fresh]))
    best = seen.names_BFC.argmax(-1)
    right = [int(best[i, field]) == name + 1 for i, (_, field, name) in enumerate(fresh)]
    assert np.mean(right) > 0.9

    # What a stage leaves becomes a file that sees the same.
    state = {f"bridges.image.{n}": p for n, p in bridge.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    ship(tmp_path / "weights.safetensors", tmp_path / "a", bridge.config.adapter, {"llm": "tiny"})
    again, card = load_image_adapter(tmp_path / "a")
    assert card == {"llm": "tiny"}
    assert again.config == bridge.config.adapter
    with torch.inference_mode():
        same = again(torch.stack([medium.features for medium, _, _ in fresh]))
    assert torch.equal(same.names_BFC.argmax(-1), best)
    with pytest.raises(WeightsError, match="no such image adapter"):
        ship(tmp_path / "weights.safetensors", tmp_path / "b", CONFIG, {})


def test_the_language_loss_reaches_the_adapter_through_the_words(llm, directory) -> None:
    torch.manual_seed(0)
    bridge = Scenes.Config(adapter=CONFIG, llm=str(directory)).build(48).eval()
    with torch.no_grad():
        bridge.adapter.name.bias[0] = -9.0  # something in every field
    table = torch.randn(300, 48)
    [found], _ = bridge([example(1)[0]], table)
    assert found.shape[1] == 48
    before = len(llm.tokenizer.encode("[Your camera shows"))
    ids = llm.tokenizer.encode("[Your camera shows")
    assert torch.equal(found[:before], table[ids])
    found.square().sum().backward()
    assert bridge.adapter.name.weight.grad.abs().sum() > 0


def test_another_file_is_refused(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="no such adapter"):
        load_image_adapter(path)
    save_image_adapter(path, CONFIG.build(), {"licence": "Apache-2.0"})
    assert load_image_adapter(path)[1] == {"licence": "Apache-2.0"}
