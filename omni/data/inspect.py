"""What data holds: figures for the terminal, and samples to see and hear on one page."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from omni.data.sample import Medium, Message, Sample
from omni.data.shards import read_index, read_shards

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; background: #f6f6f4; color: #222 }
h1 { font-size: 1.2rem } h2 { font-size: 1rem; margin-top: 2rem; word-break: break-all }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem }
article { background: #fff; border-radius: .6rem; padding: .9rem; overflow-wrap: anywhere }
img { max-width: 100%; border-radius: .3rem } audio { width: 100% }
p { margin: .3rem 0 } .user { color: #555 } .assistant { font-weight: 600 }
.rejected { color: #a33; text-decoration: line-through } small { color: #777 }
@media (prefers-color-scheme: dark) {
  body { background: #1c1c1e; color: #eee } article { background: #2a2a2d } .user { color: #bbb }
  .rejected { color: #f99 }
}
"""


def summarise(directory: Path) -> dict[str, Any]:
    """Figures of one folder of shards. Reads every sample; raises as `read_shards` does."""
    index = read_index(directory)
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("modality", "source", "licence", "voice", "about")
    }
    words, seconds, media_bytes, rejected = [], [], 0, 0
    for sample in read_shards(directory):
        counts["modality"][sample.modality] += 1
        for name in ("source", "licence", "voice"):
            if name in sample.meta:
                # A photograph's source goes on with its file.
                counts[name][str(sample.meta[name]).split(":")[0]] += 1
        about = sample.meta.get("about", ())
        counts["about"].update([about] if isinstance(about, str) else about)
        words.append(sum(len(m.text.split()) for m in sample.messages))
        seconds += [sample.meta["seconds"]] if "seconds" in sample.meta else []
        media_bytes += sum(len(m.data) for m in sample.media)
        rejected += sample.rejected is not None
    return {
        "samples": len(words),
        "shards": len(index.shards),
        "bytes": sum(s.bytes for s in index.shards),
        "media_bytes": media_bytes,
        "hours": round(sum(seconds) / 3600, 3),
        "seconds": _spread(seconds),
        "words": _spread(words),
        "rejected": rejected,
        "recipe": dict(index.recipe),
        **{name: dict(c.most_common()) for name, c in counts.items() if c},
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"least": min(values), "median": median(values), "most": max(values)}


def render(directory: Path, summary: dict[str, Any]) -> str:
    """`summarise` as text for a terminal."""
    lines = [
        f"{directory}",
        f"  {summary['samples']} samples, {summary['shards']} shards, "
        f"{summary['bytes'] / 1e6:.1f} MB",
    ]
    if summary["hours"]:
        s = summary["seconds"]
        lines.append(
            f"  {summary['hours']:.2f} h of sound; a sample has {s['least']:.1f} to "
            f"{s['most']:.1f} s, half of them {s['median']:.1f} s or less"
        )
    if summary["words"]:
        w = summary["words"]
        lines.append(f"  {w['least']} to {w['most']} words a sample, median {w['median']:g}")
    for name in ("modality", "source", "about", "voice", "licence"):
        if name in summary:
            shown = [f"{key} {count}" for key, count in list(summary[name].items())[:12]]
            more = len(summary[name]) - len(shown)
            lines.append(f"  {name}: {', '.join(shown)}" + (f", {more} more" if more else ""))
    if summary["rejected"]:
        lines.append(f"  with a rejected answer: {summary['rejected']}")
    return "\n".join(lines)


def contact_sheet(directories: Sequence[Path], count: int) -> str:
    """A page of HTML that needs nothing beside it: ``count`` samples of each folder, at random."""
    parts = []
    for directory in directories:
        shown = [_card(s) for s, _ in zip(read_shards(directory), range(count), strict=False)]
        parts.append(f"<h2>{html.escape(str(directory))}</h2><main>{''.join(shown)}</main>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Samples</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style><h1>Samples</h1>{''.join(parts)}</html>"
    )


def _card(sample: Sample) -> str:
    said = "".join(_turn(m, sample.media) for m in sample.messages)
    if sample.rejected is not None:
        said += f'<p class="rejected">{html.escape(sample.rejected)}</p>'
    keys = ("transcript", "voice", "seconds", "noise", "labels", "source", "licence")
    notes = " · ".join(
        f"{key}: {sample.meta[key]}" for key in keys if sample.meta.get(key) not in (None, "")
    )
    return (
        f"<article>{said}<small>{html.escape(sample.id)} · {html.escape(notes)}</small></article>"
    )


def _turn(message: Message, media: Sequence[Medium]) -> str:
    parts = (
        _medium(media[p]) if isinstance(p, int) else f"<p>{html.escape(p)}</p>"
        for p in message.parts
    )
    return f'<div class="{html.escape(message.role)}">{"".join(parts)}</div>'


def _medium(medium: Medium) -> str:
    kind = f"{medium.kind}/{medium.format}"
    source = f"data:{kind};base64,{base64.b64encode(medium.data).decode()}"
    if medium.kind == "image":
        return f'<img src="{source}" alt="">'
    return f'<{medium.kind} controls preload="none" src="{source}"></{medium.kind}>'
