"""The figures as a table to read, as Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from omni.evaluate.run import Row


def line(row: Row) -> str:
    """One figure, as soon as it is there."""
    return f"{row.part}: {row.measure}, {row.bridge}: {_cell(row)}"


def render(rows: Sequence[Row]) -> str:
    """A table for the terminal."""
    table = _table(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    part = ""
    for cells, row in zip(table, [None, *_first(rows)], strict=True):
        if row is not None and row.part != part:
            part = row.part
            lines.append("")
        padded = [cells[0].ljust(widths[0])]
        padded += [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def markdown(rows: Sequence[Row]) -> str:
    """The same for documents."""
    head, *body = [f"| {' | '.join(cells)} |" for cells in _table(rows)]
    return "\n".join([head, "|---|" + "---:|" * (head.count("|") - 2), *body])


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every figure by itself, shares from 0 to 1, for programs."""
    return [asdict(row) for row in rows]


def _table(rows: Sequence[Row]) -> list[list[str]]:
    bridges = list(dict.fromkeys(row.bridge for row in rows))
    cells = {(row.part, row.measure, row.bridge): row for row in rows}
    table = [["measure (in brackets: 95 % confidence)", "samples", *bridges]]
    for first in _first(rows):
        found = [cells.get((first.part, first.measure, bridge)) for bridge in bridges]
        samples = first.figure.samples if first.figure else 0
        name = f"{first.part}: {first.measure}{' ↓' if first.cost else ''}"
        table.append([name, str(samples), *map(_cell, found)])
    return table


def _first(rows: Sequence[Row]) -> list[Row]:
    """One row of each measure, in order."""
    return list({(row.part, row.measure): row for row in reversed(rows)}.values())[::-1]


def _cell(row: Row | None) -> str:
    if row is None or row.figure is None:
        return "–"
    f = row.figure
    bad = f", {row.bad} bad" if row.bad else ""
    if row.unit == "%":
        return f"{100 * f.value:.1f} % ({100 * f.low:.1f}–{100 * f.high:.1f}){bad}"
    return f"{f.value:.0f} ms ({f.low:.0f}–{f.high:.0f}){bad}"
