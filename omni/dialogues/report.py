"""Reports of a run: for a terminal, as JUnit XML, and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from omni.dialogues.report_page import write_html
from omni.dialogues.report_parts import (
    ended_by,
    latencies,
    printable,
    sentence,
    short,
    told,
    turns,
    words,
)
from omni.dialogues.results import DialogueResult, Run, Status, TurnResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["terminal", "write_html", "write_junit"]

_MARKS: dict[Status, tuple[str, str]] = {
    "passed": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "known failure": ("·", "yellow"),
    "unexpected pass": ("!", "cyan"),
}


def terminal(run: Run, console: Console | None = None) -> None:
    """Print a line for each dialogue, everything about what failed, scores, medians and counts."""
    from rich.console import Console

    (console or Console()).print(_lines(run), soft_wrap=True)


def _lines(run: Run) -> Text:
    from rich.text import Text

    shown = Text()

    def line(text: str, style: str = "", indent: int = 0) -> None:
        for part in printable(text).splitlines() or [""]:
            shown.append(" " * indent + part + "\n", style)

    for dialogue in run.dialogues:
        mark, style = _MARKS[dialogue.status]
        shown.append(f" {mark} ", style)
        first = latencies(turns(dialogue)).get("first_audible")
        sound = f", first sound after {first:.0f} ms" if first is not None else ""
        line(f"{dialogue.name} ({dialogue.seconds:.1f} s{sound})", style if mark == "✗" else "")
        if dialogue.known is not None:
            line(dialogue.known, "yellow", 5)
        for problem in ended_by(dialogue):
            line(str(problem), "red", 5)
        for number, repeat in enumerate(dialogue.repeats, 1):
            for turn in repeat.turns:
                if not turn.passed:
                    again = f", repeat {number}" if len(dialogue.repeats) > 1 else ""
                    line(f"turn {turn.index + 1}{again}, {dialogue.path}:{turn.line}", "bold", 5)
                    line("\n".join(told(turn)), "", 7)
        for check in dialogue.checks:
            if check.failed:
                line(sentence(check), "red", 5)
        for score in _scores(dialogue):
            line(score, "dim", 5)
    line("")
    medians = latencies([turn for dialogue in run.dialogues for turn in turns(dialogue)])
    if medians:
        stages = ", ".join(f"{words(stage)} {value:.0f}" for stage, value in medians.items())
        line(f"Medians in ms after the question: {stages}")
    counts = [f"{run.count(status)} {words(status)}" for status in _MARKS if run.count(status)]
    model = run.server.get("model", "an unknown model")
    line(f"{', '.join(counts) or 'nothing was played'}: {model} at {run.url}, {run.seconds:.0f} s")
    shown.rstrip()
    return shown


def _scores(dialogue: DialogueResult) -> Iterator[str]:
    """The soft expectations: their means over the repeats, or as they were scored once."""
    scored = [
        (check.turn, check)
        for check in dialogue.checks
        if check.soft and check.turn is not None and check.score is not None
    ]
    if len(dialogue.repeats) == 1:
        scored += [(t.index, c) for t in turns(dialogue) for c in t.checks if c.soft]
    for index, check in sorted(scored, key=lambda one: one[0]):
        score = check.score or 0.0
        yield f"~ turn {index + 1}: {check.kind} {score:.2f}, wanted {short(check.wanted)}"


def write_junit(run: Run, path: Path) -> None:
    """Write JUnit XML: a suite for each dialogue, a case for each turn in all its repeats.

    A turn whose expectations failed is a failure, one that could not be played is an error, and
    what is known is skipped. Properties of a suite are the server and the turns' medians in ms.
    Raises OSError when the file cannot be written.
    """
    root = ElementTree.Element("testsuites", name="dialogues", time=f"{run.seconds:.3f}")
    for dialogue in run.dialogues:
        root.append(_suite(run, dialogue))
    ElementTree.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _suite(run: Run, dialogue: DialogueResult) -> ElementTree.Element:
    suite = ElementTree.Element(
        "testsuite",
        name=printable(dialogue.name),
        timestamp=run.started[:19],
        time=f"{dialogue.seconds:.3f}",
    )
    properties = ElementTree.SubElement(suite, "properties")

    def note(name: str, value: str) -> None:
        ElementTree.SubElement(properties, "property", name=name, value=printable(value))

    note("file", str(dialogue.path))
    note("tags", " ".join(dialogue.tags))
    note("server", f"{run.server.get('model', 'unknown')} at {run.url}")
    count = max((len(repeat.turns) for repeat in dialogue.repeats), default=0)
    for index in range(count):
        played = [r.turns[index] for r in dialogue.repeats if len(r.turns) > index]
        for stage, value in latencies(played).items():
            note(f"turn {index + 1}: {stage} (ms, median)", f"{value:.0f}")
        _case(suite, dialogue, index, played)
    rest = [c for c in dialogue.checks if c.failed and (c.turn is None or c.turn >= count)]
    if rest:
        case = _named(suite, dialogue, "all turns", 0.0)
        _verdict(case, dialogue, "failure", "\n".join(map(sentence, rest)))
    if ended := list(ended_by(dialogue)):
        case = _named(suite, dialogue, "playing", 0.0)
        _verdict(case, dialogue, "error", "\n".join(map(str, ended)))
    for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    return suite


def _case(
    suite: ElementTree.Element, dialogue: DialogueResult, index: int, played: Sequence[TurnResult]
) -> None:
    """A turn as a case: what went wrong in any of its repeats, and what was said."""
    said = next((turn.user.said or turn.user.typed for turn in played), "").strip()
    name = f"turn {index + 1}" + (f": {short(said, 80)}" if said else "")
    case = _named(suite, dialogue, name, sum(turn.seconds for turn in played))
    errors = [str(turn.error) for turn in played if turn.error is not None]
    failed = [check for turn in played for check in turn.checks if check.failed]
    failed += [check for check in dialogue.checks if check.turn == index and check.failed]
    problems = [
        f"{dialogue.path}:{check.line}: {check.kind}: expected {check.wanted}, got {check.found}"
        for check in failed
    ]
    if errors or problems:
        _verdict(case, dialogue, "error" if errors else "failure", "\n".join(errors + problems))
    log = "\n\n".join("\n".join(told(turn)) for turn in played)
    if log:
        ElementTree.SubElement(case, "system-out").text = printable(log)


def _named(
    suite: ElementTree.Element, dialogue: DialogueResult, name: str, seconds: float
) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite,
        "testcase",
        classname=printable(dialogue.path.name.partition(".")[0]),
        name=printable(name),
        time=f"{seconds:.3f}",
    )


def _verdict(case: ElementTree.Element, dialogue: DialogueResult, kind: str, text: str) -> None:
    if dialogue.status == "known failure":
        kind, text = "skipped", f"{dialogue.known}\n{text}"
    message, text = printable(text.partition("\n")[0]), printable(text)
    ElementTree.SubElement(case, kind, message=message).text = text
