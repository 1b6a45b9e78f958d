"""``omni bench voice``: recorded questions, played in real time over the WebSocket.

Everything is timed by the client, from the moment at which the last audible sample of the question
was spoken, so it holds for any server that speaks the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import httpx
import numpy as np
import psutil

from omni.client import AsyncOmniClient, Event, load_audio, speak_in_real_time
from omni.errors import OmniError
from omni.types import AudioChunk
from omni.wer import edits, words

STAGES = ("silence", "turn decision", "transcript", "first token", "first audio", "first audible")
QUESTIONS_PER_SESSION = 4
ANSWER_TIMEOUT = 60.0
READY_TIMEOUT = 600.0
AUDIBLE = 0.01
"""Amplitude from which a sample counts as audible (-40 dB of full scale)."""


@dataclass
class Turn:
    """One question: stages in seconds since the end of speech."""

    text: str
    heard: str = ""
    answer: str = ""
    onset: float | None = None
    """Seconds from the first sound of the question to the report of speech."""
    stages: dict[str, float] = field(default_factory=dict)
    tokens_per_second: float | None = None
    splits: int = 0
    """How often a pause within the question was taken for its end."""


def questions() -> list[tuple[str, AudioChunk]]:
    """The recorded questions with their texts."""
    folder = resources.files("omni.bench")
    listed = json.loads(folder.joinpath("questions.json").read_text(encoding="utf-8"))
    found = []
    for entry in listed:
        with resources.as_file(folder.joinpath("clips", f"{entry['clip']}.flac")) as path:
            found.append((entry["text"], load_audio(path)))
    return found


def run(
    *, url: str | None = None, model: str = "", quantization: str = "auto", count: int = 24
) -> dict[str, Any]:
    """Play ``count`` questions; start a server for it unless ``url`` names one."""
    clips = questions()[:count]
    with contextlib.ExitStack() as stack:
        server: dict[str, Any] = {}
        if url is None:
            url, server = stack.enter_context(_server(model, quantization))
        turns = asyncio.run(_play(url, clips))
        if "process" in server:
            process: psutil.Process = server.pop("process")
            memory = process.memory_info()
            server["memory_gb"] = round(memory.rss / 1e9, 2)
        health = httpx.get(f"{url}/health").json()
    return summary(turns) | {"model": health.get("model"), "server": server}


@contextlib.contextmanager
def _server(model: str, quantization: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--quantization", quantization]
    if model:
        options += ["--model", model]
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "omni.cli", "serve", "--keep", "nothing", *options],
        env=dict(os.environ),
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while not _ready(url):
            if process.poll() is not None:
                raise OmniError("the server ended before it was ready; its message is above")
            if time.monotonic() - began > READY_TIMEOUT:
                raise OmniError(f"the server was not ready after {READY_TIMEOUT:.0f} s")
            time.sleep(0.05)
        ready = round(time.monotonic() - began, 1)
        yield url, {"ready_after_s": ready, "process": psutil.Process(process.pid)}
    finally:
        process.terminate()
        process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


async def _play(url: str, clips: Sequence[tuple[str, AudioChunk]]) -> list[Turn]:
    turns: list[Turn] = []
    quiet = not sys.stderr.isatty()
    for begin in range(0, len(clips), QUESTIONS_PER_SESSION):
        async with AsyncOmniClient(url) as client:
            events = client.events()
            for text, clip in clips[begin : begin + QUESTIONS_PER_SESSION]:
                turns.append(await asyncio.wait_for(_turn(client, events, text, clip), 120))
                if not quiet:
                    print(f"\r{len(turns)}/{len(clips)} questions", end="", file=sys.stderr)
    if not quiet:
        print(file=sys.stderr)
    return turns


async def _turn(client: AsyncOmniClient, events: Any, text: str, clip: AudioChunk) -> Turn:
    speaking = asyncio.create_task(speak_in_real_time(client, clip, tail_silence=ANSWER_TIMEOUT))
    seen: dict[str, Event] = {}
    words: list[Event] = []
    began = time.monotonic()
    turn = Turn(text)
    log: list[tuple[str, float]] = []
    try:
        async for event in events:
            log.append((event.type, round(event.received - began, 2)))
            if event.type == "input_audio_buffer.speech_started":
                # The question was taken for finished too early, and went on.
                turn.splits += "input_audio_buffer.speech_stopped" in seen
                words.clear()
                first = seen.get(event.type, event)
                seen = {event.type: first}
            seen.setdefault(event.type, event)
            if event.type == "conversation.item.input_audio_transcription.completed":
                turn.heard = f"{turn.heard} {event.transcript}".strip()
                seen[event.type] = event  # of a question in two parts, the last one counts
            elif event.type == "response.output_audio_transcript.delta":
                words.append(event)
            elif event.type == "response.done" and event.response["status"] != "cancelled":
                done = event
                break
            if time.monotonic() - began > ANSWER_TIMEOUT:
                raise OmniError(f"no answer to {text!r} within {ANSWER_TIMEOUT:.0f} s")
    finally:
        speaking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await speaking
    if "input_audio_buffer.speech_stopped" not in seen:
        raise OmniError(f"{text!r} was answered before it was spoken; events: {log}")
    spoken_until = began + clip.seconds
    moments = {
        "turn decision": seen["input_audio_buffer.speech_stopped"].received,
        "transcript": seen["conversation.item.input_audio_transcription.completed"].received,
        "first token": words[0].received,
    }
    sound = seen.get("response.output_audio.delta")
    if sound is not None:  # an answer in a language without a voice stays silent
        pcm = sound.audio_chunk().pcm
        loud = np.flatnonzero(np.abs(pcm) > AUDIBLE)
        moments["first audio"] = sound.received
        moments["first audible"] = sound.received + (loud[0] if len(loud) else len(pcm)) / 24_000
    turn.stages = {name: at - spoken_until for name, at in moments.items()}
    stamps = done.response.get("timings") or {}
    if "silence" in stamps:
        turn.stages["silence"] = stamps["silence"] / 1000
    turn.onset = seen["input_audio_buffer.speech_started"].received - began
    turn.answer = "".join(event.delta for event in words)
    # A delta is a token, but for characters of several tokens.
    took = words[-1].received - words[0].received
    if len(words) > 5 and took > 0:
        turn.tokens_per_second = (len(words) - 1) / took
    return turn


def summary(turns: Sequence[Turn]) -> dict[str, Any]:
    """Median and 95th percentile of every stage, in seconds, and what was heard and said."""
    stages = {}
    for stage in STAGES:
        values = [turn.stages[stage] for turn in turns if stage in turn.stages]
        if values:
            stages[stage] = _spread(values)
    onsets = [turn.onset for turn in turns if turn.onset is not None]
    rates = [turn.tokens_per_second for turn in turns if turn.tokens_per_second is not None]
    wrong = sum(edits(words(turn.text), words(turn.heard)) for turn in turns)
    return {
        "questions": len(turns),
        "stages_s": stages,
        "speech_started_s": _spread(onsets),
        "first_turn_first_audible_s": round(turns[0].stages["first audible"], 3),
        "silent_answers": sum("first audio" not in turn.stages for turn in turns),
        "tokens_per_second": round(statistics.median(rates), 1) if rates else None,
        "split_turns": sum(turn.splits > 0 for turn in turns),
        "word_error_rate": round(wrong / sum(len(words(turn.text)) for turn in turns), 4),
        "turns": [
            {
                "asked": t.text,
                "heard": t.heard,
                "answered": t.answer,
                "stages_s": {k: round(v, 3) for k, v in t.stages.items()},
            }
            for t in turns
        ],
    }


def render(result: dict[str, Any]) -> str:
    """The result as a table."""
    lines = [
        f"{result['questions']} questions, {result['model']}; seconds from the end of speech",
        f"{'':16}{'median':>8}{'95 %':>8}",
    ]
    lines += [
        f"{stage:16}{spread['median']:8.2f}{spread['p95']:8.2f}"
        for stage, spread in result["stages_s"].items()
    ]
    started = result["speech_started_s"]
    lines.append(
        f"speech reported {started['median']:.2f} s after its onset (95 %: {started['p95']:.2f}); "
        f"first turn {result['first_turn_first_audible_s']:.2f} s to audible sound"
    )
    lines.append(
        f"decoding {result['tokens_per_second']} tokens/s; "
        f"word error rate {result['word_error_rate']:.1%}; "
        f"{result['split_turns']} questions cut at a pause within; "
        f"{result['silent_answers']} answers in a language without a voice"
    )
    server = result["server"]
    if server:
        lines.append(
            f"server ready after {server['ready_after_s']} s, {server['memory_gb']} GB of memory"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "p95": round(float(np.percentile(values, 95)), 3),
    }
