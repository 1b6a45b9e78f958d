"""Play a dialogue against the real server over tiny parts: speech is beeps, hearing is loudness."""

import textwrap
from pathlib import Path

from http_server import Served

from omni.dialogues.results import DialogueResult, Run
from omni.dialogues.runner import run
from omni.dialogues.service import Service


def write(folder: Path, text: str, name: str = "a") -> Path:
    path = folder / f"{name}.dialogue.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


async def play_all(url: str, folder: Path, *paths: Path, **options) -> Run:
    async with Service(url, None, folder / "run") as service:
        return await run(paths, service, **options)


async def play(served: Served, folder: Path, text: str, **options) -> DialogueResult:
    """The result of the one dialogue in ``text``."""
    played = await play_all(served.url, folder, write(folder, text), **options)
    (result,) = played.dialogues
    return result


def problems(result: DialogueResult) -> list[str]:
    """Everything that went wrong, as text."""
    found = [str(result.error)] if result.error else []
    for repeat in result.repeats:
        found += [str(repeat.error)] if repeat.error else []
        for turn in repeat.turns:
            found += [str(turn.error)] if turn.error else []
            found += [f"{c.kind}: {c.found}" for c in turn.checks if c.failed]
    return found + [f"{c.kind}: {c.found}" for c in result.checks if c.failed]
