"""What can be done before a dialogue begins: speech, noise, pictures and settings."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from string import Template
from typing import Any

import numpy as np

from omni.client import load_audio
from omni.client.media import WIRE_RATE, WireAudio, image_to_wire, pcm16_to_float
from omni.dialogues import sound
from omni.dialogues.format import (
    Clip,
    Dialogue,
    Frames,
    Noise,
    Pause,
    Picture,
    Piece,
    Recording,
    Shown,
    Spoken,
    Turn,
)
from omni.dialogues.reading import Script
from omni.dialogues.service import Service
from omni.errors import MediaError
from omni.types import Pcm

_NOISE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a turn needs: sound at 24 kHz, noise of RMS 1, and picture files with their moments."""

    speech: Pcm
    noise: Pcm | None
    frames: list[tuple[float, bytes]]


async def prepare(script: Script, service: Service, seed: int) -> list[Prepared]:
    """Make everything that takes time before it is measured; one for each turn.

    Raises Failure for a voice that the server does not have and for media that cannot be read.
    """
    dialogue = script.dialogue
    noises: dict[str, Pcm] = {}
    made = []
    for index, turn in enumerate(dialogue.turns):
        parts = [np.zeros(0, np.float32)]
        for number, piece in enumerate(turn.pieces):
            with script.blamed("turns", index, "say", number):
                parts.append(await _speech(service, dialogue, turn, piece))
        frames = []
        for number, shown in enumerate(turn.shown):
            with script.blamed("turns", index, "show", number):
                frames += await asyncio.to_thread(_frames, shown)
        noise = (turn.conditions or dialogue.conditions).noise
        if noise is not None and noise.kind not in noises:
            with script.blamed("turns", index, "conditions", "noise"):
                noises[noise.kind] = await _noise(service, noise, seed)
        frames.sort(key=lambda frame: frame[0])
        background = noises[noise.kind] if noise is not None else None
        made.append(Prepared(np.concatenate(parts), background, frames))
    return made


async def _speech(service: Service, dialogue: Dialogue, turn: Turn, piece: Piece) -> Pcm:
    if isinstance(piece, Pause):
        return np.zeros(round(piece.pause * WIRE_RATE), np.float32)
    if isinstance(piece, Recording):
        chunk = await asyncio.to_thread(load_audio, piece.recording)
        stream = WireAudio()
        return pcm16_to_float(stream.feed(chunk) + stream.flush())
    spoken = piece if isinstance(piece, Spoken) else Spoken(text=piece)
    voice = spoken.voice or turn.voice or dialogue.user.voice
    speed = spoken.speed or turn.speed or dialogue.user.speed
    return await service.speak(spoken.text, voice, speed)


async def _noise(service: Service, noise: Noise, seed: int) -> Pcm:
    if noise.kind == "babble":
        return await service.babble(seed)
    return sound.noise(noise.kind, _NOISE_SECONDS, np.random.default_rng(seed))


def _frames(shown: Shown) -> list[tuple[float, bytes]]:
    """What is shown, as files of pictures with the seconds at which they are."""
    match shown:
        case Clip():
            return clip_frames(shown)
        case Frames():
            return [
                (shown.at + count * shown.every, image_to_wire(path)[0])
                for count, path in enumerate(shown.frames)
            ]
        case Picture():
            return [(shown.at, image_to_wire(shown.picture)[0])]
        case path:
            return [(0.0, image_to_wire(path)[0])]


def clip_frames(clip: Clip) -> list[tuple[float, bytes]]:
    """Pictures of a video, one every ``every`` seconds, with the moments at which they are shown.

    Raises MediaError when it cannot be read.
    """
    import av  # FFmpeg: loaded only for clips

    found: list[tuple[float, bytes]] = []
    try:
        with av.open(str(clip.clip)) as container:
            if not container.streams.video:
                raise MediaError(f"{clip.clip} has no pictures; expected a video", param="clip")
            for frame in container.decode(video=0):
                if (frame.time or 0) >= len(found) * clip.every:
                    data, _ = image_to_wire(frame.to_image())  # type: ignore[no-untyped-call]
                    found.append((clip.at + len(found) * clip.every, data))
    except av.FFmpegError as error:
        raise MediaError(
            f"{clip.clip} cannot be read as a video ({error}); expected MP4, WebM or the like",
            param="clip",
        ) from error
    return found


def fill(template: Any, arguments: dict[str, Any]) -> Any:
    """Put arguments in the place of ``$name``, in all texts of a value; unknown names stay."""
    if isinstance(template, str):
        return Template(template).safe_substitute(arguments)
    if isinstance(template, dict):
        return {key: fill(value, arguments) for key, value in template.items()}
    if isinstance(template, list):
        return [fill(value, arguments) for value in template]
    return template


def wire_session(dialogue: Dialogue) -> dict[str, Any]:
    """The settings of ``session.update`` that a dialogue asks for; what it does not name is out."""
    wanted = dialogue.session
    hearing: dict[str, Any] = {}
    speaking = {"voice": wanted.voice, "speed": wanted.speed}
    if isinstance(wanted.turn_detection, dict):
        hearing["turn_detection"] = wanted.turn_detection
    elif wanted.turn_detection is not None:
        kind = wanted.turn_detection
        hearing["turn_detection"] = None if kind == "none" else {"type": kind}
    if wanted.language is not None:
        hearing["transcription"] = {"language": wanted.language}
    if wanted.noise_reduction is not None:
        hearing["noise_reduction"] = {"type": wanted.noise_reduction}
    tools = [{"type": "function", **t.model_dump(exclude={"gives"})} for t in wanted.tools]
    audio = {"input": hearing, "output": {k: v for k, v in speaking.items() if v is not None}}
    plain = {
        "instructions": wanted.instructions,
        "tools": tools or None,
        "tool_choice": wanted.tool_choice,
        "seed": wanted.seed,
        "max_output_tokens": wanted.max_output_tokens,
        "audio": {side: value for side, value in audio.items() if value} or None,
    }
    return {
        "output_modalities": [wanted.modality],
        "temperature": wanted.temperature,
        **{name: value for name, value in plain.items() if value is not None},
    }
