"""The dialogues that Omni ships: sound files, and a fast selection that is played on every run."""

import re
import subprocess
import sys

import pytest

from omni.dialogues.command import LIBRARY
from omni.dialogues.reading import find, read
from support import DATA

SCRIPTS = [read(path) for path in find([LIBRARY])]
MEDIA = [path for path in (LIBRARY / "media").iterdir() if path.name != "SOURCES.txt"]
PROMISES = [
    "questions",
    "corrections",
    "interruptions",
    "hesitation",
    "noise",
    "echo",
    "network",
    "silence",
    "backchannels",
    "seeing",
    "typed",
    "languages",
    "settings",
    "tools",
    "memory",
    "hearing",
    "resume",
    "hostile",
    "latency",
]


def test_the_library_covers_what_is_promised():
    assert len(SCRIPTS) >= 30
    tags = {tag for script in SCRIPTS for tag in script.dialogue.tags}
    assert tags == {*PROMISES, "fast"}
    assert len({script.name for script in SCRIPTS}) == len(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.path.name.split(".")[0])
def test_every_dialogue_expects_something_that_can_fail(script):
    hard = [e for t in script.dialogue.turns for e in t.expectations if not e.soft]
    assert any(e.model_fields_set - {"soft", "spoken", "language"} for e in hard) or len(hard) > 1


def test_the_media_are_used_and_their_sources_named():
    texts = "".join(script.path.read_text(encoding="utf-8") for script in SCRIPTS)
    sources = (LIBRARY / "media" / "SOURCES.txt").read_text(encoding="utf-8")
    for path in MEDIA:
        assert f"media/{path.name}" in texts, path
        assert path.name in sources, path
    assert sum(path.stat().st_size for path in MEDIA) < 1e6


@pytest.mark.e2e
def test_the_fast_selection_passes_through_the_pytest_plugin(server, tmp_path):
    command = [sys.executable, "-m", "pytest", "-p", "omni.dialogues.plugin", "-m", "fast"]
    command += ["-q", "-rX", f"--omni-url={server}", str(LIBRARY)]
    ran = subprocess.run(command, cwd=DATA.parent.parent, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    fast = [script.dialogue for script in SCRIPTS if "fast" in script.dialogue.tags]
    assert 8 <= len(fast) <= 10
    assert not any(dialogue.known for dialogue in fast)
    assert re.search(rf"\b{sum(len(d.turns) for d in fast)} passed", ran.stdout), ran.stdout
