from pathlib import Path

import data_tiny
import numpy as np
import pytest

from omni.data import things
from omni.data.pictures import photos
from omni.data.sets import pull
from omni.data.speech import Speech
from omni.data.voices import HELD_OUT
from omni.weights import ensure, home

pytestmark = pytest.mark.e2e


def test_the_voices_of_tests_read_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, voices = ensure("kokoro-82m").parents[1], pull("kokoro-voices")
    monkeypatch.setenv("OMNI_HOME", str(tmp_path))
    assert home() == tmp_path
    data_tiny.make(tmp_path)
    (tmp_path / "weights").symlink_to(weights)
    (tmp_path / "data/sets/kokoro-voices").symlink_to(voices)
    try:
        sample = Speech("held_out_voices").sample(0)
    finally:
        for cache in data_tiny.CACHES:
            cache.cache_clear()
    assert sample is not None
    assert sample.meta["voice"] in HELD_OUT
    sound = sample.media[0].sound()
    words = len(sample.meta["normal"].split())
    assert 0.1 * words < sound.seconds < 1.5 * words + 2
    assert np.abs(sound.pcm).max() > 0.02


def test_photographs_are_labelled_by_what_the_encoder_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = ensure("efficientnet-lite2").parents[1]
    monkeypatch.setenv("OMNI_HOME", str(tmp_path))
    (tmp_path / "weights").symlink_to(weights)
    monkeypatch.setattr(things, "_PHOTOGRAPHS", ())
    for empty in ("gcompris", "foolbox"):
        (tmp_path / "data" / "sets" / empty).mkdir(parents=True)
    folder = Path(__file__).parents[1] / "data" / "photos"
    found = [*photos("train", folder), *photos("held_out", folder)]
    assert {s.meta["name"] for s in found} == {"cat", "coffee"}  # and not the text beside them
    assert len({s.id for s in found}) == len(found)
    for sample in found:
        (label, probability), *others = sample.meta["labels"]
        assert probability >= 0.4
        assert probability >= max(p for _, p in others)
        assert label in sample.messages[-1].text
