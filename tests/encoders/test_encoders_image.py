from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from encoders.colour import colour_name, plain_colour, tones
from encoders.image import (
    CHANNELS,
    FEATURES,
    FINE,
    GRID,
    EfficientNetEncoder,
    efficientnet_onnx,
    load_state,
    view,
)
from encoders.media import load_image
from encoders.vad import onnx_session
from omni.errors import WeightsError
from omni.types import ImageFrame

PHOTOS = Path(__file__).parents[1] / "data" / "photos"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Seeded weights in the shape of the real ones, with batch norms that do something."""
    torch.manual_seed(0)
    model = EfficientNet.from_name("efficientnet-lite2")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    path = tmp_path_factory.mktemp("efficientnet") / "seeded.pth"
    torch.save(model.state_dict(), path)
    return path


def parity(path: Path, size: int) -> float:
    """Largest difference of the logits to the original implementation's, in their own scale."""
    model = EfficientNet.from_name("efficientnet-lite2", image_size=size)
    model.load_state_dict(torch.load(path, weights_only=True))
    model.eval()
    pixels = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(pixels)).numpy()
    session = onnx_session(efficientnet_onnx(load_state(path)), 2)
    logits = session.run(["logits"], {"pixels": pixels})[0]
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("size", [224, 260])
def test_the_graph_equals_the_original_implementation(weights, size) -> None:
    assert parity(weights, size) < 1e-4


def test_the_map_is_what_the_logits_are_made_of(weights) -> None:
    state = load_state(weights)
    pixels = np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8)
    cells = EfficientNetEncoder(weights).features(pixels)
    assert cells.shape == (GRID * GRID, FEATURES)
    logits = cells[:, :CHANNELS].mean(axis=0) @ state["_fc.weight"].T + state["_fc.bias"]
    session = onnx_session(efficientnet_onnx(state), 2)
    [expected] = session.run(["logits"], {"pixels": view(pixels, 224, whole=True)[None]})
    assert np.abs(logits - expected[0]).max() < 1e-3 * np.abs(expected).max()


def test_colours_of_a_cell_are_those_of_its_place(weights) -> None:
    pixels = np.full((224, 224, 3), 127, np.uint8)
    pixels[40:48, 88:96] = (255, 127, 0)  # of cell (1, 2) the part in row 1 and column 3
    cells = EfficientNetEncoder(weights).features(pixels)[:, CHANNELS:]
    parts = cells.reshape(GRID, GRID, FINE, FINE, 3)
    assert parts[1, 2, 1, 3] == pytest.approx([1.0, 0.0, -127 / 128])
    assert np.count_nonzero(parts) == 2


def test_a_file_that_holds_something_else_is_refused(tmp_path) -> None:
    (tmp_path / "broken.pth").write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="not the state dict"):
        EfficientNetEncoder(tmp_path / "broken.pth")
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="not EfficientNet-Lite2"):
        EfficientNetEncoder(tmp_path / "other.pth")


@pytest.fixture(scope="module")
def seeded(weights) -> EfficientNetEncoder:
    return EfficientNetEncoder(weights)


def words(encoder: EfficientNetEncoder, monkeypatch, **chances: float) -> str:
    """What is said of a photo in which the labels have these chances."""
    probabilities = np.zeros((1, 1000), np.float32)
    for name, chance in chances.items():
        probabilities[0, encoder._labels.index(name.replace("_", " "))] = chance
    monkeypatch.setattr(encoder, "probabilities", lambda frames: probabilities)
    [span] = encoder.encode([load_image(PHOTOS / "coffee.jpg")])
    assert span.modality == "image"
    return span.text


def test_a_sure_label_is_named_with_its_everyday_word(seeded, monkeypatch) -> None:
    text = words(seeded, monkeypatch, tabby_cat=0.8, tiger_cat=0.15)
    assert text.startswith("a cat, most likely a tabby cat (95% sure); ")


def test_unsure_labels_of_one_kind_add_up(seeded, monkeypatch) -> None:
    text = words(seeded, monkeypatch, Beagle=0.2, pug=0.2, Whippet=0.2)
    assert text.startswith("a dog (60% sure); ")


def test_a_possibility_is_called_one(seeded, monkeypatch) -> None:
    assert "possibly a banana, but this is uncertain (40% sure)" in words(
        seeded, monkeypatch, banana=0.4
    )


def test_what_is_not_recognised_is_not_named(seeded, monkeypatch) -> None:
    text = words(seeded, monkeypatch, banana=0.2, lemon=0.2)
    assert "could not be recognised" in text
    assert "banana" not in text


def test_a_plain_picture_is_described_by_its_colour(seeded) -> None:
    red = ImageFrame(np.full((50, 80, 3), (220, 20, 20), np.uint8))
    [span] = seeded.encode([red])
    assert span.text == "nothing but plain red"


def test_each_frame_gets_one_span_with_its_time(seeded) -> None:
    frames = [ImageFrame(np.zeros((9, 9, 3), np.uint8), time) for time in (0.0, 0.5, 1.0)]
    assert [span.times for span in seeded.encode(frames)] == [(0, 0), (0.5, 0.5), (1, 1)]
    assert seeded.encode([]) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (224, 224), (100, 900)])
def test_any_shape_becomes_the_input_of_the_network(shape) -> None:
    pixels = np.full((*shape, 3), 255, np.uint8)
    for whole in (False, True):
        out = view(pixels, 224, whole)
        assert out.shape == (3, 224, 224)
        assert out.max() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("hsv", "name"),
    [
        ((0, 1, 1), "red"),
        ((120, 1, 0.8), "green"),
        ((230, 0.9, 0.9), "blue"),
        ((55, 1, 1), "yellow"),
        ((25, 0.6, 0.5), "brown"),
        ((0, 0, 1), "white"),
        ((0, 0, 0.5), "grey"),
        ((200, 1, 0.1), "black"),
    ],
)
def test_colours_have_everyday_names(hsv, name) -> None:
    assert colour_name(*hsv) == name


def test_the_main_colours_are_named() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :40] = (30, 60, 220)
    pixels[:, 40:] = (250, 250, 250)
    assert plain_colour(pixels) is None
    assert tones(pixels) == "mostly blue and white"


@pytest.mark.e2e
def test_the_real_weights_name_a_cat_and_a_cup() -> None:
    from omni.weights import ensure

    path = ensure("efficientnet-lite2")
    assert parity(path, 224) < 1e-4
    encoder = EfficientNetEncoder(path)
    cat, cup = encoder.encode([load_image(PHOTOS / "cat.jpg"), load_image(PHOTOS / "coffee.jpg")])
    assert cat.text.startswith("a cat")
    assert cup.text.startswith("a cup")
    assert "cup of coffee" in cup.text
