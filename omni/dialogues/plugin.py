"""The pytest plugin: ``*.dialogue.yaml`` files are test files, and every turn is a test.

The server is ``--omni-url``, or is started once in this process when the first dialogue is played.
Loading this module imports nothing but pytest: it costs nothing where there are no dialogues.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from omni.dialogues.reading import Script
    from omni.dialogues.results import Check, DialogueResult, TurnResult

SUFFIX = ".dialogue.yaml"
_STAGE = pytest.StashKey["Stage"]()


class Failed(Exception):
    """A turn that did not go as it should; the message says which expectations failed."""


class Stage:
    """Where dialogues are played: a server and a folder, from the first dialogue to the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._url: str | None = config.getoption("--omni-url")
        self._key: str | None = config.getoption("--omni-api-key")
        self._repeats: int | None = config.getoption("--omni-repeats")
        self._stack = contextlib.ExitStack()
        self._folder: Path | None = None

    def close(self) -> None:
        """End the server, if one was started, and delete the recordings."""
        self._stack.close()

    def play(self, script: Script) -> DialogueResult:
        """Play a dialogue to its end."""
        from omni.dialogues.runner import play
        from omni.dialogues.service import Service, local_server

        if self._folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="omni-dialogues-")
            self._folder = Path(self._stack.enter_context(temporary))
        if self._url is None:
            self._url = self._stack.enter_context(local_server())
        url, folder = self._url, self._folder

        async def played() -> DialogueResult:
            async with Service(url, self._key, folder) as service:
                return await play(script, service, self._repeats)

        return asyncio.run(played())


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of dialogues."""
    group = parser.getgroup("omni", "Omni dialogues (*.dialogue.yaml)")
    group.addoption(
        "--omni-url",
        metavar="URL",
        help="server to play dialogues against; default: one is started in this process",
    )
    group.addoption("--omni-api-key", metavar="KEY", help="API key of that server")
    group.addoption(
        "--omni-repeats", type=int, metavar="N", help="play each dialogue N times, not as it says"
    )


def pytest_configure(config: pytest.Config) -> None:
    """A stage for this run; nothing is started yet."""
    config.addinivalue_line("markers", "dialogue: a turn of a *.dialogue.yaml file")
    config.stash[_STAGE] = Stage(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what was started."""
    if (stage := config.stash.get(_STAGE, None)) is not None:
        stage.close()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Dialogues are test files."""
    if file_path.name.endswith(SUFFIX):
        made: pytest.Collector = DialogueFile.from_parent(parent, path=file_path)
        return made
    return None


class DialogueFile(pytest.File):
    """One dialogue; it is played when the first of its turns is run."""

    script: Script
    _result: DialogueResult | None = None

    def collect(self) -> Iterator[pytest.Item]:
        """One item for each turn, with the tags as markers; or one that says what is wrong."""
        from omni.dialogues.reading import ScriptError, read

        try:
            self.script = read(self.path)
        except ScriptError as error:
            yield BrokenItem.from_parent(self, name="format", error=error)
            return
        for tag in self.script.dialogue.tags:
            self.config.addinivalue_line("markers", f"{tag}: dialogues with this tag")
        for index in range(len(self.script.dialogue.turns)):
            item = TurnItem.from_parent(self, name=f"turn {index + 1}", index=index)
            for tag in self.script.dialogue.tags:
                item.add_marker(tag)
            item.add_marker(pytest.mark.dialogue)
            yield item

    @property
    def result(self) -> DialogueResult:
        """What playing it gave; it is played once."""
        if self._result is None:
            self._result = self.config.stash[_STAGE].play(self.script)
        return self._result


class BrokenItem(pytest.Item):
    """A file that is no dialogue."""

    def __init__(self, *, error: Exception, **options: Any) -> None:
        super().__init__(**options)
        self._error = error

    def runtest(self) -> None:
        """Fail with all problems of the file."""
        raise Failed(str(self._error))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The problems, without a traceback."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The file."""
        return self.path, 0, f"{self.path.name}: {self.name}"


class TurnItem(pytest.Item):
    """One turn, in all repeats of its dialogue."""

    parent: DialogueFile

    def __init__(self, *, index: int, **options: Any) -> None:
        super().__init__(**options)
        self._index = index

    def runtest(self) -> None:
        """Fail with the expectations that failed; what is known is an expected failure."""
        result = self.parent.result
        problems = "\n".join(_problems(result, self._index))
        if problems and result.known is not None:
            pytest.xfail(f"{result.known}\n{problems}")
        if problems:
            raise Failed(problems)
        last = self._index == len(self.parent.script.dialogue.turns) - 1
        if last and result.known is not None and result.passed:
            self.add_marker(pytest.mark.xfail(reason=result.known, strict=False))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What failed, without a traceback; bugs of the plugin keep theirs."""
        if isinstance(excinfo.value, Failed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The file, the line of the turn, and a title."""
        line = self.parent.script.line("turns", self._index)
        return self.path, line - 1, f"{self.parent.script.name}: {self.name}"


def _problems(result: DialogueResult, index: int) -> Iterator[str]:
    """A sentence for everything that went wrong in a turn."""
    for number, repeat in enumerate(result.repeats, 1):
        again = f"repeat {number}: " if len(result.repeats) > 1 else ""
        if index < len(repeat.turns):
            for sentence in _sentences(result, repeat.turns[index]):
                yield again + sentence
        else:
            before = [str(turn.error) for turn in repeat.turns if turn.error is not None]
            why = str(repeat.error) if repeat.error is not None else before[-1]
            yield f"{again}was not played: {why}"
    for check in result.checks:
        if check.turn == index and check.failed:
            yield _sentence(result, check)


def _sentences(result: DialogueResult, turn: TurnResult) -> Iterator[str]:
    if turn.error is not None:
        yield str(turn.error)
    for check in turn.checks:
        if check.failed:
            yield _sentence(result, check)


def _sentence(result: DialogueResult, check: Check) -> str:
    return f"{result.path}:{check.line}: {check.kind}: expected {check.wanted}, got {check.found}"
