"""What stands on a plain ground is read by the adapter, everything else by its label."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from encoders.image import EfficientNetEncoder
from encoders.media import load_image
from encoders.scene import SceneEncoder, ground_share
from omni.adapters.image import AFTER, BEFORE, ImageAdapter, save_image_adapter
from omni.errors import WeightsError
from omni.types import ImageFrame, Span
from omni.weights import ensure
from runtime.items import picture_note

PHOTOS = Path(__file__).parents[1] / "data" / "photos"


class Network:
    """Sees nothing but zeros, and is as sure of its label as is said."""

    label = 0.0

    def probabilities(self, frames):
        return np.array([[self.label, 1 - self.label]]).repeat(len(frames), 0)[:, :1]

    def features(self, pixels):
        return np.zeros((49, 20), np.float32)

    def encode(self, frames):
        return [Span("image", "a label") for _ in frames]


def letters(text: str) -> torch.Tensor:
    return torch.tensor([[float(ord(c))] for c in text])


def encoder(path, *, full: bool = True, doubt: float = -50.0, label: float = 0.0) -> SceneEncoder:
    """Sees a red ox in every field or nothing; ``doubt`` is the logit of an elk."""
    config = ImageAdapter.Config(("ox", "elk"), ("animal",), ("red",), 8, 12, 49, 12, 1, 2)
    adapter = config.build()
    with torch.no_grad():
        for head, more in ((adapter.name, [50.0 + doubt]), (adapter.colour, [])):
            head.weight.zero_()
            head.bias.copy_(torch.tensor([-50.0, 50.0, *more] if full else [50.0, -50.0, *more]))
    if not full:
        adapter.name.bias.data[2] = -50.0
    save_image_adapter(path, adapter, {})
    network = Network()
    network.label = label
    return SceneEncoder(network, letters, path)


def picture(size=(64, 64)) -> ImageFrame:
    image = Image.new("RGB", size, "teal")
    ImageDraw.Draw(image).ellipse((20, 20, 40, 40), "yellow")
    return ImageFrame(np.asarray(image), time=2.0)


def test_words_and_embeddings_say_the_same(tmp_path) -> None:
    sight = encoder(tmp_path / "a")
    [span] = sight.encode([picture()])
    assert span.text == "nine red oxes on a red background"
    said = "".join(chr(round(float(c))) for c in span.embeds[:, 0])
    assert said == picture_note(span.text) == f"{BEFORE} {span.text}{AFTER}"
    assert span.times == (2.0, 2.0)
    assert sight.capabilities.bridge == "embeds"


def test_without_a_thing_or_a_plain_ground_the_label_is_read(tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    [span] = encoder(tmp_path / "a").encode([ImageFrame(noise)])
    assert (span.text, span.embeds) == ("a label", None)
    [span] = encoder(tmp_path / "b", full=False).encode([picture()])
    assert (span.text, span.embeds) == ("a label", None)


def test_an_unsure_name_gives_way_to_a_sure_label(tmp_path) -> None:
    for doubt, label, read in ((-2.0, 0.9, "nine"), (-0.2, 0.9, "a label"), (-0.2, 0.1, "nine")):
        [span] = encoder(tmp_path / "a", doubt=doubt, label=label).encode([picture()])
        assert span.text.startswith(read)


def test_a_ground_is_plain_in_drawings_and_not_in_photographs() -> None:
    assert ground_share(picture((300, 200)).pixels) > 0.9
    assert ground_share(load_image(PHOTOS / "coffee.jpg").pixels) < 0.5


def test_a_broken_adapter_is_refused(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(WeightsError, match="no such adapter"):
        SceneEncoder(Network(), letters, tmp_path / "a")


@pytest.mark.e2e
def test_the_shipped_adapter_sees_shapes_colours_and_places() -> None:
    sight = SceneEncoder(EfficientNetEncoder(ensure("efficientnet-lite2")), letters)
    image = Image.new("RGB", (224, 224), (250, 250, 250))
    pen = ImageDraw.Draw(image)
    pen.ellipse((10, 10, 70, 70), (214, 32, 32))
    pen.rectangle((154, 154, 214, 214), (36, 150, 54))
    [span] = sight.encode([ImageFrame(np.asarray(image))])
    assert span.text == (
        "two things on a white background: a red circle at the top left, "
        "a green rectangle at the bottom right"
    )
