"""Run dialogues against a server, one after the other, and collect what came of them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from omni.client.media import WIRE_RATE, save_wav
from omni.dialogues.expect import judge, over_repeats
from omni.dialogues.format import Conditions, Pause, Piece, Recording, Spoken, Turn
from omni.dialogues.observed import TurnSeen
from omni.dialogues.player import Player
from omni.dialogues.reading import Script, ScriptError, read
from omni.dialogues.results import (
    AssistantTurn,
    Call,
    DialogueResult,
    Media,
    Repeat,
    Run,
    TurnResult,
    UserTurn,
)
from omni.dialogues.service import Service
from omni.types import AudioChunk, Pcm

log = logging.getLogger(__name__)


async def run(
    paths: Iterable[Path],
    service: Service,
    *,
    repeats: int | None = None,
    tags: Sequence[str] = (),
    on_result: Callable[[DialogueResult], None] = lambda result: None,
) -> Run:
    """Play the dialogues of these files; ``on_result`` is told each as it ends.

    ``repeats`` is instead of what the files say; with ``tags`` only those that have one of them are
    played, and files that cannot be used. No dialogue's failure ends the run; a cancel does.
    Raises ConnectionClosedError when the server does not answer at all.
    """
    started, began = datetime.now(UTC), time.monotonic()
    server = await service.health()
    results: list[DialogueResult] = []
    for path in paths:
        try:
            script = await asyncio.to_thread(read, path)
        except ScriptError as error:
            result = broken(path, error)
        else:
            if tags and not set(tags) & set(script.dialogue.tags):
                continue
            result = await play(script, service, repeats)
        results.append(result)
        on_result(result)
    return Run(
        started.isoformat(timespec="seconds"),
        service.url,
        {key: value for key, value in server.items() if key not in ("status", "sessions")},
        tuple(results),
        round(time.monotonic() - began, 3),
    )


def broken(path: Path, error: ScriptError) -> DialogueResult:
    """The result of a file that is no dialogue; all its problems are in the message."""
    first, *rest = error.problems
    message = "\n".join([first.message, *map(str, rest)])
    name = path.name.partition(".")[0]
    return DialogueResult(path, name, error=replace(first, message=message))


async def play(script: Script, service: Service, repeats: int | None = None) -> DialogueResult:
    """Play one dialogue as often as it says, or ``repeats`` times, and judge it."""
    dialogue = script.dialogue
    played = [
        await _play_once(script, service, number) for number in range(repeats or dialogue.repeats)
    ]
    return DialogueResult(
        script.path,
        script.name,
        dialogue.description,
        tuple(dialogue.tags),
        dialogue.known,
        tuple(played),
        over_repeats(script, played),
    )


async def _play_once(script: Script, service: Service, number: int) -> Repeat:
    began = time.monotonic()
    player = Player(script, service, number)
    turns: list[TurnResult] = []
    try:
        problem = await player.play()
        for seen in player.observer.turns:
            turn = script.dialogue.turns[seen.index]
            result = await asyncio.to_thread(_collect, script, turn, seen, player, service.folder)
            result, checks = await judge(script, turn, result, service)
            turns.append(replace(result, checks=checks))
    except Exception as error:  # one dialogue must not end the run
        log.exception("%s failed", script.path)
        problem = script.problem(f"{type(error).__name__}: {error}")
    return Repeat(tuple(turns), problem, round(time.monotonic() - began, 3))


def _collect(
    script: Script, turn: Turn, seen: TurnSeen, player: Player, folder: Path
) -> TurnResult:
    """What was noticed of a turn as a result, with its media in files."""
    dialogue = script.dialogue
    user = UserTurn(
        said=_said(turn.pieces),
        typed=turn.type or "",
        audio=_recording(folder, np.concatenate(seen.frames)) if seen.frames else None,
        pictures=tuple(_picture(folder, data) for data in seen.pictures),
        actions=tuple(_actions(turn)),
        conditions=tuple(_conditions(turn.conditions or dialogue.conditions)),
        speech=tuple((begin - seen.began, end - seen.began) for begin, end in seen.speech),
        heard=" ".join(filter(None, seen.heard)),
    )
    recorded = player.observer.loudspeaker.recorded([answer.id for answer in seen.answers])
    final = [answer.done for answer in seen.answers if answer.done is not None]
    assistant = AssistantTurn(
        text="\n".join(filter(None, ("".join(a.words).strip() for a in seen.valid))),
        audio=_recording(folder, recorded[1]) if recorded else None,
        audio_at=recorded[0] - seen.began if recorded else None,
        pictures=tuple(_picture(folder, data) for a in seen.answers for data in a.images),
        calls=tuple(
            Call(call.name, call.arguments, seen.outputs.get(call.id))
            for answer in seen.answers
            for call in answer.calls
        ),
        statuses=tuple(answer.status for answer in seen.answers),
        warnings=tuple(str(w) for done in final for w in done.get("warnings") or ()),
    )
    error = seen.error
    refusals = [*seen.refusals, *_failures(seen)]
    if error is None and refusals:
        message = f"the server reported: {'; '.join(dict.fromkeys(refusals))}"
        error = script.problem(message, "turns", seen.index)
    return TurnResult(
        seen.index,
        script.line("turns", seen.index),
        user,
        assistant,
        seen.moments,
        (final[-1].get("timings") or {}) if final else {},
        seen.measured,
        error=error,
        seconds=round(seen.ended - seen.began, 3),
    )


def _failures(seen: TurnSeen) -> list[str]:
    details = [
        (answer.done or {}).get("status_details") or {}
        for answer in seen.answers
        if answer.status == "failed"
    ]
    return [str((d.get("error") or {}).get("message", "an answer failed")) for d in details]


def _recording(folder: Path, pcm: Pcm) -> Media:
    digest = hashlib.sha256(pcm.tobytes()).hexdigest()[:20]
    path = folder / f"{digest}.wav"
    save_wav(path, AudioChunk(pcm, WIRE_RATE))
    return Media(path, "audio/wav", round(len(pcm) / WIRE_RATE, 3))


def _picture(folder: Path, data: bytes) -> Media:
    png = data.startswith(b"\x89PNG")
    path = folder / f"{hashlib.sha256(data).hexdigest()[:20]}.{'png' if png else 'jpg'}"
    path.write_bytes(data)
    return Media(path, "image/png" if png else "image/jpeg")


def _said(pieces: Sequence[Piece]) -> str:
    said = []
    for piece in pieces:
        match piece:
            case Pause():
                continue
            case Recording() | Spoken():
                said.append(piece.text)
            case text:
                said.append(text)
    return " ".join(filter(None, said))


def _actions(turn: Turn) -> Iterable[str]:
    if turn.resume:
        yield "comes back"
    if turn.interrupts is not None:
        yield f"interrupts after {turn.interrupts:g} s"
    for piece in turn.pieces:
        if isinstance(piece, Pause):
            yield f"pauses for {piece.pause:g} s"
    if turn.silent is not None:
        yield f"stays silent for {turn.silent:g} s"
    if turn.hang_up is not None:
        yield f"hangs up after {turn.hang_up:g} s"


def _conditions(conditions: Conditions) -> Iterable[str]:
    if (noise := conditions.noise) is not None:
        yield f"{noise.kind}{'' if noise.kind == 'babble' else ' noise'} at {noise.snr:g} dB"
    if (echo := conditions.echo) is not None:
        yield f"echo at {echo.level:g} dB after {echo.delay:g} s"
    if (loss := conditions.loss) is not None:
        yield f"{loss.rate:.0%} of packets lost{', concealed' if loss.concealed else ''}"
    if conditions.jitter:
        yield f"stalls of up to {conditions.jitter:g} s"
