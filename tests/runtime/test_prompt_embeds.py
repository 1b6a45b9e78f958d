"""Media in the LLM's own space are read in their place in the conversation."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from llm_tiny import write_model
from torch import Tensor

from fakes import LoudnessHearing, Running, SizeSight
from omni import events as ev
from omni.errors import InputError
from omni.llm.model import LanguageModel, load
from omni.sequence import Boundary, Layout, boundary_tokens
from omni.types import Capabilities, ImageFrame, Message, Sampling, Span, Transcript
from runtime.prompt import Reading, Window, fit
from talk import Talk

GREEDY = Sampling(0.0, max_tokens=12)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    directory = tmp_path_factory.mktemp("tiny")
    write_model(directory, "qwen2-untied")
    return load(directory, device="cpu", quantization="fp32")


def rows(llm: LanguageModel, text: str) -> Tensor:
    """The embeddings of a text's own tokens: what an adapter that hears perfectly gives."""
    table: Any = llm._network._embedding  # type: ignore[attr-defined]
    return table[torch.tensor(llm.tokenizer.encode(text))].float()


def embedded(llm: LanguageModel, text: str, modality: Any = "audio", words: str = "?") -> Span:
    return Span(modality, words, rows(llm, text), (0.0, 1.0))


class Sight(SizeSight):
    """Sees the size of a picture, in the LLM's own embeddings; its words say something else."""

    capabilities = Capabilities(inputs=frozenset({"image"}), bridge="embeds")

    def __init__(self, llm: LanguageModel) -> None:
        self._llm = llm

    def encode(self, frames: Any) -> list[Span]:
        return [
            embedded(self._llm, span.text or "", "image", "?") for span in super().encode(frames)
        ]


class Hearing(LoudnessHearing):
    capabilities = Capabilities(inputs=frozenset({"audio"}), bridge="embeds", sample_rate=16_000)


def running(llm: LanguageModel, layout: Layout | None = None, **parts: Any) -> Running:
    given = {"hearing": Hearing(), "sight": Sight(llm)} | parts
    return Running(real={"llm": llm, "layout": layout, **given})


def answer(made: Running, *messages: Message, session: str = "a", **options: Any) -> Any:
    if session not in made.boxes:
        made.open(session)
    start = ev.Start("r", messages, GREEDY, speak=False, **options)
    made.engine.submit(session, start)
    events = made.until(session, ev.ResponseDone)
    return "".join(e.text for e in events if isinstance(e, ev.TextDelta)), events[-1]


def test_embeddings_of_words_are_answered_as_the_words(llm: LanguageModel) -> None:
    heard = Message("user", ("Listen.", embedded(llm, "How are you?"), "Well?"))
    said = Message("user", ("Listen.", "How are you?", "Well?"))
    with running(llm) as made:
        expected, done = answer(made, said, session="a")
        assert expected
        got, embedded_done = answer(made, heard, session="b")
        assert got == expected
        assert embedded_done.usage.input_tokens == done.usage.input_tokens
        assert embedded_done.usage.audio_tokens == len("How are you?")
        assert done.usage.audio_tokens == 0


def test_boundary_tokens_stand_around_it_and_count(llm: LanguageModel) -> None:
    tokens = boundary_tokens(llm.tokenizer, 300)
    layout = Layout({"image": tokens["image"], "audio": Boundary(rows(llm, "<")[0], 260)})
    reading = Reading.of(running(llm, layout).parts)
    messages = [Message("user", (embedded(llm, "ab", "image"), embedded(llm, "cd"), "x"))]
    fitted = fit(reading, messages, (), Window(200))
    ids = fitted.prompt.ids
    start = ids.index(tokens["image"].start)
    shape = [i if i >= 0 else None for i in ids[start : start + 10]]
    [line] = llm.tokenizer.encode("\n")
    assert shape == [261, None, None, 262, line, None, None, None, 260, line]
    assert reading.tokens(fitted.messages, "image") == 4
    assert reading.tokens(fitted.messages, "audio") == 4
    embeds = fitted.prompt.embeds
    assert embeds is not None
    assert torch.equal(embeds, rows(llm, "ab<cd"))


def test_an_assembly_that_bridges_by_words_reads_the_words(llm: LanguageModel) -> None:
    both = embedded(llm, "embeddings", words="words")
    with running(llm, hearing=LoudnessHearing()) as made:
        got, done = answer(made, Message("user", (both,)))
        assert got == answer(made, Message("user", ("words",)), session="b")[0]
        assert done.usage.audio_tokens == len("words")


def test_embeddings_for_another_llm_give_way_to_words_or_are_refused(llm: LanguageModel) -> None:
    with running(llm) as made:
        told = Span("audio", "words", torch.zeros(3, 64))
        got, _ = answer(made, Message("user", (told,)))
        assert got == answer(made, Message("user", ("words",)), session="b")[0]
        _, done = answer(made, Message("user", (replace(told, text=None),)))
        assert done.reason == "failed"
        assert "width 64; the LLM reads 48" in done.error


def test_a_conversation_with_media_is_read_once(llm: LanguageModel) -> None:
    heard = Message("user", (embedded(llm, "Good morning."), embedded(llm, "me", "image")))
    with running(llm, Layout(rate=25.0)) as made:
        first, done = answer(made, heard)
        talk = (heard, Message("assistant", (first,)), Message("user", (embedded(llm, "More"),)))
        _, again = answer(made, *talk)
        # All but the last token, which was drawn and never read, and the end of the message.
        assert again.usage.cached_tokens >= done.usage.input_tokens
        fresh, _ = answer(made, *talk, session="b")
        assert fresh == answer(made, *talk)[0]
        # Other sound in the same place is other sound.
        other = Message("user", (embedded(llm, "Good evening."), *heard.parts[1:]))
        _, changed = answer(made, other)
        before = len(llm.tokenizer.encode_chat([Message("user", ("x",))], False))
        assert changed.usage.cached_tokens < before + len("Good morn")


def test_what_is_read_ahead_is_not_read_again(llm: LanguageModel) -> None:
    heard = Message("user", (embedded(llm, "Good morning."),))
    with running(llm) as made:
        made.open("a")
        cache = made.engine._sessions["a"].cache
        made.engine.submit("a", ev.Prepare((heard,)))
        while cache.ahead is None:
            pass
        got, done = answer(made, heard)
        assert done.usage.cached_tokens == done.usage.input_tokens
        assert got == answer(made, heard, session="b")[0]


def test_the_oldest_turns_go_when_media_fill_the_context(llm: LanguageModel) -> None:
    tokenizer = llm.tokenizer
    reading = Reading(tokenizer, frozenset({"audio"}), llm.width, Layout(rate=None))
    talk = []
    for i in range(6):
        talk.append(Message("user", (embedded(llm, f"{i} " * 15),)))
        talk.append(Message("assistant", (f"answer {i}",)))
    talk.append(Message("user", ("last",)))
    whole = reading.prompt(reading.bridge(talk)).size
    fitted = fit(reading, talk, (), Window(whole - 1, ratio=0.8))
    assert len(fitted.messages) < len(talk)
    assert len(fitted.messages) % 2 == 1
    assert fitted.prompt.size <= 0.8 * whole
    assert fitted.kept is not None
    # The next prompt begins where this one did, as the same media stand there.
    more = [*talk, Message("assistant", ("yes",)), Message("user", ("and?",))]
    later = fit(reading, more, (), Window(whole - 1, ratio=0.8), fitted.kept)
    assert later.prompt.ids[: len(fitted.prompt)][:-20] == fitted.prompt.ids[:-20]
    assert later.kept is not None
    assert later.kept.cut == fitted.kept.cut
    # With other sound there it is another conversation.
    changed = [
        Message("user", (embedded(llm, "0 " * 15),)) if m.role == "user" else m for m in talk
    ]
    assert not fitted.kept.holds(reading.bridge(changed))
    with pytest.raises(InputError, match="truncation is disabled"):
        fit(reading, talk, (), Window(whole - 1, ratio=None))
    # Time that takes more positions than tokens counts, too.
    slow = replace(reading, layout=Layout(rate=1000.0))
    with pytest.raises(InputError, match="the last message is too long"):
        fit(slow, talk[:1], (), Window(500))


def test_what_the_encoders_give_reaches_the_llm_through_the_conversation(
    llm: LanguageModel,
) -> None:
    talk = Talk()
    talk.send("input_image_buffer.append", image=base64.b64encode(b"cup").decode())
    [seen] = Sight(llm).encode([ImageFrame(np.zeros((2, 3, 3), np.uint8))])
    talk.engine(ev.Seen(talk.last(ev.See).key, seen, talk.clock.now))
    talk.sound(0.9, 1.0)
    talk.sound(0.01, 0.16)
    heard = Transcript("hm", "en", 1.0, embeds=rows(llm, "What is it?"))
    talk.engine(ev.Transcribed(talk.last(ev.Transcribe).key, heard, talk.clock.now))
    talk.engine(ev.TurnJudged(talk.last(ev.JudgeTurn).key, 0.95, talk.clock.now))
    talk.sound(0.01, 0.16)
    prepared, asked = talk.last(ev.Prepare).messages[-1], talk.last(ev.Start).messages[-1]
    for message in (prepared, asked):
        assert [p.modality for p in message.parts if isinstance(p, Span)] == ["image", "audio"]
    with running(llm) as made:
        got, done = answer(made, asked)
        assert got == answer(made, Message("user", ("3 by 2", "What is it?")), session="b")[0]
        assert (done.usage.image_tokens, done.usage.audio_tokens) == (6, 11)


@pytest.mark.e2e
def test_smollm_answers_embeddings_as_the_words_they_are_of() -> None:
    smollm = load("smollm2-135m", device="cpu")
    words = "What is the capital of France?"
    with running(smollm) as made:
        said, _ = answer(made, Message("user", (words, "Answer briefly.")))
        heard = Message("user", (embedded(smollm, words), "Answer briefly."))
        assert answer(made, heard, session="b")[0] == said
        assert "Paris" in said
