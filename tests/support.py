"""Helpers of the end-to-end tests."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

DATA = Path(__file__).parent / "data"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(log: Path, *options: str) -> tuple[subprocess.Popen, str]:
    """Run ``omni serve`` and wait until it is ready."""
    port = free_port()
    command = [sys.executable, "-m", "omni.cli", "serve", "--port", str(port), *options]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=DATA.parent.parent, env=dict(os.environ)
        )
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 900  # the first start downloads the weights
    while True:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return process, url
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(f"the server did not start:\n{log.read_text()}")
        time.sleep(0.1)
