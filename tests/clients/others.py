"""What the tests of other people's clients share: their programs, run against the server."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from omni.client import load_audio
from support import DATA

HERE = Path(__file__).parent


def lacking(what: str) -> None:
    """Skip for want of a client; in CI that is a failure."""
    refuse = pytest.fail if os.environ.get("CI") else pytest.skip
    refuse(what)


def pcm24(name: str) -> bytes:
    """A recording of the tests as 16-bit mono at 24 kHz."""
    clip = load_audio(DATA / "speech" / name)
    at = np.arange(0, len(clip.pcm), clip.sample_rate / 24_000)
    pcm = np.interp(at, np.arange(len(clip.pcm)), clip.pcm)
    return (pcm * 32767).astype("<i2").tobytes()


def run(*command: str | Path, seconds: float = 300.0) -> str:
    """Run a client to its end and give back the last line that it printed."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=seconds
    )
    lines = done.stdout.strip().splitlines()
    assert lines, f"exit code {done.returncode}:\n{done.stderr[-4000:]}"
    return lines[-1]
