"""Helpers of the end-to-end tests."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
DATA = Path(__file__).parent / "data"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(log: Path, *options: str, port: int | None = None) -> tuple[subprocess.Popen, str]:
    """Run ``omni serve`` and wait until it is ready."""
    port = port or free_port()
    command = [sys.executable, "-m", "omni.cli", "serve", "--port", str(port)]
    # Nothing of a test stays in the user's directory; a test that keeps says where.
    command += [*(() if "--data-dir" in options else ("--keep", "nothing")), *options]
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


@contextlib.contextmanager
def chromium(*arguments: str):
    """A headless Chromium with a fake microphone and camera; skips, in CI fails, without one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse("no Chromium found; set CHROMIUM to its path")
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                *arguments,
            ],
        )
        yield browser
        browser.close()
