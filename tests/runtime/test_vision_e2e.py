"""Vision on the default weights: what is drawn is described, asked about and matched."""

import pytest
from PIL import Image, ImageDraw

from encoders.media import load_image
from omni.types import Message
from runtime.assembly import Assembly
from runtime.vision import Vision
from support import DATA

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def parts():
    return Assembly().build()


@pytest.fixture(scope="module")
def vision(parts):
    return Vision(parts)


@pytest.fixture(scope="module")
def shapes(vision, tmp_path_factory):
    image = Image.new("RGB", (224, 224), (250, 250, 250))
    pen = ImageDraw.Draw(image)
    pen.ellipse((10, 10, 70, 70), (214, 32, 32))
    pen.rectangle((154, 154, 214, 214), (36, 150, 54))
    path = tmp_path_factory.mktemp("pictures") / "shapes.png"
    image.save(path)
    return vision.see(load_image(path))


@pytest.fixture(scope="module")
def cat(vision):
    return vision.see(load_image(DATA / "photos" / "cat.jpg"))


def test_a_caption_says_what_is_where_and_in_which_colour(vision, shapes, cat):
    said = vision.caption(shapes).text.lower()
    assert "red circle at the top left" in said
    assert "green" in said
    assert "cat" in vision.caption(cat).text.lower()


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is there a red shape?", "yes"),
        ("Is there a blue shape?", "no"),
        ("Is there a triangle in the image?", "no"),
        ("Does the image contain a circle?", "yes"),
        ("How many things are in the picture?", "two"),
        ("What color is the circle?", "red"),
        ("Where is the circle?", "top left"),
    ],
)
def test_questions_are_answered_with_a_probability(vision, shapes, question, answer):
    said = vision.answer(shapes, question)
    assert answer in said.text.lower()
    assert 0.5 < said.probability <= 1


def test_true_sentences_are_likelier_than_others(vision, shapes, cat):
    sentences = [
        "A red circle at the top left and a green rectangle at the bottom right.",
        "A blue star in the middle.",
        "A photo of a cat.",
    ]
    about_shapes, about_cat = vision.match(shapes, sentences), vision.match(cat, sentences)
    assert max(about_shapes) == about_shapes[0] > 0.5
    assert about_shapes[1] < 0.5
    assert max(about_cat) == about_cat[2] > 0.5


def test_other_talk_after_a_picture_is_as_without_one(parts, shapes):
    from omni.evaluate.bridges import Bridge
    from omni.prompts import INSTRUCTIONS

    bridge = Bridge("default", parts, frozenset())
    system = Message("system", (INSTRUCTIONS,))
    shown = [
        Message("user", (shapes.span, "Is there a red shape?")),
        Message("assistant", ("Yes.",)),
    ]
    asked = Message("user", ("What is the capital of France?",))
    without, after = bridge.answer([lambda: [system, asked], lambda: [system, *shown, asked]], 40)
    assert without == "The capital of France is Paris."
    assert "Paris" in after
    story = Message("user", ("Explain what photosynthesis is.",))
    [said] = bridge.answer([lambda: [system, *shown, story]], 60)
    assert len(said.split()) >= 8
