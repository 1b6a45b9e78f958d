"""Samples of `omni data` become examples; features are made once."""

import io

import av
import numpy as np
import pytest
from llm_tiny import write_model

from omni.data.sample import Medium, Message, Sample
from omni.data.shards import write_shards
from omni.errors import InputError, MediaError
from omni.llm.tokenizer import ChatTokenizer
from omni.sequence import Text
from omni.train.bridges import Projector
from omni.train.data import Clip, Media, Pair
from omni.train.features import FeatureCache
from omni.train.model import OmniModel
from omni.train.recipe import Recipe, Stage
from omni.train.run import train
from omni.train.shards import Shards

MADE: list[bytes] = []
END = 257
"""The tiny tokenizer's <|im_end|>."""


def clip(seconds: float) -> bytes:
    """Noise with a tone."""
    out, random = io.BytesIO(), np.random.default_rng(0)
    with av.open(out, "w", format="mp4") as container:
        picture = container.add_stream("mpeg4", rate=5, width=64, height=48, pix_fmt="yuv420p")
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for _ in range(int(5 * seconds)):
            pixels = random.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels)))
        tone = np.sin(np.arange(int(16_000 * seconds)) * 0.2, dtype=np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(sound.encode(frame))
        for stream in (picture, sound):
            container.mux(stream.encode(None))
    return out.getvalue()


class Bytes:
    """Features are the bytes themselves."""

    version = "1"

    def features(self, medium):
        if medium.data == b"torn":
            raise MediaError("this picture is torn")
        MADE.append(medium.data)
        return np.repeat(np.frombuffer(medium.data, np.uint8)[:, None] / 64, 4, 1)


ENCODERS = {"image": f"{__name__}:Bytes", "audio": f"{__name__}:Bytes"}


def seen(number, data=None, **options):
    data = data if data is not None else bytes([number + 1]) * 3
    messages = (Message("user", ("what is", 0, "it")), Message("assistant", (f"a {number}",)))
    media, meta = (Medium("image", data, "webp"),), {"transcript": "abc"}
    return Sample(f"s{number}", "image", messages, media, meta, **options)


def said(number):
    messages = (Message("user", (f"say {number}",)), Message("assistant", (f"it is {number}",)))
    return Sample(f"t{number}", "text", messages, (), {})


@pytest.fixture
def places(tmp_path):
    MADE.clear()
    model = tmp_path / "model"
    model.mkdir()
    write_model(model, "qwen2-tied")
    write_shards(map(seen, range(20)), tmp_path / "image", size=7)
    write_shards(map(seen, range(20, 26)), tmp_path / "image-held", size=7)
    write_shards(map(said, range(12)), tmp_path / "text", size=7)
    write_shards(map(said, range(12, 15)), tmp_path / "text-held", size=7)
    return tmp_path


def source(places, name="image", **options):
    config = Shards.Config(
        directory=str(places / name),
        held_out=str(places / f"{name}-held"),
        encoders=ENCODERS,
        cache=str(places / "cache"),
        **options,
    )
    return config.build(OmniModel.Config(llm=str(places / "model"), bridges={}), 0)


def test_a_sample_is_its_chat_with_the_medium_in_place_and_the_answer_learned(places):
    example = source(places).item(seen(5))
    tokenizer = ChatTokenizer(places / "model")
    words = [p for p in example.pieces if isinstance(p, Text)]
    medium = next(p for p in example.pieces if isinstance(p, Media))
    text = tokenizer.decode([i for p in words for i in p.ids])
    assert text.index("what is") < text.index("it\n") < text.index("a 5")
    learned = [p.ids for p in words if p.learn]
    assert learned == [(*tokenizer.encode("a 5"), END)]
    assert tokenizer.decode(medium.words) == "abc"
    assert medium.features.shape == (3, 4)
    before = example.pieces[example.pieces.index(medium) - 1]
    assert tokenizer.decode(before.ids).rstrip().endswith("what is")


def test_a_rejected_answer_makes_a_pair_of_which_only_the_last_answer_counts(places):
    earlier = (Message("user", ("hi",)), Message("assistant", ("hello",)))
    one = seen(3, rejected="bad")
    pair = source(places).item(
        Sample("p", "image", earlier + one.messages, one.media, {}, rejected="bad")
    )
    assert isinstance(pair, Pair)
    tokenizer = ChatTokenizer(places / "model")
    answers = (pair.chosen, pair.rejected)
    learned = [[p.ids for p in e.pieces if isinstance(p, Text) and p.learn] for e in answers]
    assert learned == [[(*tokenizer.encode(text), END)] for text in ("a 3", "bad")]


def test_features_are_made_once_and_a_damaged_file_anew(places):
    medium = Medium("image", b"abc", "webp")
    first = FeatureCache(places / "c", ENCODERS["image"]).get(medium)
    again = FeatureCache(places / "c", ENCODERS["image"])
    assert again.get(medium).equal(first)
    assert MADE == [b"abc"]
    again.path(medium).write_bytes(b"torn")
    assert again.get(medium).equal(first)
    assert MADE == [b"abc", b"abc"]
    assert [p for p in places.glob("c/**/*") if p.is_file()] == [again.path(medium)]


def test_an_encoder_that_is_not_there_is_named(places):
    with pytest.raises(InputError, match=r"no encoder 'omni\.nowhere:Eye'"):
        FeatureCache(places, "omni.nowhere:Eye")


def test_reading_goes_on_after_any_position_and_into_the_next_epoch(places):
    whole = source(places)
    stream = whole.read(None)
    items = [next(stream) for _ in range(45)]
    for at in (0, 11, 19, 20, 33):
        again = source(places).read(items[at][1])
        for want, position in items[at + 1 : at + 4]:
            item, here = next(again)
            assert here == position
            assert [getattr(p, "ids", None) for p in item.pieces] == [
                getattr(p, "ids", None) for p in want.pieces
            ]
    first, second = ([i.pieces[-2].ids for i, _ in items[a : a + 20]] for a in (0, 20))
    assert first != second
    assert sorted(first) == sorted(second)


def test_a_sample_that_cannot_be_read_comes_as_its_error(places):
    write_shards([seen(1), seen(2, b"torn"), seen(3)], places / "bad", size=7)
    write_shards([seen(4)], places / "bad-held", size=7)
    stream = source(places, "bad").read(None)
    found = [next(stream)[0] for _ in range(3)]
    assert [str(f) for f in found if isinstance(f, MediaError)] == ["this picture is torn"]


def test_a_video_is_its_frames_and_sound_on_one_clock(places):
    messages = (Message("user", (0, "what moves")), Message("assistant", ("a cat",)))
    sample = Sample("v", "video", messages, (Medium("video", clip(3.0), "mp4"),), {})
    pieces = source(places).item(sample).pieces
    found = next(p for p in pieces if isinstance(p, Clip))
    assert [m.times[0] for m in found.frames] == pytest.approx([0.0, 1.0, 2.0], abs=0.15)
    assert [m.modality for m in found.media] == ["image", "image", "image", "audio"]
    assert found.sound[0].times[1] == pytest.approx(3.0, abs=0.15)


def test_missing_data_is_an_error_before_the_first_step(places):
    with pytest.raises(InputError, match="nowhere"):
        source(places, "nowhere")
    with pytest.raises(InputError, match="two directories"):
        Shards.Config(directory=str(places / "text"), held_out=str(places / "text")).build(
            OmniModel.Config(llm=str(places / "model"), bridges={}), 0
        )


def test_a_model_from_a_directory_learns_from_shards(places):
    data = {
        name: Shards.Config(
            directory=str(places / name),
            held_out=str(places / f"{name}-held"),
            encoders=ENCODERS,
            cache=str(places / "cache"),
        )
        for name in ("image", "text")
    }
    stage = Stage(
        name="only", data=data, steps=6, train=("bridges", "llm"), micro_batches=4, tokens=200
    )
    model = OmniModel.Config(
        llm=str(places / "model"), bridges={"image": Projector.Config(features=4)}, rate=None
    )
    recipe = Recipe(name="shards", model=model, stages=(stage,), threads=1)
    result = train(recipe, places / "out", device="cpu")
    assert result.finished
    assert len(MADE) == 26
