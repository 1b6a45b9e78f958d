"""The snippets of docs/sdk.md run as they stand, against the scripted server."""

import ast
import asyncio
import inspect
import re
import shutil
import subprocess

import numpy as np
import pytest
from realtime_fake import FakeRealtime, call, words

from omni.client import save_wav
from omni.types import AudioChunk
from support import DATA

ROOT = DATA.parent.parent
TEXT = (ROOT / "docs" / "sdk.md").read_text()
ADDRESS = "http://127.0.0.1:7860"


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


class Talkative(FakeRealtime):
    """Answers spoken turns, too: at the tenth piece of sound."""

    async def take(self, socket, session, event):
        await super().take(socket, session, event)
        if len(self.of_type("input_audio_buffer.append")) == 10:
            await self.respond(socket, session, {})


@pytest.mark.parametrize("snippet", snippets("python"))
async def test_python_snippets_run(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_wav("question.wav", AudioChunk(np.full(12_000, 0.1, np.float32), 24_000))
    server = Talkative()
    server.answers = [[words("Yes.", sound=True)]]
    if "tools=" in snippet:
        server.answers.insert(0, [call("weather", city="Rome")])
    async with server.listening() as url:
        code = compile(
            snippet.replace(ADDRESS, url), "sdk.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, {"__name__": "snippet"})
        else:
            await asyncio.to_thread(exec, code, {"__name__": "snippet"})
    assert server.of_type("response.create") or server.of_type("input_audio_buffer.append")


async def test_the_javascript_snippet_runs(tmp_path):
    if not (node := shutil.which("node")):
        pytest.skip("node is not installed")
    server = FakeRealtime()
    server.answers = [[call("weather", city="Rome")], [words("Sunny.")], [words("Rainy.")]]
    async with server.listening() as url:
        (snippet,) = snippets("js")
        module = (ROOT / "demo" / "static" / "omni-client.js").as_uri()
        code = snippet.replace("/static/omni/omni-client.js", module).replace(ADDRESS, url)
        code += "\nomni.on('response.done', () => omni.close());\n"
        (tmp_path / "snippet.mjs").write_text(code)
        result = await asyncio.to_thread(
            subprocess.run,
            [node, "--experimental-websocket", "--no-warnings", tmp_path / "snippet.mjs"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert result.returncode == 0, result.stderr
    assert "Sunny." in result.stdout
    assert "sunny in Rome" in result.stdout
    assert "Rainy." in result.stdout
