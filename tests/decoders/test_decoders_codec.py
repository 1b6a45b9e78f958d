from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EncodecConfig, EncodecModel, MimiConfig, MimiModel

from decoders.codec import Codec, CodecDecoder, CodecTokens, CodecVoice
from omni.errors import InputError, WeightsError
from omni.types import AudioChunk, Clause, Step

FRAMES = 23


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Such small models only wait for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def randomise(model: torch.nn.Module) -> None:
    """Codebooks are zeros until weights are loaded."""
    for name, buffer in model.named_buffers():
        if name.endswith(("embed", "embed_sum")):
            torch.nn.init.normal_(buffer)


def encodec(**changes: object) -> EncodecModel:
    torch.manual_seed(0)
    model = EncodecModel(
        EncodecConfig(
            num_filters=4,
            hidden_size=8,
            codebook_dim=8,
            codebook_size=16,
            upsampling_ratios=[4, 3, 2],
            num_lstm_layers=1,
            target_bandwidths=[16.0],
            **changes,
        )
    )
    randomise(model)
    return model


def mimi() -> MimiModel:
    torch.manual_seed(0)
    model = MimiModel(
        MimiConfig(
            num_filters=4,
            hidden_size=16,
            codebook_dim=8,
            vector_quantization_hidden_dimension=8,
            codebook_size=16,
            num_quantizers=4,
            upsampling_ratios=[4, 3, 2],
            frame_rate=500,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=32,
            upsample_groups=16,
            sliding_window=10,
        )
    )
    randomise(model)
    return model


MAKE = {"encodec": encodec, "mimi": mimi}


@pytest.fixture(params=list(MAKE))
def codec(request: pytest.FixtureRequest) -> Codec:
    return Codec(MAKE[request.param](), codebooks=3)


def codes(codec: Codec, frames: int = FRAMES) -> np.ndarray:
    return np.random.default_rng(1).integers(0, codec.codebook_size, (codec.codebooks, frames))


@pytest.mark.parametrize("pieces", [[FRAMES], [1] * FRAMES, [2, 9, 1, 11], [5, 18]])
def test_streamed_sound_equals_sound_decoded_at_once(codec: Codec, pieces: list[int]) -> None:
    whole = codec.decode(codes(codec))
    stream, at, made = codec.stream(), 0, []
    for size in pieces:
        made.append(stream.feed(codes(codec)[:, at : at + size]))
        at += size
    made.append(stream.flush())
    assert len(whole) > FRAMES
    np.testing.assert_allclose(np.concatenate(made), whole, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_very_short_sound_streams_too(codec: Codec, frames: int) -> None:
    whole = codec.decode(codes(codec, frames))
    stream = codec.stream()
    made = np.concatenate([stream.feed(codes(codec, frames)), stream.flush()])
    np.testing.assert_allclose(made, whole, atol=1e-5 * np.abs(whole).max())


def test_sound_comes_before_the_codes_end(codec: Codec) -> None:
    stream = codec.stream()
    assert len(stream.feed(codes(codec)[:, :12])) > 0


def test_streams_do_not_share_state(codec: Codec) -> None:
    one, two = codec.stream(), codec.stream()
    two.feed(codes(codec)[:, ::-1].copy())
    made = np.concatenate([one.feed(codes(codec)), one.flush()])
    whole = codec.decode(codes(codec))
    np.testing.assert_allclose(made, whole, atol=1e-5 * np.abs(whole).max())


def test_sound_becomes_codes_of_the_wanted_codebooks(codec: Codec) -> None:
    pcm = np.random.default_rng(0).normal(0, 0.1, 2400).astype(np.float32)
    found = codec.encode(AudioChunk(pcm, codec.sample_rate))
    assert found.shape[0] == 3
    assert found.shape[1] == pytest.approx(2400 / codec.sample_rate * codec.frame_rate, abs=1)
    assert found.min() >= 0
    assert found.max() < 16
    half = codec.encode(AudioChunk(pcm[::2].copy(), codec.sample_rate // 2))
    assert abs(half.shape[1] - found.shape[1]) <= 1


@pytest.mark.parametrize("delay", [False, True])
def test_tokens_hold_codes_without_loss(delay: bool) -> None:
    tokens = CodecTokens(offset=1000, codebooks=3, size=16, delay=delay)
    given = np.random.default_rng(2).integers(0, 16, (3, 7))
    written = tokens.write(given)
    assert len(written) == 3 * (7 + 2 * delay)
    assert min(written) >= 1000
    assert max(written) < 1000 + tokens.count
    np.testing.assert_array_equal(tokens.read(written), given)


def test_delayed_codebooks_follow_the_coarser_ones() -> None:
    tokens = CodecTokens(offset=0, codebooks=2, size=10, delay=True)
    gap = tokens.gap
    assert tokens.write(np.array([[1, 2], [3, 4]])) == [1, gap, 2, 13, gap, 14]


@pytest.mark.parametrize("delay", [False, True])
def test_an_answer_in_tokens_is_spoken_as_it_comes(codec: Codec, delay: bool) -> None:
    tokens = CodecTokens(500, codec.codebooks, codec.codebook_size, delay)
    steps = [Step(t) for t in tokens.write(codes(codec))]
    decoder = CodecDecoder(codec, tokens)
    early = [chunk for step in steps[:-6] for chunk in decoder.feed(step)]
    late = [chunk for step in steps[-6:] for chunk in decoder.feed(step)]
    made = [*early, *late, *decoder.flush()]
    assert early
    whole = codec.decode(codes(codec))
    joined = np.concatenate([c.pcm for c in made])
    np.testing.assert_allclose(joined, whole, atol=1e-5 * np.abs(whole).max())
    assert [c.start for c in made] == list(np.cumsum([0, *(len(c.pcm) for c in made[:-1])]))


def test_a_token_of_another_codebook_is_an_error() -> None:
    reader = CodecTokens(100, 2, 16).reader()
    reader.feed(100)
    with pytest.raises(InputError, match="token 101 at 1 is none of codebook 1"):
        reader.feed(101)


def test_a_voice_that_an_llm_writes_speaks_clauses(codec: Codec) -> None:
    tokens = CodecTokens(500, codec.codebooks, codec.codebook_size)

    def say(clause: Clause, voice: str | None) -> Iterator[Step]:
        return (Step(t) for t in tokens.write(codes(codec)))

    voice = CodecVoice(codec, tokens, say)
    assert voice.speaks("en")
    assert not voice.speaks("en", "other")
    sound = np.concatenate([c.pcm for c in voice.speak(Clause("Hello."))])
    whole = codec.decode(codes(codec))
    np.testing.assert_allclose(sound, whole, atol=1e-5 * np.abs(whole).max())
    with pytest.raises(InputError, match="speed"):
        voice.speak(Clause("Hello."), speed=2.0)


def test_a_codec_is_loaded_from_a_directory(tmp_path: Path) -> None:
    model = mimi()
    model.save_pretrained(tmp_path)
    loaded = Codec.load(tmp_path)
    np.testing.assert_allclose(loaded.decode(codes(loaded)), Codec(model).decode(codes(loaded)))


def test_a_directory_without_a_codec_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no codec"):
        Codec.load(tmp_path)


def test_what_cannot_be_streamed_is_refused() -> None:
    with pytest.raises(InputError, match="not causal"):
        Codec(encodec(use_causal_conv=False))
    with pytest.raises(InputError, match="1 to 4 codebooks"):
        Codec(mimi(), codebooks=5)


def test_codes_out_of_range_are_refused(codec: Codec) -> None:
    with pytest.raises(InputError, match="from 0 to 15"):
        codec.stream().feed(np.full((3, 2), 16))
