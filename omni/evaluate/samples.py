"""The held-out sets that are measured on, as `omni data make` leaves them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from omni.data.sample import Medium, Sample
from omni.errors import InputError
from omni.types import AudioChunk, Pixels

T = TypeVar("T")
NEEDS = {
    "hearing": (("speech", "held_out"), ("speech", "held_out_voices")),
    "questions": (("questions", "held_out"),),
    "photographs": (("photos", "held_out"),),
    "pictures": (("pictures", "held_out"),),
    "easy-vqa": (("easy-vqa", "held_out"),),
    "text": (("text", "held_out"),),
    "drawing": (),
    "search": (("pictures", "held_out"),),
    "latency": (("pictures", "held_out"),),
}
"""What each part is measured on."""
SETS = {
    "photographs": ("foolbox",),
    "drawing": ("fluent",),
    "search": ("fluent", "clipart", "gcompris", "foolbox"),
}
"""The sets that are measured on as they are."""
_MAKE = {
    "speech": "omni data make speech --part {} --hours 0.2",
    "questions": "omni data make questions --part {} --count 256",
    "pictures": "omni data make pictures --part {} --count 512",
    "text": "omni data make text --part {} --count 1024",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, the answers that are right, what it is about, and its medium, if any.

    Where something was said, ``right`` is what was said, in the forms in which it may be written.
    """

    question: str
    right: tuple[str, ...]
    about: str = ""
    medium: Medium | None = field(default=None, repr=False)

    def sound(self) -> AudioChunk:
        """The medium as sound. Raises `MediaError`."""
        assert self.medium is not None
        return self.medium.sound()

    def pixels(self) -> Pixels:
        """The medium as a picture. Raises `MediaError`."""
        assert self.medium is not None
        return self.medium.pixels()


def check(data: Path, parts: Iterable[str]) -> None:
    """Raise `InputError` with the commands that make the data of ``parts`` that is not there."""
    from omni.data.sets import require
    from omni.data.shards import INDEX

    parts = list(parts)
    wanted = dict.fromkeys(need for part in parts for need in NEEDS[part])
    missing = [(kind, of) for kind, of in wanted if not (data / kind / of / INDEX).exists()]
    if missing:
        places = " or ".join(str(data / kind / of) for kind, of in missing)
        commands = [_MAKE.get(kind, f"omni data make {kind} --part {{}}") for kind, _ in missing]
        lines = [c.format(of) for c, (_, of) in zip(commands, missing, strict=True)]
        raise InputError(
            f"there is no data in {places} to measure on; make it with:\n  " + "\n  ".join(lines),
            param="data",
        )
    require(dict.fromkeys(name for part in parts for name in SETS.get(part, ())))


def turns(samples: Iterable[Sample]) -> list[Asked]:
    """The questions of the samples, each for itself; a picture belongs to all of its sample's."""
    found = []
    for sample in samples:
        medium = sample.media[0] if sample.media else None
        pairs = zip(sample.meta["about"], sample.messages[::2], sample.messages[1::2], strict=True)
        found += [Asked(asked.text, (said.text,), kind, medium) for kind, asked, said in pairs]
    return found


def spoken(samples: Iterable[Sample]) -> list[Asked]:
    """What was said in recordings, as it is written and as it sounds."""
    return [
        Asked("", (str(s.meta["transcript"]), str(s.meta["spoken"])), "speech", s.media[0])
        for s in samples
    ]


def questions(samples: Iterable[Sample]) -> list[Asked]:
    """Spoken questions with their answers; of those with the same words, the first."""
    found: dict[str, Asked] = {}
    for s in samples:
        asked = str(s.meta["transcript"])
        found.setdefault(
            asked, Asked(asked, (str(s.meta["answer"]),), str(s.meta["about"]), s.media[0])
        )
    return list(found.values())


def clips() -> list[Asked]:
    """The recorded questions of ``omni bench voice``."""
    folder = files("omni.bench")
    listed = json.loads(folder.joinpath("questions.json").read_text("utf-8"))
    return [
        Asked(
            "",
            (entry["text"],),
            "speech",
            Medium("audio", folder.joinpath("clips", f"{entry['clip']}.flac").read_bytes(), "flac"),
        )
        for entry in listed
    ]


def draw(items: Sequence[T], count: int, seed: int) -> list[T]:
    """Up to ``count`` of ``items``, the same ones for the same seed."""
    return Random(seed).sample(items, min(count, len(items)))


def imagenet_photographs() -> list[Asked]:
    """The 20 photographs of the set foolbox, with the class that ImageNet says they show.

    Raises `InputError` where the set was not pulled.
    """
    from omni.data.sets import require

    labels = _table()["labels"]
    folder = require(["foolbox"])["foolbox"] / "foolbox" / "data"
    return [
        Asked(
            "What is this?",
            names_of(labels[int(path.stem.rsplit("_", 1)[1])]),
            "name",
            Medium("image", path.read_bytes(), "jpg"),
        )
        for path in sorted(folder.glob("imagenet_*.jpg"))
    ]


def names_of(label: str) -> tuple[str, ...]:
    """A label of ImageNet and the plain name of its group: either names the thing."""
    labels, groups = _table()["labels"], _table()["groups"]
    return (label, *(g for g, members in groups.items() if label in [labels[i] for i in members]))


@cache
def _table() -> Any:
    return json.loads((files("encoders") / "data" / "imagenet_labels.json").read_text("utf-8"))


def by_number(name: str) -> list[tuple[str, int]]:
    """A key that sorts ids by the numbers in them."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D+)(\d*)", name)]
