"""Talk about other things after a picture was shown, with the answers of the LLM itself.

What is learnt about pictures must not change how everything else is answered (distillation from
oneself holds what is known; Li and Hoiem, Learning without Forgetting, 2016).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING

from omni.data.knowledge import question
from omni.data.phrases import phrase
from omni.data.pictures import Pictures
from omni.data.sample import Message, Sample
from omni.prompts import INSTRUCTIONS
from omni.types import Message as Said
from omni.types import Sampling

if TYPE_CHECKING:
    from omni.llm.model import LanguageModel

MOST = 96
"""Tokens of an answer; longer ones are left out."""
_TOGETHER = 8


def talk(llm: LanguageModel, part: str, count: int, seed: int = 0) -> Iterator[Sample]:
    """``count`` samples: a picture with some questions, then one or two other things."""
    pictures = Pictures(part, seed)
    for begin in range(0, count, _TOGETHER):
        numbers = range(begin, min(begin + _TOGETHER, count))
        asked = {n: _asked(Random(f"talk {seed} {part} {n}"), part != "train") for n in numbers}
        said: dict[int, list[Message]] = {n: [] for n in numbers}
        for turn in range(2):
            going = [n for n in numbers if len(said[n]) == 2 * turn and len(asked[n]) > turn]
            prompts = [[*said[n], Message("user", (asked[n][turn],))] for n in going]
            for n, prompt, answer in zip(going, prompts, _answers(llm, prompts), strict=True):
                if answer is not None:
                    said[n] = [*prompt, Message("assistant", (answer,))]
        for n in numbers:
            if said[n]:
                yield _sample(pictures.sample(n), said[n], llm.name, n, Random(f"cut {n}"))


def _sample(seen: Sample, said: list[Message], llm: str, number: int, random: Random) -> Sample:
    turns = 2 * random.randint(0, min(2, len(seen.messages) // 2))
    before = seen.messages[:turns]
    if not before:  # the picture comes with the first other thing
        first = Message("user", (0, *said[0].parts))
        said = [first, *said[1:]]
    return Sample(
        id=f"talk-{seen.id}-{number}",
        modality="text",
        messages=(*before, *said),
        media=seen.media,
        meta={**seen.meta, "about": ["talk"], "answers": llm},
    )


def _asked(random: Random, held_out: bool) -> list[str]:
    table = json.loads((files("omni.data") / "talk.json").read_text("utf-8"))
    every = []
    for _ in range(random.choice((1, 1, 2))):
        draw = random.random()
        if draw < 0.3:
            every.append(question(random, held_out=held_out).text)
        elif draw < 0.5:
            every.append(phrase(random)[0])
        else:
            language = "en" if draw < 0.85 else "zh"
            template = random.choice(table[language]["templates"])
            every.append(template.replace("{thing}", random.choice(table[language]["things"])))
    return every


def _answers(llm: LanguageModel, prompts: Sequence[Sequence[Message]]) -> list[str | None]:
    """The likeliest answers; None for one that does not end."""
    from omni.llm.generate import BatchGenerator, Finished

    generator = BatchGenerator(llm, BatchGenerator.Config(prefill_chunk=512))
    for i, prompt in enumerate(prompts):
        messages = [Said("system", (INSTRUCTIONS,)), *(Said(m.role, (m.text,)) for m in prompt)]
        ids = llm.tokenizer.encode_chat(messages)
        sampling = Sampling(temperature=0, max_tokens=MOST)
        generator.add(str(i), ids, llm.new_cache(), sampling)
    said = [b""] * len(prompts)
    found: list[str | None] = [None] * len(prompts)
    while not generator.idle:
        for key, event in generator.step():
            i = int(key)
            if not isinstance(event, Finished):
                said[i] += llm.tokenizer.token_bytes(event.token)
            elif event.reason == "stop":
                found[i] = said[i].decode(errors="replace").strip() or None
    return found
