"""Judge a turn by what was expected of it, and all repeats together."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from omni.dialogues.format import (
    Expectation,
    Heard,
    Meaning,
    Percentiles,
    Sound,
    ToolCalled,
    Turn,
    Words,
    many,
)
from omni.dialogues.matching import contains, includes, languages_of, missing_in_order, word_error
from omni.dialogues.observed import TOO_LATE
from omni.dialogues.reading import Script
from omni.dialogues.results import Call, Check, Repeat, TurnResult
from omni.dialogues.service import Service
from omni.errors import OmniError


async def judge(
    script: Script, turn: Turn, result: TurnResult, service: Service
) -> tuple[TurnResult, tuple[Check, ...]]:
    """All checks of one turn, and the turn with what its speech is transcribed back as.

    Latency is judged :func:`over_repeats`. What the server does not judge has failed.
    """
    checks: list[Check] = []
    for number, expected in enumerate(turn.expectations):
        found = list(plain(expected, result))
        if expected.meaning is not None:
            with _verdict("meaning", found):
                found.append(await _meaning(expected.meaning, result, service))
        if expected.sounds_like is not None:
            with _verdict("sounds_like", found):
                result = await _transcribed(result, expected, service)
                found.append(_sounds_like(expected.sounds_like, result))
        for check in found:
            line = script.line("turns", result.index, "expect", number, check.kind)
            score = float(check.passed) if expected.soft and check.score is None else check.score
            checks.append(replace(check, soft=expected.soft, score=score, line=line))
    return result, tuple(checks)


@contextlib.contextmanager
def _verdict(kind: str, found: list[Check]) -> Iterator[None]:
    """What the server cannot judge has failed."""
    try:
        yield
    except OmniError as error:
        found.append(Check(kind, "a verdict", f"the server gave none: {error}", False))


def plain(expected: Expectation, result: TurnResult) -> Iterator[Check]:
    """The checks that need nothing but the turn."""
    said, calls = result.assistant, result.assistant.calls
    if expected.words is not None:
        yield from _words("words", expected.words, said.text)
    if expected.heard is not None:
        yield from _words("heard", expected.heard, result.user.heard)
        if isinstance(expected.heard, Heard) and expected.heard.wer is not None:
            yield _word_error("heard", expected.heard.wer, result.user.said, result.user.heard)
    if expected.language is not None:
        found = languages_of(said.text)
        wanted = many(expected.language)
        passed = bool(set(found) & set(wanted))
        yield Check("language", " or ".join(wanted), " or ".join(found) or "none", passed)
    if expected.spoken is not None:
        spoken = said.audio is not None
        yield _either("spoken", expected.spoken, spoken, "spoken", "not spoken")
    if expected.picture is not None:
        shown = bool(said.pictures)
        yield _either("picture", expected.picture, shown, "a picture", "no picture")
    if expected.nothing_said is not None:
        something = bool(said.text.strip() or said.audio)
        yield _either(
            "nothing_said", not expected.nothing_said, something, said.text or "sound", "nothing"
        )
    if expected.calls is not None:
        yield from _calls(expected.calls, calls)
    if expected.answers is not None:
        begun = len(said.statuses)
        wanted_count = f"{expected.answers} begun"
        yield Check("answers", wanted_count, f"{begun} begun", begun == expected.answers)
    if expected.stopped is not None:
        yield _stopped(expected.stopped, result)
    if expected.events is not None:
        happened = [moment.type for moment in result.events]
        missing = missing_in_order(happened, expected.events)
        shortened = [t for i, t in enumerate(happened) if t != happened[i - 1] or i == 0]
        yield Check(
            "events",
            ", ".join(expected.events),
            "all, in order"
            if missing is None
            else f"no {missing} in its place in: {', '.join(shortened)}",
            missing is None,
        )


def _either(kind: str, wanted: bool, found: bool, yes: str, no: str) -> Check:
    wording = {True: "something" if kind == "nothing_said" else yes, False: no}
    return Check(kind, wording[wanted], yes if found else no, wanted == found)


def _words(kind: str, wanted: str | list[str] | Words, text: str) -> Iterator[Check]:
    given = wanted if isinstance(wanted, Words) else Words(all=wanted)
    found = text or "nothing"
    if phrases := many(given.all):
        there = [phrase for phrase in phrases if contains(text, phrase)]
        score = len(there) / len(phrases)
        yield Check(kind, _list(phrases, "and"), found, score == 1, score=score)
    if phrases := many(given.any):
        passed = any(contains(text, phrase) for phrase in phrases)
        yield Check(kind, _list(phrases, "or"), found, passed)
    if phrases := many(given.none):
        passed = not any(contains(text, phrase) for phrase in phrases)
        yield Check(kind, f"neither {_list(phrases, 'nor')}", found, passed)
    if given.regex is not None:
        passed = re.search(given.regex, text, re.IGNORECASE) is not None
        yield Check(kind, f"/{given.regex}/", found, passed)


def _list(phrases: Sequence[str], word: str) -> str:
    return f" {word} ".join(f"“{phrase}”" for phrase in phrases)


def _calls(wanted: object, calls: Sequence[Call]) -> Iterator[Check]:
    made = "; ".join(f"{call.name}({call.arguments})" for call in calls) or "no call"
    if wanted is False:
        yield Check("calls", "no call", made, not calls)
        return
    for one in wanted if isinstance(wanted, list) else [wanted]:
        tool = one if isinstance(one, ToolCalled) else ToolCalled(name=str(one))
        passed = any(
            call.name == tool.name and includes(_arguments(call), tool.arguments) for call in calls
        )
        arguments = json.dumps(tool.arguments, ensure_ascii=False) if tool.arguments else "…"
        yield Check("calls", f"{tool.name}({arguments})", made, passed)


def _arguments(call: Call) -> object:
    try:
        return json.loads(call.arguments)
    except ValueError:
        return {}


def _stopped(limit: float, result: TurnResult) -> Check:
    wanted = f"silent within {limit:g} ms"
    if any(moment.type == TOO_LATE for moment in result.events):
        return Check("stopped", wanted, "the answer was over before it was interrupted", False)
    took = result.measured.get("stopped")
    if took is None:
        return Check("stopped", wanted, "it spoke on", False)
    return Check("stopped", wanted, f"{took:.0f} ms", took <= limit)


def _word_error(kind: str, limit: float, reference: str, heard: str) -> Check:
    rate = word_error(reference, heard)
    return Check(
        kind,
        f"word error of at most {limit:.0%} against “{reference}”",
        f"{rate:.0%}: “{heard}”",
        rate <= limit,
        score=max(0.0, 1 - rate),
    )


async def _meaning(
    wanted: str | list[str] | Meaning, result: TurnResult, service: Service
) -> Check:
    given = wanted if isinstance(wanted, Meaning) else Meaning(like=wanted)
    sentences = many(given.like)
    text = result.assistant.text.strip()
    aim = f"like {_list(sentences, 'or')} (at least {given.at_least:g})"
    if not text:
        return Check("meaning", aim, "nothing", False, score=0.0)
    vectors = await service.embed([text, *sentences])
    likeness = float((vectors[1:] @ vectors[0]).max())
    score = min(1.0, max(0.0, likeness))
    return Check("meaning", aim, f"{likeness:.2f}: {text}", likeness >= given.at_least, score=score)


async def _transcribed(result: TurnResult, expected: Expectation, service: Service) -> TurnResult:
    """The turn with what its speech is transcribed back as."""
    said = result.assistant
    if said.audio is None or said.transcript is not None:
        return result
    languages = many(expected.language)
    language = languages[0] if len(languages) == 1 else None
    transcript = await service.transcribe(said.audio.path, language)
    return replace(result, assistant=replace(said, transcript=transcript))


def _sounds_like(wanted: float | Sound, result: TurnResult) -> Check:
    given = wanted if isinstance(wanted, Sound) else Sound(wer=wanted)
    said = result.assistant
    text = said.text if given.text is None else given.text
    if said.transcript is None:
        return Check("sounds_like", f"“{text}”", "no sound", False, score=0.0)
    return _word_error("sounds_like", given.wer, text, said.transcript)


def over_repeats(script: Script, repeats: Sequence[Repeat]) -> tuple[Check, ...]:
    """Percentiles of latency, and the mean scores of what is soft, where it was scored twice."""
    checks: list[Check] = []
    for index, turn in enumerate(script.dialogue.turns):
        played = [repeat.turns[index] for repeat in repeats if len(repeat.turns) > index]
        played = [result for result in played if result.error is None]
        if not played:
            continue
        for number, expected in enumerate(turn.expectations):
            line = script.line("turns", index, "expect", number, "latency")
            for check in latency(expected, played):
                checks.append(replace(check, turn=index, line=line))
        if len(played) > 1:
            checks += _soft(index, played)
    return tuple(checks)


def latency(expected: Expectation, played: Sequence[TurnResult]) -> Iterator[Check]:
    """The bounds on every stage, over the repeats of one turn."""
    for stage, bounds in (expected.latency or {}).items():
        values = [result.measured[stage] for result in played if stage in result.measured]
        given = bounds if isinstance(bounds, Percentiles) else Percentiles(max=bounds)
        for name, limit in given.model_dump(exclude_none=True).items():
            wanted = f"{stage} {name} of at most {limit:g} ms"
            soft = expected.soft
            if len(values) < len(played):
                missing = len(played) - len(values)
                found = f"in {missing} of {len(played)} repeats there was none"
                yield Check("latency", wanted, found, False, soft, 0.0 if soft else None)
                continue
            value = percentile(values, name)
            share = float(np.mean([one <= limit for one in values]))
            yield Check("latency", wanted, f"{value:.0f} ms", value <= limit, soft, share)


def percentile(values: Sequence[float], name: str) -> float:
    """``p50``, ``p95`` or ``max`` of values, interpolated between neighbours."""
    return float(np.percentile(values, 100 if name == "max" else int(name[1:])))


def _soft(index: int, played: Sequence[TurnResult]) -> Iterator[Check]:
    """Soft checks of one turn, in the order in which every repeat has them."""
    for same in zip(*([c for c in result.checks if c.soft] for result in played), strict=True):
        score = float(np.mean([check.score or 0.0 for check in same]))
        passed = sum(check.passed for check in same)
        found = f"{score:.2f} on average, {passed} of {len(same)} repeats passed"
        yield replace(same[0], found=found, passed=passed == len(same), score=score, turn=index)
