"""Drawing: wishes, pictures to learn from, the codec, the decoder, its training, and painters."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from decoders.pictures import Pictures, PipelinePainter, TokenPainter, enlarged
from omni.draw import training
from omni.draw.codec import CONFIG, PictureCodec
from omni.draw.evaluate import evaluate
from omni.draw.pictures import Drawing, tinted
from omni.draw.subjects import COLOURS, prompt, subjects
from omni.draw.tokens import PictureDecoder, Sampling, agreement, draw, masked
from omni.draw.wishes import described, wish
from omni.draw.words import padded
from omni.errors import InputError, WeightsError

DATA = Path(__file__).parent.parent / "data"
WIDTH = 16


def lines(name: str) -> list[str]:
    text = (DATA / name).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


# Wishes


@pytest.mark.parametrize("line", lines("draw_requests.txt"))
def test_a_request_is_understood(line):
    wanted, sentence = line.split("\t")
    assert wish(sentence).prompt == wanted


@pytest.mark.parametrize("sentence", lines("draw_talk.txt"))
def test_talk_is_no_request(sentence):
    assert wish(sentence) is None


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("make it blue", "a blue star"),
        ("Now make it blue.", "a blue star"),
        ("Can you make it red, please?", "a red star"),
        ("In green, please.", "a green star"),
        ("Change the color to purple", "a purple star"),
        ("How about a pink one?", "a pink star"),
        ("make it two", "two yellow stars"),
        ("Another one!", "a yellow star"),
        ("how about a cat?", "a cat"),
        ("把它变成蓝色", "a blue star"),
        ("改成绿色的吧", "a green star"),
        ("再来一个", "a yellow star"),
        ("现在画一个红色的", "a red star"),
    ],
)
def test_what_was_drawn_can_be_changed(sentence, wanted):
    assert wish(sentence, wish("draw a yellow star")).prompt == wanted


@pytest.mark.parametrize(
    "sentence",
    ["Thank you.", "Why is it blue?", "What is a star?", "make it louder", "谢谢", "它是什么颜色"],
)
def test_other_words_change_nothing(sentence):
    assert wish(sentence, wish("draw a yellow star")) is None


@pytest.mark.parametrize("text", ["", " ", "?", "\n", "draw", "画", "x" * 100_000, "draw " * 5000])
def test_empty_and_absurd_sentences_are_no_wishes(text):
    assert wish(text) is None


def test_a_description_needs_no_verb_and_says_what_was_left_out():
    plain, more = described("two red apples"), described("a red apple on a table with a worm")
    assert (plain.prompt, plain.left_out) == ("two red apples", False)
    assert (more.prompt, more.left_out) == ("a red apple", True)
    assert described("nine cats").prompt == "three cats"
    assert described("a wug").subject is None
    assert described("").prompt == ""


# Pictures


def test_every_name_means_one_subject():
    names = [name for s in subjects() for name in (*s.names, *s.chinese)]
    assert len(names) == len(set(names))


def test_prompts_are_in_order():
    assert prompt("apple") == "an apple"
    assert prompt("star", "blue", 3) == "three blue stars"


def test_a_tinted_picture_has_the_colour_where_it_had_its_own():
    image = Image.new("RGBA", (40, 40))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 39, 39), fill=(200, 30, 30, 255))
    pen.rectangle((0, 0, 9, 9), fill=(30, 160, 40, 255))  # a leaf
    blue = np.asarray(tinted(image, COLOURS_OF["blue"]))
    assert np.abs(blue[30, 30, :3].astype(int) - COLOURS_OF["blue"]).max() < 40
    assert np.abs(blue[4, 4, :3].astype(int) - (30, 160, 40)).max() < 40


COLOURS_OF = {"blue": (36, 78, 210)}


def test_all_colours_have_chinese_names_of_their_own():
    names = [name for names in COLOURS.values() for name in names]
    assert len(names) == len(set(names))


# The codec and the decoder


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    return PictureCodec.new(block_out_channels=(32, 32), num_vq_embeddings=16).eval()


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    made = PictureDecoder.Config(WIDTH, codes=16, width=32, layers=2, heads=2).build()
    torch.nn.init.normal_(made.head.weight, std=0.5)
    for block in made.blocks:
        torch.nn.init.normal_(block.out.weight, std=0.2)
    return made.eval()


def test_a_picture_becomes_a_grid_of_tokens_and_a_picture_again(codec):
    pictures = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    tokens = codec.encode(pictures)
    assert tokens.shape == (2, 8, 8)
    assert 0 <= tokens.min() <= tokens.max() < 16
    back = codec.decode(tokens)
    assert back.shape == pictures.shape
    assert back.dtype == np.uint8


def test_codec_and_decoder_are_saved_and_loaded(codec, decoder, tmp_path):
    codec.save(tmp_path / "codec")
    decoder.save(tmp_path, llm="tiny", known=["apple"])
    tokens = torch.randint(0, 16, (1, 8, 8))
    again = PictureCodec.load(tmp_path / "codec")
    assert np.abs(again.decode(tokens).astype(int) - codec.decode(tokens)).max() <= 2
    same, notes = PictureDecoder.load(tmp_path)
    assert notes == {"llm": "tiny", "known": ["apple"]}
    states, real = padded([torch.randn(3, WIDTH)])
    logits = same(states, real, tokens.flatten(1))
    torch.testing.assert_close(
        logits, decoder(states, real, tokens.flatten(1)), rtol=0.05, atol=0.05
    )


def test_the_padding_of_a_prompt_changes_nothing(decoder):
    short, long = torch.randn(2, WIDTH), torch.randn(7, WIDTH)
    states, real = padded([short, long])
    alone, real_alone = padded([short])
    tokens = torch.randint(-1, 16, (1, 64))
    together = decoder(states, real, tokens.expand(2, -1))[:1]
    torch.testing.assert_close(together, decoder(alone, real_alone, tokens), rtol=1e-4, atol=1e-4)


def test_masks_hide_from_one_token_to_all():
    tokens = torch.zeros(500, 64, dtype=torch.long)
    hidden = (masked(tokens, torch.Generator().manual_seed(0)) < 0).sum(1)
    assert hidden.min() >= 1
    assert hidden.max() == 64
    assert 0.55 < hidden.float().mean() / 64 < 0.72  # 2 / pi


def test_drawing_decides_more_with_each_step_and_keeps_what_is_decided(decoder):
    states, real = padded([torch.randn(3, WIDTH)] * 2)
    generator = torch.Generator().manual_seed(1)
    how = Sampling(steps=6)
    steps = list(draw(decoder, states, real, generator, how))
    assert len(steps) == 6
    assert all(s.shape == (2, 64) and s.min() >= 0 for s in steps)
    again = list(draw(decoder, states, real, torch.Generator().manual_seed(1), how))
    assert torch.equal(steps[-1], again[-1])
    other = list(draw(decoder, states, real, torch.Generator().manual_seed(2), how))
    assert not torch.equal(steps[-1], other[-1])


def test_a_picture_that_fits_the_words_agrees_with_them_more():
    torch.manual_seed(0)
    config = PictureDecoder.Config(WIDTH, codes=4, tokens=16, width=32, layers=2, heads=2)
    decoder = config.build()
    words = {0: torch.randn(2, WIDTH), 1: torch.randn(2, WIDTH)}
    states, real = padded([words[0], words[1]] * 8)
    tokens = torch.tensor([[1] * 16, [2] * 16] * 8)
    optimiser = torch.optim.Adam(decoder.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        kept = torch.rand(16, 1, generator=generator) > 0.2
        given = masked(tokens, generator)
        logits = decoder(states, real & kept, given)
        loss = torch.nn.functional.cross_entropy(logits[given < 0], tokens[given < 0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    decoder.eval()
    asked, real = padded([words[0]] * 2)
    score = agreement(decoder, asked, real, torch.tensor([[1] * 16, [2] * 16]))
    assert score[0] > score[1]
    *_, drawn = draw(decoder, *padded(list(words.values())), generator, Sampling(temperature=0))
    assert drawn.tolist() == [[1] * 16, [2] * 16]


# Painters


@pytest.fixture
def painter(codec, decoder):
    torch.manual_seed(0)
    states = torch.randn(3, WIDTH)
    config = TokenPainter.Config(Sampling(steps=4), candidates=2, side=96)
    return TokenPainter(codec, decoder, frozenset({"apple"}), lambda words: states, config)


def test_a_painter_shows_what_it_does_and_paints_the_same_by_the_same_seed(painter):
    seen = []
    picture = painter.paint(described("a red apple"), seed=3, report=seen.append)
    assert picture.shape == (96, 96, 3)
    assert [p.step for p in seen] == [1, 2, 3, 4]
    assert all(p.pixels.shape == (96, 96, 3) for p in seen)
    assert np.array_equal(seen[-1].pixels, picture)
    assert np.array_equal(painter.paint(described("a red apple"), seed=3), picture)
    assert painter.paint(described(""), seed=3).shape == (96, 96, 3)


def test_a_painter_says_what_it_has_learnt(painter):
    assert painter.knows(described("two blue apples"))
    assert not painter.knows(described("a cat"))
    assert not painter.knows(described("a wug"))
    assert painter.knows(described("draw something"))


def test_enlarged_pictures_stay_what_they_are():
    small = np.zeros((8, 8, 3), np.uint8)
    small[:, 4:] = 200
    large = enlarged(small, 64)
    assert large.shape == (64, 64, 3)
    assert large[:, :20].max() < 20
    assert large[:, 44:].min() > 180


def test_weights_for_another_llm_are_refused(codec, decoder, tmp_path):
    codec.save(tmp_path / "codec")
    decoder.save(tmp_path, llm="tiny", known=[])
    with pytest.raises(WeightsError, match="tiny, not those of other"):
        Pictures(str(tmp_path), "other").load(lambda words: torch.zeros(1, WIDTH))
    assert (
        Pictures(str(tmp_path), "tiny")
        .load(lambda words: torch.zeros(1, WIDTH))
        .knows(described(""))
    )


def test_where_nothing_is_installed_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_HOME", str(tmp_path))
    monkeypatch.setattr("decoders.pictures.SHIPPED", tmp_path / "none")
    assert "omni draw train" in Pictures().problem
    with pytest.raises(InputError, match="no picture decoder"):
        Pictures().load(lambda words: torch.zeros(1, WIDTH))
    with pytest.raises(WeightsError, match="no text-to-image pipeline"):
        Pictures(str(tmp_path)).load(lambda words: torch.zeros(1, WIDTH))


def test_any_pipeline_of_diffusers_paints_with_progress_by_step(tmp_path):
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(tmp_path)
    painter = PipelinePainter.load(tmp_path, "cpu", steps=3)
    seen = []
    picture = painter.paint(described("a wug"), seed=1, report=seen.append)
    assert picture.shape == (32, 32, 3)
    assert [p.step for p in seen][-1] == seen[-1].steps
    assert [p.pixels is None for p in seen] == [True] * (len(seen) - 1) + [False]
    assert np.array_equal(painter.paint(described("a wug"), seed=1), picture)
    assert not np.array_equal(painter.paint(described("a wug"), seed=2), picture)


def tiny_pipeline():
    """A Stable Diffusion of random weights; its tokenizer knows letters."""

    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, sample_size=16, in_channels=4,
        out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=32,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(32, 32), in_channels=3, out_channels=3, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{x}</w>" for x in letters)]
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=37, num_attention_heads=4,
        num_hidden_layers=2, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer({w: i for i, w in enumerate(words)}, [], model_max_length=77),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


# Training


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Two shapes to learn, of red and blue, and networks that learn nothing much in no time."""
    monkeypatch.setattr(training, "drawings", lambda most=None: iter(shapes()))
    monkeypatch.setattr(training, "WARM_UP", 1)
    small = {"block_out_channels": (32, 32), "num_vq_embeddings": 16}
    monkeypatch.setattr("omni.draw.codec.CONFIG", CONFIG | small)
    monkeypatch.setattr(training, "prompt_states", told)
    return tmp_path


def shapes():
    both = [s for s in subjects() if s.name in ("circle", "square")]
    return [Drawing(s, colour) for s in both for colour in ("red", "blue")]


def told(path, llm, chosen):
    names = sorted({d.prompts[0] for d in chosen})
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(len(names), 2, WIDTH, generator=generator)
    return names, states, torch.ones(len(names), 2, dtype=torch.bool)


def test_training_goes_on_where_it_stopped_and_the_tokens_stay(few):
    said = []
    training.train_codec(few, 0.01, said.append, batch=2)
    codec = PictureCodec.load(few / "codec")
    pictures = np.stack([d.render() for d in shapes()])
    tokens = codec.encode(pictures)
    training.train_tokens(few, "tiny", 0.01, said.append, batch=4)
    first = torch.load(few / "decoder.pt", weights_only=True)["step"]
    training.train_codec(few, 0.01, said.append, batch=2)
    again = PictureCodec.load(few / "codec")
    assert torch.equal(again.encode(pictures), tokens)
    assert not np.array_equal(again.decode(tokens), codec.decode(tokens))
    training.train_tokens(few, "tiny", 0.01, said.append, batch=4)
    assert torch.load(few / "decoder.pt", weights_only=True)["step"] > first > 0
    painter = Pictures(str(few), "tiny").load(lambda words: torch.randn(2, WIDTH))
    assert painter.paint(described("a red circle"), seed=0).shape == (256, 256, 3)
    figures = evaluate(lambda wanted, seed: drawn_as(wanted), frozenset({"circle", "square"}))
    assert (figures["shapes"].subject, figures["shapes"].both) == (1, 1)


def drawn_as(wanted):
    return enlarged(Drawing(wanted.subject, wanted.colour).render(), 256)
