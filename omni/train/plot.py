"""Line plots as plain SVG, small enough to need no library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 300, 220, 44, 26, 10, 34


class Line(NamedTuple):
    """A curve of (x, y); lines of one name share a colour and an entry in the legend."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]


def plot(panels: Mapping[str, Sequence[Line]], *, x: str, y: str) -> str:
    """One panel for each name, side by side, under one legend."""
    names = {line.name: line.colour for lines in panels.values() for line in lines}
    legend = "".join(
        f'<rect x="{LEFT + 130 * i}" y="8" width="14" height="4" fill="{colour}"/>'
        f'<text x="{LEFT + 20 + 130 * i}" y="14">{escape(name)}</text>'
        for i, (name, colour) in enumerate(names.items())
    )
    drawn = "".join(
        f'<g transform="translate({WIDTH * i} 20)">{_panel(title, lines, x, "" if i else y)}</g>'
        for i, (title, lines) in enumerate(panels.items())
    )
    width, height = WIDTH * len(panels), HEIGHT + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{legend}{drawn}</svg>\n'
    )


def _panel(title: str, lines: Sequence[Line], x: str, y: str) -> str:
    points = [p for line in lines for p in line.points] or [(0.0, 0.0)]
    x0, x1 = min(p[0] for p in points), max(p[0] for p in points)
    y0, y1 = min(p[1] for p in points), max(p[1] for p in points)
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + 1)

    def at(px: float, py: float) -> tuple[float, float]:
        across = LEFT + (px - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (py - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(down, 1)

    parts = [f'<text x="{LEFT}" y="{TOP - 8}" font-weight="bold">{escape(title)}</text>']
    for i in range(5):
        value = y0 + (y1 - y0) * i / 4
        _, down = at(x0, value)
        parts.append(
            f'<path d="M{LEFT} {down}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            f'<text x="{LEFT - 4}" y="{down + 4}" text-anchor="end">{value:.3g}</text>'
        )
    for value in (x0, (x0 + x1) / 2, x1):
        across, down = at(value, y0)
        parts.append(f'<text x="{across}" y="{down + 14}" text-anchor="middle">{value:g}</text>')
    for line in lines:
        path = " ".join(f"{a},{b}" for a, b in (at(*p) for p in line.points))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="1.6"/>'
        )
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>')
    if y:
        middle = HEIGHT / 2
        parts.append(
            f'<text x="10" y="{middle}" transform="rotate(-90 10 {middle})" '
            f'text-anchor="middle">{escape(y)}</text>'
        )
    return "".join(parts)
