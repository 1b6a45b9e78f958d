"""The page of a run: one file with all sound and pictures in it, that can be mailed."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni.dialogues.report_parts import STAGES, ended_by, latencies, printable, turns, words
from omni.dialogues.results import (
    DialogueResult,
    Media,
    Moment,
    Repeat,
    Run,
    Status,
    TurnResult,
)

if TYPE_CHECKING:
    from jinja2 import Environment

_BIT_RATE = 32_000
_SLOWER = 1.2
"""A latency is marked when it changed by this factor and by ``_MILLISECONDS``: less is chance."""
_MILLISECONDS = 100
_GOOD: tuple[Status, ...] = ("passed", "unexpected pass")


@dataclass(frozen=True, slots=True)
class Bar:
    """A stage in the waterfall: from the stage before to this one, in milliseconds."""

    name: str
    begin: float
    end: float
    before: float | None = None
    """When it ended in the earlier run."""

    @property
    def change(self) -> str:
        """``slower``, ``faster``, or nothing worth a word."""
        return change(self.end, self.before)


@dataclass(frozen=True, slots=True)
class Pair:
    """A dialogue beside what it was in the earlier run; either may be missing."""

    shown: DialogueResult
    """The one that there is, by preference the new one."""
    now: DialogueResult | None
    before: DialogueResult | None

    @property
    def change(self) -> str:
        """``new``, ``gone``, ``better``, ``worse``, ``changed``, or nothing."""
        if self.now is None or self.before is None:
            return "gone" if self.now is None else "new"
        if self.now.status == self.before.status:
            return ""
        good, was = self.now.status in _GOOD, self.before.status in _GOOD
        return "changed" if good == was else "better" if good else "worse"

    @property
    def repeats(self) -> Iterator[Iterator[tuple[TurnResult | None, TurnResult | None]]]:
        """For every repeat, the turns of both runs side by side."""
        now = self.now.repeats if self.now else ()
        before = self.before.repeats if self.before else ()
        for one, other in zip_longest(now, before, fillvalue=Repeat()):
            yield zip_longest(one.turns, other.turns)


def write_html(run: Run, directory: Path, against: Run | None = None) -> None:
    """Write ``index.html``: for every turn its sound, pictures, words, checks and waterfall.

    With ``against``, an earlier run, both stand side by side and what changed is marked; dialogues
    belong together by the names of their files and folders. Sound is compressed (MP3, 32 kbit/s)
    into the page, which loads nothing from anywhere. Raises OSError when it cannot be written.
    """
    template = _environment().get_template("report.html")
    page = template.render(run=run, against=against, pairs=_pairs(run, against))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "index.html").write_text(page, encoding="utf-8")


def _pairs(run: Run, against: Run | None) -> list[Pair]:
    def key(dialogue: DialogueResult) -> tuple[str, ...]:
        return dialogue.path.parts[-2:]  # runs may have begun in different places

    earlier = {key(dialogue): dialogue for dialogue in against.dialogues} if against else {}
    pairs = [Pair(d, d, earlier.pop(key(d), None)) for d in run.dialogues]
    return pairs + [Pair(gone, None, gone) for gone in earlier.values()]


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: object) -> object:
        return value if isinstance(value, Markup) else printable(str(value))

    environment = Environment(
        loader=PackageLoader("omni.dialogues", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "uri": uri,
        "bars": bars,
        "first": lambda dialogue: latencies(turns(dialogue)).get("first_audible"),
        "change": change,
        "ended_by": ended_by,
        "grouped": grouped,
        "longest": longest,
        "medians": lambda run: latencies([t for d in run.dialogues for t in turns(d)]),
        "stages": STAGES,
    }
    environment.filters |= {"words": words, "slug": lambda status: status.replace(" ", "-")}
    return environment


def change(now: float | None, before: float | None) -> str:
    """``slower`` or ``faster`` when a latency changed by more than chance does."""
    if now is None or before is None or abs(now - before) < _MILLISECONDS:
        return ""
    if now > before * _SLOWER:
        return "slower"
    return "faster" if before > now * _SLOWER else ""


def bars(turn: TurnResult, before: TurnResult | None = None) -> list[Bar]:
    """The waterfall of a turn: what the client measured, in the order in which it happened."""
    times = sorted((turn.measured[s], STAGES.index(s), s) for s in STAGES if s in turn.measured)
    earlier = before.measured if before else {}
    made: list[Bar] = []
    for end, _, stage in times:
        begin = made[-1].end if made else 0.0
        made.append(Bar(words(stage), min(begin, max(0.0, end)), max(0.0, end), earlier.get(stage)))
    return made


def longest(*played: TurnResult | None) -> float:
    """What the width of a waterfall stands for, in milliseconds: the longest time in the turns."""
    times = [turn.measured[s] for turn in played if turn for s in STAGES if s in turn.measured]
    return max([1.0, *times])


def grouped(events: Sequence[Moment]) -> list[tuple[str, float, str, int]]:
    """The events of a turn, those of one type in a row as one: type, when, details, how many."""
    rows = []
    for kind, group in groupby(events, key=lambda event: event.type):
        same = list(group)
        joiner = "" if kind.endswith(".delta") else " "
        rows.append((kind, same[0].at, joiner.join(event.detail for event in same), len(same)))
    return rows


def uri(media: Media) -> str:
    """The medium as a data URI; recordings are compressed. Empty when its file is gone."""
    if not media.path.is_file():
        return ""
    kind, data = media.media_type, media.path.read_bytes()
    if kind == "audio/wav":
        kind, data = "audio/mpeg", _mp3(data)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _mp3(wav: bytes) -> bytes:
    """The recording as MP3: what every browser plays."""
    import av  # FFmpeg: loaded only for pages

    made = BytesIO()
    with av.open(BytesIO(wav), "r") as source, av.open(made, "w", format="mp3") as target:
        rate = source.streams.audio[0].rate
        stream: Any = target.add_stream("mp3", rate=rate, layout="mono")
        stream.bit_rate = _BIT_RATE
        resampler = av.AudioResampler("s16p", "mono", rate, stream.codec_context.frame_size or None)
        written = 0
        for frame in (*source.decode(audio=0), None):
            for part in resampler.resample(frame):
                part.pts, part.time_base = written, Fraction(1, rate)
                written += part.samples
                target.mux(stream.encode(part))
        target.mux(stream.encode(None))
    return made.getvalue()
