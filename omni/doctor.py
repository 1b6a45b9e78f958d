"""``omni doctor``: what works on this machine and what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from omni.weights import DEFAULT_NAMES, home, status

_GB = 1e9


@dataclass(frozen=True)
class Check:
    """One finding. A ``problem`` keeps the assistant from running; a ``note`` does not."""

    name: str
    state: Literal["ok", "note", "problem"]
    finding: str


def examine() -> list[Check]:
    """Run every check; none of them raises."""
    checks: list[Callable[[], Check]] = [
        _python, _machine, _memory, _disk, _packages, _torch, _gpu, _weights, _port, _languages,
    ]  # fmt: skip
    report = []
    for check in checks:
        try:
            report.append(check())
        except Exception as error:
            name = check.__name__.strip("_")
            report.append(Check(name, "problem", f"{type(error).__name__}: {error}"))
    return report


def _python() -> Check:
    version = platform.python_version()
    ok = sys.version_info >= (3, 11)
    return Check("Python", "ok" if ok else "problem", version if ok else f"{version}; use 3.11+")


def _machine() -> Check:
    cores = os.cpu_count() or 1
    finding = f"{cores} cores, {platform.machine()}, {platform.system()}"
    return Check("Machine", "ok" if cores >= 2 else "note", finding)


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    finding = f"{memory.available / _GB:.1f} GB free of {memory.total / _GB:.1f} GB"
    enough = memory.available > 4 * _GB
    return Check("Memory", "ok" if enough else "note", finding if enough else f"{finding}; needs 4")


def _disk() -> Check:
    folder = home()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    finding = f"{free / _GB:.1f} GB free in {home()}"
    missing = sum(s.size - s.present for s in status(DEFAULT_NAMES) if s.state != "ready")
    # Twice: the language model is converted once beside its download.
    ok = free > 2.5 * missing
    return Check("Disk", "ok" if ok else "problem", finding if ok else f"{finding}; free some")


def _packages() -> Check:
    names = ("torch", "transformers", "ctranslate2", "onnxruntime", "gradio", "fastapi", "av")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return Check("Packages", "ok", ", ".join(found))


def _torch() -> Check:
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    engines = ", ".join(torch.backends.quantized.supported_engines)
    return Check("Kernels", "ok", f"{capability}; quantised engines: {engines}")


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("GPU", "ok", torch.cuda.get_device_name(0))
    return Check("GPU", "note", "none; not needed")


def _weights() -> Check:
    states = status(DEFAULT_NAMES)
    missing = [s.name for s in states if s.state != "ready"]
    if not missing:
        return Check("Weights", "ok", "all there")
    return Check(
        "Weights", "note", f"not there yet: {', '.join(missing)} (`omni models pull` fetches them)"
    )


def _port() -> Check:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 7860)) == 0:
            return Check("Port 7860", "note", "in use; `omni demo --port` chooses another")
    return Check("Port 7860", "ok", "free")


def _languages() -> Check:
    from decoders.kokoro import espeak_library

    spoken = "English and Chinese are spoken"
    if espeak_library() is not None:
        return Check("Voices", "ok", f"{spoken}; so are other languages, through espeak-ng")
    return Check(
        "Voices",
        "note",
        f"{spoken}; for other languages: pip install 'omni-assistant[languages]'",
    )
