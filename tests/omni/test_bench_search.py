"""The benchmark of the search, with few items and a small encoder."""

import numpy as np
import pytest

pytest.importorskip("lancedb")

from omni.bench import search


class Small:
    models = {"words": "small"}  # noqa: RUF012
    widths = (4, 2)

    def words(self, texts):
        return np.ones((len(texts), 4), np.float32) / 2


def test_latencies_are_measured_for_every_number_of_items(monkeypatch) -> None:
    monkeypatch.setattr("runtime.search.PictureEncoder", Small)
    monkeypatch.setattr(
        "runtime.search.label_vectors", lambda: (["cup", "shoe"], np.eye(4, dtype=np.float32)[:2])
    )
    result = search.run([5, 50], requests=20)
    assert [row["items"] for row in result["sizes"]] == [5, 50]
    assert all(0 < row["p50"] <= row["p95"] <= row["max"] for row in result["sizes"])
    table = search.render(result)
    assert "50" in table.splitlines()[-1]
    drawn = search.plot(result)
    assert drawn.startswith("<svg")
    assert drawn.count("<polyline") == 2
