"""What is measured. A part draws its samples and adds rows to the run, bridge by bridge."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import TypeVar, cast

import numpy as np
from PIL import Image

from omni.data.describe import COLOURS
from omni.data.pictures import draw as draw_shape
from omni.evaluate.bridges import Bridge
from omni.evaluate.drawing import drawing
from omni.evaluate.figures import Figure, quantile, ratio, share
from omni.evaluate.judging import can_judge, in_place, is_right, key_words, word_errors
from omni.evaluate.retrieval import search
from omni.evaluate.run import Row, Run
from omni.evaluate.samples import (
    Asked,
    clips,
    imagenet_photographs,
    names_of,
    questions,
    spoken,
    turns,
)
from omni.prompts import INSTRUCTIONS
from omni.types import Message, Modality, Span, Transcript

T = TypeVar("T")
U = TypeVar("U")
SHAPES = ("circle", "rectangle", "triangle")
_SHORT, _LONG = 32, 80
"""Tokens of an answer, and of a description or a sentence repeated."""
_REPEAT = "Repeat what I said, word for word."
_PARROT = (
    Message("system", ("You repeat what the user said, word for word, and nothing else.",)),
    Message("user", (f"How are you today?\n{_REPEAT}",)),
    Message("assistant", ("How are you today?",)),
    Message("user", (f"He went home early.\n{_REPEAT}",)),
    Message("assistant", ("He went home early.",)),
)


def hearing(run: Run) -> None:
    """Word error rates of what is heard, and of what the LLM makes of it when it repeats it."""
    kinds = {
        "held-out sentences": spoken(run.held_out("speech")),
        "held-out sentences and voices": spoken(run.held_out("speech", "held_out_voices")),
        "recorded questions": clips(),
    }
    for name, recordings in kinds.items():
        some = run.some(recordings, 256, 8)
        for bridge in run.of("audio"):
            hear = partial(_hear, bridge)
            heard = run.each(f"{name}, {bridge.name}", some, hear)
            row = Row("hearing", f"{name}: words wrong", bridge.name, cost=True)
            run.add(row, some, heard, lambda a, t: word_errors(t.text, a.right), _rate(run))
            pairs = [
                (asked, transcript)
                for asked, transcript in zip(some, heard, strict=True)
                if isinstance(transcript, Transcript)
            ]
            few = run.some(pairs, 40, 4)
            said = run.ask(f"{name}, repeated", bridge, few, _repeat, _LONG)
            row = Row(
                "hearing", f"{name}: words wrong, repeated by the LLM", bridge.name, cost=True
            )
            run.add(row, few, said, lambda p, a: word_errors(a, p[0].right), _rate(run))


def spoken_questions(run: Run) -> None:
    """Spoken questions, answered rightly."""
    asked = [q for q in questions(run.held_out("questions")) if can_judge(q.question, q.right[0])]
    _answers(run, "questions", "spoken questions answered", run.some(asked, 160, 8), "audio")


def pictures(run: Run) -> None:
    """Questions about composed pictures, and the words of their captions."""
    samples = run.held_out("pictures")
    alone = [s for s in samples if len(s.meta["things"]) == 1 and not s.meta["things"][0][2]]
    things = [Asked("What is this?", (s.meta["things"][0][0],), "name", s.media[0]) for s in alone]
    _answers(run, "pictures", "clip art named", run.some(things, 80, 6), "image")
    every = turns(samples)
    for about, name in {
        "colour": "colours",
        "count": "things counted",
        "place": "places",
        "presence": "is it there? (yes or no)",
    }.items():
        some = run.some([asked for asked in every if asked.about == about], 80, 6)
        _answers(run, "pictures", name, some, "image")
    captions = run.some([asked for asked in every if asked.about == "caption"], 60, 6)
    for bridge in run.of("image"):
        said = run.ask("captions", bridge, captions, partial(_prompt, bridge), _LONG)
        row = Row("pictures", "words of the caption", bridge.name)
        run.add(row, captions, said, _recalled, _rate(run))


def photographs(run: Run) -> None:
    """Objects in photographs, by EfficientNet's likeliest label and by ImageNet's own class."""
    samples = run.held_out("photos")
    labels = [
        Asked("What is this?", names_of(s.meta["labels"][0][0]), "name", s.media[0])
        for s in samples
    ]
    name = "named as EfficientNet's first label"
    _answers(run, "photographs", name, run.some(labels, 200, 6), "image")
    truth = run.some(imagenet_photographs(), 20, 6)
    _answers(run, "photographs", "named as ImageNet's class", truth, "image")


def easy_vqa(run: Run) -> None:
    """easy-VQA's test questions, whose answers are thirteen words."""
    asked = run.some(turns(run.held_out("easy-vqa")), 240, 10)
    _answers(run, "easy-vqa", "easy-VQA answered", asked, "image")


def text(run: Run) -> None:
    """What the LLM knows without media, and after a picture: choices by likelihood, and sums."""
    every = list({a.question: a for a in turns(run.held_out("text"))}.values())
    choices = run.some([a for a in every if a.about.startswith("choice")], 240, 24)
    sums = run.some([a for a in every if a.about in ("arithmetic", "comparison")], 120, 8)
    for name, modality in (("", "text"), (", after a picture", "image")):
        for bridge in run.of(cast(Modality, modality)):
            before = _shown_before(bridge) if name else []
            measure = f"multiple choice (4 answers){name}"
            choose = partial(_choose, bridge, before)
            chosen = run.each(f"{measure}, {bridge.name}", choices, choose)
            row = Row("text", measure, bridge.name)
            run.add(row, choices, chosen, lambda a, one: one == _options(a)[a.right[0]], _share)
            measure = f"sums and comparisons{name}"
            prompt = partial(_text_prompt, before)
            said = run.ask(measure, bridge, sums, prompt, _SHORT)
            run.add(Row("text", measure, bridge.name), sums, said, _right, _share)


def latency(run: Run) -> None:
    """How long one utterance and one picture take, and until the answer's first token is known.

    The bridges take turns, so that what else the machine does meets them alike.
    """
    recordings = run.some(clips(), 24, 6)
    _times(run, "utterance", recordings, run.of("audio"), Asked.sound, Bridge.hear, _spoken)
    shown = run.some(turns(run.held_out("pictures")), 48, 6)
    _times(run, "picture", shown, run.of("image"), Asked.pixels, Bridge.see, _shown)


PARTS: dict[str, Callable[[Run], None]] = {
    "hearing": hearing,
    "questions": spoken_questions,
    "photographs": photographs,
    "pictures": pictures,
    "easy-vqa": easy_vqa,
    "text": text,
    "drawing": drawing,
    "search": search,
    "latency": latency,
}


# What the LLM is asked


def _hear(bridge: Bridge, asked: Asked) -> Transcript:
    return bridge.hear(asked.sound())


def _spoken(asked: Asked, heard: Transcript) -> list[Message]:
    return [_system(), Message("user", (_said(heard),))]


def _shown(asked: Asked, seen: Span | None) -> list[Message]:
    parts = (asked.question,) if seen is None else (seen, asked.question)
    return [_system(), Message("user", parts)]


def _said(heard: Transcript) -> Span:
    return Span("audio", heard.text, heard.embeds, (0.0, heard.seconds))


def _repeat(pair: tuple[Asked, Transcript]) -> list[Message]:
    return [*_PARROT, Message("user", (_said(pair[1]), _REPEAT))]


def _prompt(bridge: Bridge, asked: Asked) -> list[Message]:
    if asked.medium is None:
        return [_system(), Message("user", (asked.question,))]
    if asked.medium.kind == "audio":
        return _spoken(asked, _hear(bridge, asked))
    return _shown(asked, bridge.see(asked.pixels()))


def _system() -> Message:
    return Message("system", (INSTRUCTIONS,))


def _text_prompt(before: Sequence[Message], asked: Asked) -> list[Message]:
    return [_system(), *before, Message("user", (asked.question,))]


def _shown_before(bridge: Bridge) -> list[Message]:
    """A red circle on white, and what is said of it."""
    circle = draw_shape("circle", COLOURS["red"], Random(0))
    picture = Image.new("RGB", circle.size, "white")
    picture.paste(circle, mask=circle)
    seen = bridge.see(np.asarray(picture))
    parts = ("What is this?",) if seen is None else (seen, "What is this?")
    return [Message("user", parts), Message("assistant", ("A red circle.",))]


def _choose(bridge: Bridge, before: Sequence[Message], asked: Asked) -> str:
    alone = Asked(asked.question.split("\n")[0], asked.right)
    return bridge.choose(_text_prompt(before, alone), list(_options(asked).values()))


def _options(asked: Asked) -> dict[str, str]:
    """The answers to choose from by their letters: "A. Paris"."""
    return dict(re.findall(r"^([A-D])\. (.+)$", asked.question, re.M))


# How it is judged


def _answers(run: Run, part: str, measure: str, asked: Sequence[Asked], modality: Modality) -> None:
    for bridge in run.of(modality):
        said = run.ask(measure, bridge, asked, partial(_prompt, bridge), _SHORT)
        run.add(Row(part, measure, bridge.name), asked, said, _right, _share)


def _right(asked: Asked, answer: str) -> bool:
    if asked.about == "place":
        return in_place(answer, asked.right[0])
    among = {"colour": tuple(COLOURS), "easy-vqa": (*COLOURS, *SHAPES)}.get(asked.about, ())
    return any(is_right(asked.question, answer, one, among) for one in asked.right)


def _recalled(asked: Asked, answer: str) -> tuple[int, int]:
    wanted = set(key_words(asked.right[0]))
    return len(wanted & set(key_words(answer))), len(wanted)


def _share(marks: list[bool]) -> Figure | None:
    return share(sum(marks), len(marks))


def _rate(run: Run) -> Callable[[list[tuple[int, int]]], Figure | None]:
    return partial(ratio, seed=run.seed)


# How long it takes


def _times(
    run: Run,
    what: str,
    items: Sequence[Asked],
    bridges: Sequence[Bridge],
    load: Callable[[Asked], T],
    take: Callable[[Bridge, T], U],
    prompt: Callable[[Asked, U], list[Message]],
) -> None:
    def timed(asked: Asked) -> list[tuple[float, float]]:
        """Milliseconds until it is taken in, and until the first token, for each bridge."""
        found = []
        medium = load(asked)
        for bridge in bridges:
            began = time.perf_counter()
            taken = take(bridge, medium)
            middle = time.perf_counter()
            bridge.read(prompt(asked, taken))
            found.append(((middle - began) * 1e3, (time.perf_counter() - began) * 1e3))
        return found

    run.each(f"latency, {what}, warming up", items[:2], timed)
    outcomes = run.each(f"latency, {what}", items, timed)
    for i, bridge in enumerate(bridges):
        for j, until in enumerate(("", ", to the first token")):
            for name, q in (("median", 0.5), ("95 %", 0.95)):
                row = Row("latency", f"{what}{until}, {name}", bridge.name, unit="ms", cost=True)
                pick = partial(_pick, i, j)
                run.add(row, items, outcomes, pick, partial(quantile, q=q, seed=run.seed))


def _pick(bridge: int, until: int, asked: Asked, times: list[tuple[float, float]]) -> float:
    return times[bridge][until]
