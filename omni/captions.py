"""Transcripts as subtitles, and with all their times."""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterable
from typing import Any

from omni.types import Segment, Transcript


def srt(segments: Iterable[Segment]) -> str:
    """SubRip."""
    cues = (
        f"{number}\n{_clock(s.start, ',')} --> {_clock(s.end, ',')}\n{s.text}\n"
        for number, s in enumerate(segments, 1)
    )
    return "\n".join(cues)


def vtt(segments: Iterable[Segment]) -> str:
    """WebVTT."""
    cues = (
        f"{_clock(s.start, '.')} --> {_clock(s.end, '.')}\n{_escaped(s.text)}\n" for s in segments
    )
    return "\n".join(("WEBVTT\n", *cues))


def verbose(heard: Transcript, granularities: Collection[str]) -> dict[str, Any]:
    """OpenAI's ``verbose_json``."""
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": heard.language,
        "duration": round(heard.seconds, 2),
        "text": heard.text,
    }
    if "segment" in granularities:
        body["segments"] = [_segment(i, s) for i, s in enumerate(heard.segments)]
    if "word" in granularities:
        body["words"] = [{"word": w.text, "start": w.start, "end": w.end} for w in heard.words]
    return {**body, "usage": {"type": "duration", "seconds": round(heard.seconds, 2)}}


def _segment(index: int, segment: Segment) -> dict[str, Any]:
    raw = segment.text.encode()
    return {
        "id": index,
        "seek": int(segment.start * 100),
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(math.log(max(segment.confidence, 1e-6)), 4),
        "compression_ratio": round(len(raw) / len(zlib.compress(raw)), 4),
        "no_speech_prob": round(segment.no_speech, 4),
    }


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
