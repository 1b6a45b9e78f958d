"""One layout of text and media, the same for training, streaming, batches and packed rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from llm_tiny import write_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from omni.errors import InputError
from omni.llm.cache import Feed
from omni.llm.generate import BatchGenerator, Finished
from omni.llm.hf import HFModel
from omni.llm.model import LanguageModel, load
from omni.llm.tokenizer import ChatTokenizer
from omni.sequence import (
    IGNORE,
    MODALITIES,
    PADDING,
    Boundary,
    BoundaryRows,
    Interleaved,
    Text,
    boundary_tokens,
    bridged,
    chat,
    clip,
    collate,
    inputs,
    interleave,
    mask,
    modalities,
    pack,
    split,
    unpack,
)
from omni.types import Message, Sampling, Span

WIDTH = 48
RATE = 25.0
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)) * 0.3


def sound(seconds: float, begin: float = 0.0, seed: int = 1) -> Span:
    count = round(seconds * RATE)
    return Span("audio", embeds=rows(count, seed), times=(begin, begin + seconds))


def frame(second: float, count: int = 4) -> Span:
    return Span("image", embeds=rows(count, int(second * 10)), times=(second, second))


def scene() -> list[Text | Span]:
    """Text, a picture, a clip with sound, and text."""
    film = clip([frame(0.0), frame(0.2), frame(0.4)], [sound(0.6)], seconds=0.4)
    return [Text([5, 99, 17]), frame(0.0, 6), Text([8]), film, Text([41, 77, 120, 6], learn=True)]


class Pair:
    """One tiny model, in our pass and in transformers' modules."""

    def __init__(self, directory: Path) -> None:
        self.reference: Any = write_model(directory, "qwen2-untied")
        self.directory = directory
        self.model: LanguageModel = load(directory, device="cpu", quantization="fp32")
        self.boundaries = boundary_tokens(self.model.tokenizer, 300)

    def lay_out(self, pieces: list[Text | Span], rate: float | None = RATE) -> Interleaved:
        return interleave(pieces, self.boundaries, rate=rate)

    def logits(self, sequence: Interleaved) -> Tensor:
        feed = Feed(
            self.model.new_cache(), sequence.ids, sequence.embeds, positions=sequence.aligned
        )
        return self.model.run([feed], all_logits=True).logits

    def torch_logits(self, samples: list[Interleaved], length: int = 400) -> list[Tensor]:
        """Of every sample as transformers gives it in packed rows, in the order of packing."""
        packed = pack(samples, length)
        batch = collate(packed)
        with torch.inference_mode():
            out = self.reference(**inputs(batch, self.reference.get_input_embeddings()))
        found = []
        for row, logits in zip(packed, out.logits, strict=True):
            found += split(row.segment_T, logits[: len(row.ids_T)])
        return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("tiny"))


# Layout


def test_spans_stand_between_their_boundary_tokens(pair: Pair) -> None:
    sequence = pair.lay_out(scene())
    audio, image, video = (pair.boundaries[m] for m in ("audio", "image", "video"))
    assert (audio.start, audio.end) == (259, 260)
    kinds = [MODALITIES[int(m)] for m in modalities(torch.tensor(sequence.ids))]
    assert sequence.ids[:4] == [5, 99, 17, image.start]
    assert kinds[4:10] == ["image"] * 6
    assert sequence.ids[10:13] == [image.end, 8, video.start]
    assert kinds[13 : 13 + 27] == ["video"] * 27
    assert sequence.ids[40:] == [video.end, 41, 77, 120, 6]
    assert sequence.labels == [IGNORE] * 41 + [41, 77, 120, 6]


def test_names_that_the_tokenizer_knows_keep_their_ids_and_full_matrices_are_refused() -> None:
    tokenizer = SimpleNamespace(
        vocabulary=290, controls={"<|vision_start|>": 7, "<|vision_end|>": 8}
    )
    found = boundary_tokens(tokenizer, 300)
    assert (found["image"], found["audio"].start) == (Boundary(7, 8), 290)
    with pytest.raises(InputError, match="no spare rows"):
        boundary_tokens(tokenizer, 292)


def test_the_same_medium_has_the_same_ids_and_another_has_others() -> None:
    def ids(span: Span, rate: float | None = None) -> list[int]:
        return interleave([span], rate=rate).ids

    assert ids(sound(1.0)) == ids(sound(1.0))
    assert not set(ids(sound(1.0))) & set(ids(sound(1.0, seed=2)))
    # Rows at other positions of a span are not the same to a KV cache.
    assert ids(sound(1.0), RATE)[1:] != ids(sound(1.0), RATE / 2)[1:]
    assert ids(sound(1.0, begin=3.0), RATE) == ids(sound(1.0), RATE)
    other = interleave([Span("image", embeds=sound(1.0).embeds)]).ids
    assert not set(other) & set(ids(sound(1.0)))


def test_frame_and_sound_of_one_moment_share_their_positions() -> None:
    film = clip([frame(0.0), frame(1.0)], [sound(2.0)], seconds=1.0)
    sequence = interleave([Text([1]), film, Text([2])], rate=RATE)
    # A second of 25 positions: four rows of a frame are spread over it, then its sound.
    first = [0, 6, 12, 18, *range(25)]
    assert sequence.positions == [0, *(1 + p for p in first), *(26 + p for p in first), 51]
    assert sequence.end == 52
    assert interleave([film]).positions == list(range(58))


def test_a_clip_is_laid_out_in_chunks_wherever_its_sound_was_cut() -> None:
    frames = [frame(t / 2) for t in range(6)]
    whole = sound(3.0)
    assert whole.embeds is not None
    pieces = [
        Span("audio", embeds=whole.embeds[i : i + 5], times=(i / RATE, (i + 5) / RATE))
        for i in range(0, 75, 5)
    ]
    at_once = clip(frames, [whole])
    assert at_once.embeds is not None
    assert len(at_once.embeds) == 6 * 4 + 75
    # Two seconds are four frames and 50 rows of sound.
    torch.testing.assert_close(at_once.embeds[16:66], whole.embeds[:50], rtol=0, atol=0)
    one, other = (interleave([c], rate=RATE) for c in (at_once, clip(frames, pieces)))
    assert (one.ids, one.positions) == (other.ids, other.positions)


def test_a_clip_that_goes_on_begins_as_it_began() -> None:
    frames = [frame(t / 4) for t in range(32)]
    whole = sound(8.0)
    assert whole.embeds is not None
    film = interleave([clip(frames, [whole])], rate=RATE)
    for seconds in (2, 4, 6):
        heard = Span("audio", embeds=whole.embeds[: seconds * 25], times=(0.0, seconds))
        so_far = interleave([clip(frames[: seconds * 4], [heard])], rate=RATE)
        assert len(so_far) == seconds * (4 * 4 + 25)
        assert so_far.ids == film.ids[: len(so_far)]
        assert so_far.positions == film.positions[: len(so_far)]


def test_boundaries_may_be_trained_rows_that_gradients_reach(pair: Pair) -> None:
    table = pair.reference.get_input_embeddings().weight
    edges = BoundaryRows.begin(["audio"], pair.model.tokenizer, table)
    names = [pair.model.tokenizer.encode(name) for name in ("<audio>", "</audio>")]
    torch.testing.assert_close(edges["audio"], torch.stack([table[n].mean(0) for n in names]))
    media = rows(3, 9).requires_grad_()
    pieces = [Text([4]), Span("audio", embeds=media), frame(0.0, 1)]
    sequence = interleave(pieces, edges.boundaries, hashed=False)
    assert sequence.ids == [4, -1, -1, -1, -1, -1, -2]
    assert sequence.embeds is not None
    torch.testing.assert_close(sequence.embeds[0], edges["audio"][0])
    torch.testing.assert_close(sequence.embeds[4], edges["audio"][1])
    sequence.embeds.sum().backward()
    assert edges["audio"].grad.eq(1).all()
    # The same again from what is saved.
    again = BoundaryRows.begin(["audio"], pair.model.tokenizer, table + 1)
    again.load_state_dict(edges.state_dict())
    assert interleave(pieces, again.boundaries).ids == interleave(pieces, edges.boundaries).ids


def test_what_cannot_be_laid_out_is_refused() -> None:
    with pytest.raises(InputError, match="span of audio has no embeddings"):
        interleave([Span("audio", "words")])
    with pytest.raises(InputError, match="2 times for 3 rows"):
        interleave([Span("audio", embeds=rows(3), at=(0.0, 1.0))])
    with pytest.raises(InputError, match="clip is empty"):
        clip([])
    with pytest.raises(InputError, match="needs embeds and times"):
        clip([Span("image", embeds=rows(2))])
    with pytest.raises(InputError, match="45 tokens, more than the row's 40"):
        pack([interleave([Text([1] * 45)])], 40)


# Conversations


def test_a_conversation_has_its_media_in_place_and_learns_the_assistants_words(pair: Pair) -> None:
    tokenizer: ChatTokenizer = pair.model.tokenizer
    audio = Span("audio", embeds=rows(3), text="hello")
    messages = [
        Message("user", ("Listen:", audio)),
        Message("assistant", ("Yes.",)),
        Message("user", (audio, "and\ufdd10\ufdd1?")),
        Message("assistant", ("No.",)),
    ]
    ready = bridged(messages, ["audio"], WIDTH)
    sequence = chat(tokenizer, ready, pair.boundaries, reply=False, learn=True)
    media = interleave([replace_text(audio)], pair.boundaries).ids
    text = tokenizer.decode([i for i in sequence.ids if i >= 0])
    assert text.count("Listen:") == 1
    assert "and0?" in text
    starts = [i for i in range(len(sequence)) if sequence.ids[i : i + 5] == media]
    assert len(starts) == 2
    learned = [label for label in sequence.labels if label != IGNORE]
    assert tokenizer.decode(learned) == "Yes.No."
    assert learned.count(257) == 2
    # In words it is the conversation as ever.
    words = chat(tokenizer, bridged(messages, [], WIDTH))
    assert words.embeds is None
    assert words.ids == tokenizer.encode_chat(messages)


def replace_text(span: Span) -> Span:
    return Span(span.modality, embeds=span.embeds)


def test_spans_are_read_as_the_assembly_bridges_them() -> None:
    both = Span("image", "a cat", rows(2))
    message = Message("user", (both, Span("audio", embeds=rows(1)), "What?"))
    [seen] = bridged([message], ["image"], WIDTH)
    assert isinstance(seen.parts[0], Span)
    assert seen.parts[0].wordless
    assert seen.parts[1:] == ("What?",)
    [told] = bridged([message], [], WIDTH)
    assert told.parts == (Span("image", "a cat"), "What?")
    # Of another LLM's adapter: the words, or nothing to go by.
    assert bridged([message], ["image"], 64) == [told]
    with pytest.raises(InputError, match="embeddings of width 48; the LLM reads 64"):
        bridged([message], ["audio"], 64)


# The same numbers every way


@pytest.mark.parametrize("rate", [None, RATE])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_and_padded_rows_give_what_each_sequence_gives_alone(
    pair: Pair, rate: float | None, attention: str
) -> None:
    samples = [
        pair.lay_out(scene(), rate),
        pair.lay_out([Text([7, 8, 9])], rate),
        pair.lay_out([Text([1]), sound(0.5), Text([200])], rate),
        pair.lay_out([sound(1.0, seed=5)], rate),
    ]
    packed = pack(samples, 64)
    assert [len(row.ids_T) for row in packed] == [64, 27]
    order = [s for row in packed for s in unpack(row)]
    by_ids = {tuple(s.ids): s for s in samples}
    for sample in order:
        before = by_ids.pop(tuple(sample.ids))
        assert (sample.positions, sample.labels) == (before.positions, before.labels)
        if before.embeds is not None:
            torch.testing.assert_close(sample.embeds, before.embeds, rtol=0, atol=0)
    assert not by_ids
    pair.reference.set_attn_implementation(attention)
    batch = collate(packed)
    assert int((batch.segment_BT == PADDING).sum()) == 37
    with torch.inference_mode():
        out = pair.reference(**inputs(batch, pair.reference.get_input_embeddings()))
    got = [
        piece
        for row, logits in zip(packed, out.logits, strict=True)
        for piece in split(row.segment_T, logits[: len(row.ids_T)])
    ]
    for logits, sample in zip(got, order, strict=True):
        torch.testing.assert_close(logits, pair.logits(sample), **CLOSE)


def test_the_loss_of_packed_samples_is_that_of_each_alone(pair: Pair) -> None:
    samples = [
        interleave([Text([3, 4, 5, 6], learn=True)]),
        interleave([Text([9]), sound(0.2), Text([7, 8], learn=True)]),
    ]

    def loss(batch: Any) -> tuple[float, int]:
        given = inputs(batch, pair.reference.get_input_embeddings())
        count = int((batch.labels_BT[:, 1:] != IGNORE).sum())
        with torch.inference_mode():
            return float(pair.reference(**given).loss) * count, count

    alone = [loss(collate(pack([s], 32))) for s in samples]
    together = loss(collate(pack(samples, 32)))
    assert together[1] == sum(count for _, count in alone) == 5
    assert together[0] == pytest.approx(sum(total for total, _ in alone), rel=1e-4)


def test_nobody_looks_ahead_or_across() -> None:
    looks = mask(torch.tensor([[0, 0, 1, PADDING]]))
    assert looks[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    added = mask(torch.tensor([[0, 1]]), torch.bfloat16)
    assert added[0, 0, 1, 0] == torch.finfo(torch.bfloat16).min


@pytest.mark.parametrize("rate", [None, RATE])
@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_a_streamed_sequence_gives_what_the_whole_gives(
    pair: Pair, rate: float | None, chunk: int
) -> None:
    sequence = pair.lay_out(scene(), rate)
    whole = pair.logits(sequence)
    hf = HFModel(pair.reference, max_context=256)
    for network in (pair.model, hf):
        cache = network.new_cache()
        got = []
        done = 0
        for begin in range(0, len(sequence), chunk):
            ids = sequence.ids[begin : begin + chunk]
            count = sum(i < 0 for i in ids)
            embeds = sequence.embeds[done : done + count] if count else None
            done += count
            feed = Feed(cache, ids, embeds, positions=sequence.positions[begin : begin + chunk])
            got.append(network.run([feed], all_logits=True).logits)
        torch.testing.assert_close(torch.cat(got), whole, **CLOSE)
        # What comes next goes after the highest position, also once the end was cut off.
        expected = pair.logits(
            Interleaved(
                [*sequence.ids, 3], sequence.embeds, [*sequence.positions, sequence.end], []
            )
        )[-1]
        for _ in range(2):
            torch.testing.assert_close(network.run([Feed(cache, [3])]).logits[0], expected, **CLOSE)
            cache.crop(len(sequence))


def test_a_batch_gives_what_each_gives_alone(pair: Pair) -> None:
    sequences = [
        pair.lay_out(scene()),
        pair.lay_out([Text([4, 4])]),
        pair.lay_out([Text([1]), sound(0.4), Text([2])]),
    ]
    feeds = [Feed(pair.model.new_cache(), s.ids, s.embeds, positions=s.aligned) for s in sequences]
    together = pair.model.forward(feeds)
    for logits, sequence in zip(together, sequences, strict=True):
        torch.testing.assert_close(logits, pair.logits(sequence)[-1], **CLOSE)


def test_generation_goes_on_after_a_clip_and_reads_only_what_is_new(pair: Pair) -> None:
    def answer(pieces: list[Text | Span], cache: Any) -> tuple[list[int], Finished]:
        sequence = pair.lay_out(pieces)
        batch = BatchGenerator(pair.model, BatchGenerator.Config(prefill_chunk=16))
        batch.add(
            "a",
            sequence.ids,
            cache,
            Sampling(0.0, max_tokens=6),
            embeds=sequence.embeds,
            positions=sequence.positions,
        )
        tokens = []
        while True:
            for _, event in batch.step():
                if isinstance(event, Finished):
                    return tokens, event
                tokens.append(event.token)

    cache = pair.model.new_cache()
    first, _ = answer(scene(), cache)
    # By transformers, each token from the whole sequence.
    sequence = pair.lay_out(scene())
    ids, positions, said = list(sequence.ids), list(sequence.positions), []
    for _ in first:
        step = Interleaved(ids, sequence.embeds, positions, [IGNORE] * len(ids))
        said.append(int(pair.torch_logits([step])[0][-1][:259].argmax()))
        ids, positions = [*ids, said[-1]], [*positions, step.end]
    assert first == said
    again, finished = answer(scene(), cache)
    assert again == first
    assert finished.cached_tokens == len(sequence) - 1
    other = [*scene()[:3], clip([frame(0.0, 5)], [sound(0.6)]), *scene()[4:]]
    fresh, _ = answer(other, pair.model.new_cache())
    reused, finished = answer(other, cache)
    assert reused == fresh
    # The first row of the first frame is the same; the next ones are at other times.
    assert finished.cached_tokens == 14


def test_positions_that_do_not_fit_are_refused(pair: Pair) -> None:
    cache = pair.model.new_cache()
    with pytest.raises(InputError, match="2 tokens has 1 positions"):
        pair.model.forward([Feed(cache, [1, 2], positions=[0])])
    with pytest.raises(InputError, match="601 tokens do not fit"):
        pair.model.forward([Feed(cache, [1, 2], positions=[0, 600])])
    with pytest.raises(InputError, match="none negative"):
        pair.model.forward([Feed(cache, [1], positions=[-1])])
    long = interleave([sound(1.0), Text([1])], rate=600)
    with pytest.raises(InputError, match="the prompt has 578 tokens"):
        BatchGenerator(pair.model).add(
            "a", long.ids, cache, Sampling(), embeds=long.embeds, positions=long.positions
        )
    assert cache.length == 0


def test_gradients_reach_the_adapter_through_a_packed_batch(pair: Pair) -> None:
    media = rows(5).requires_grad_()
    samples = [
        interleave([Span("audio", embeds=media), Text([7, 8], learn=True)], hashed=False),
        interleave([Text([1, 2, 3], learn=True)], hashed=False),
    ]
    batch = collate(pack(samples, 16))
    model = AutoModelForCausalLM.from_pretrained(pair.directory)
    model(**inputs(batch, model.get_input_embeddings())).loss.backward()
    assert media.grad is not None
    assert media.grad.abs().sum(1).gt(0).all()
