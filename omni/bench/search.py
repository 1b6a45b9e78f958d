"""How long a search takes, against the number of items.

The items' vectors are those of real names with noise, so that they lie in clusters as real ones do;
the requests are sentences that have not been asked before, read and embedded as a user's are.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil

from omni.search.index import Index
from omni.search.request import COLOURS
from omni.search.store import Store

_BATCH = 10_000
_NOISE = 0.6
"""Length of the noise, beside vectors of length 1."""
_LENGTHS = ("long", "short", "floral", "striped", "new", "used")


def run(
    counts: Sequence[int], requests: int = 100, told: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Latencies in milliseconds for each number of items; ``told`` hears how it goes on."""
    from runtime.search import PictureEncoder, label_vectors

    encoder = PictureEncoder()
    names, centres = label_vectors()
    random = Random(0)
    asked = [_request(random, names) for _ in range(requests)]
    encoder.words(["warm up"])
    began = time.perf_counter()
    for text in asked[:10]:
        encoder.words([f"{text}."])
    embedding = (time.perf_counter() - began) / 10
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="omni-bench-") as folder:
            index = Index.open(Path(folder) / "index", encoder, create=True)
            told(f"making {count} items")
            took = _fill(index, names, centres, count)
            told(f"searching {count} items")
            rows.append({"items": count, "make_seconds": round(took, 2), **_time(index, asked)})
    return {
        "requests": requests,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "embedding_ms": round(embedding * 1000, 1),
        "sizes": rows,
    }


def render(result: dict[str, Any]) -> str:
    """As a table in words."""
    lines = [
        f"{result['requests']} requests that were not asked before, {result['cores']} cores, load "
        f"{result['load']}; embedding one takes {result['embedding_ms']} ms of each",
        f"{'items':>9}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}{'again ms':>10}{'MB on disk':>12}"
        f"{'MB in memory':>14}",
    ]
    for row in result["sizes"]:
        lines.append(
            f"{row['items']:>9}{row['p50']:>9.1f}{row['p95']:>9.1f}{row['max']:>9.1f}"
            f"{row['again']:>10.2f}{row['disk_mb']:>12.0f}{row['memory_mb']:>14.0f}"
        )
    return "\n".join(lines)


def plot(result: dict[str, Any]) -> str:
    """Latency against the number of items, as an SVG picture."""
    from omni.train.plot import Line
    from omni.train.plot import plot as lines

    curves = [
        Line(name, colour, [(float(np.log10(r["items"])), r[name]) for r in result["sizes"]])
        for name, colour in (("p50", "#2563eb"), ("p95", "#dc2626"))
    ]
    return lines({"Search": curves}, x="number of items, power of ten", y="ms")


def _request(random: Random, names: Sequence[str]) -> str:
    """A sentence of every kind: with a colour, an attribute, a price, or none of them."""
    thing, colour = random.choice(names), random.choice(list(COLOURS))
    return random.choice(
        [
            f"find me a {thing}",
            f"a {colour} {thing}",
            f"{random.choice(_LENGTHS)} {thing}, under {random.randint(5, 90)}",
            f"{thing}, not {colour}, between 10 and {random.randint(20, 90)} euros",
        ]
    )


def _fill(index: Index, names: Sequence[str], centres: np.ndarray[Any, Any], count: int) -> float:
    """Put ``count`` items into an empty index; gives the seconds."""
    began = time.perf_counter()
    random = np.random.default_rng(0)
    store: Store = index.store
    scale = _NOISE / np.sqrt(centres.shape[1])
    for first in range(0, count, _BATCH):
        size = min(_BATCH, count - first)
        kinds = random.integers(0, len(names), size)
        meaning = centres[kinds] + scale * random.standard_normal((size, centres.shape[1]))
        meaning /= np.linalg.norm(meaning, axis=1, keepdims=True)
        look = random.standard_normal((size, store.widths[1]))
        look /= np.linalg.norm(look, axis=1, keepdims=True)
        prices = random.uniform(1, 100, size).round(2)
        lengths = random.integers(0, len(_LENGTHS), size)
        colours = random.integers(0, len(COLOURS), size)
        store.put(
            [
                {
                    "id": f"item {first + i}",
                    "stamp": "1",
                    "picture": None,
                    "title": names[kinds[i]],
                    "text": "",
                    "seen": "",
                    "currency": "EUR",
                    "attributes": "{}",
                    "price": float(prices[i]),
                    "tags": [_LENGTHS[lengths[i]]],
                    "colours": [list(COLOURS)[colours[i]]],
                    "meaning": meaning[i],
                    "look": look[i],
                }
                for i in range(size)
            ],
            fresh=True,
        )
    index.tidy()
    return time.perf_counter() - began


def _time(index: Index, asked: Sequence[str]) -> dict[str, float]:
    for _ in range(3):
        index.search("warm up the files")
    times, again = [], []
    for text in asked:
        began = time.perf_counter()
        index.search(text)
        times.append(1000 * (time.perf_counter() - began))
    for text in asked[-20:]:
        began = time.perf_counter()
        index.search(text)
        again.append(1000 * (time.perf_counter() - began))
    return {
        "p50": round(float(np.percentile(times, 50)), 1),
        "p95": round(float(np.percentile(times, 95)), 1),
        "max": round(max(times), 1),
        "again": round(float(np.percentile(again, 50)), 2),
        "disk_mb": round(index.about()["bytes"] / 1e6, 1),
        "memory_mb": round(psutil.Process().memory_info().rss / 1e6, 1),
    }
