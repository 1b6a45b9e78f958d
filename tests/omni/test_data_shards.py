import errno
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from omni.data.sample import Medium, Message, Sample
from omni.data.shards import (
    INDEX,
    ROWS,
    make_shards,
    read_shards,
    verify_shards,
    write_shards,
)
from omni.errors import InputError, OmniError


def sample(number: int) -> Sample:
    return Sample(
        id=f"s{number}",
        modality="audio",
        messages=(
            Message("user", (0, f"What is number {number}?", 1)),
            Message("assistant", (str(number),)),
        ),
        media=(Medium("audio", b"sound", "flac"), Medium("image", bytes([number % 256]), "png")),
        meta={"source": "test", "licence": "CC0-1.0", "seed": number},
        rejected="no idea" if number % 2 else None,
    )


def samples(count: int) -> Iterator[Sample]:
    return (sample(n) for n in range(count))


def shard_of_150(number: int) -> Iterator[Sample]:
    return (sample(n) for n in range(number * 150, (number + 1) * 150))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_shards(samples(700), tmp_path / "data", size=200)
    return tmp_path / "data"


def test_a_sample_comes_back_as_it_was_written(data: Path) -> None:
    found = {s.id: s for s in read_shards(data)}
    assert found == {s.id: s for s in samples(700)}


def test_epochs_and_seeds_differ_in_order_and_repeat_exactly(data: Path) -> None:
    def ids(seed: int, epoch: int) -> list[str]:
        return [s.id for s in read_shards(data, seed=seed, epoch=epoch)]

    assert ids(1, 0) == ids(1, 0)
    assert len({tuple(ids(1, 0)), tuple(ids(1, 1)), tuple(ids(2, 0))}) == 3


@pytest.mark.parametrize("taken", [0, 1, 63, 300, 699, 700])
def test_reading_goes_on_where_it_stopped(data: Path, taken: int) -> None:
    whole = [s.id for s in read_shards(data, seed=3)]
    first = read_shards(data, seed=3)
    begin = [next(first).id for _ in range(taken)]
    assert begin + [s.id for s in read_shards(data, seed=3, skip=first.position)] == whole


def test_ranks_share_the_samples_without_overlap(data: Path) -> None:
    parts = [[s.id for s in read_shards(data, rank=r, world=3)] for r in range(3)]
    assert sorted(chain(*parts)) == sorted(s.id for s in samples(700))
    assert max(map(len, parts)) - min(map(len, parts)) <= 2 * ROWS


def test_neighbours_are_mixed_across_shards(data: Path) -> None:
    first = [int(s.id[1:]) // 200 for s, _ in zip(read_shards(data), range(64), strict=False)]
    assert len(set(first)) > 1


def test_a_missing_shard_is_named_before_the_first_sample(data: Path) -> None:
    (data / "00001.parquet").unlink()
    with pytest.raises(InputError, match=r"00001\.parquet is missing"):
        read_shards(data)


@pytest.mark.parametrize("place", ["middle", "end"])
def test_a_damaged_shard_is_named(data: Path, place: str) -> None:
    path = data / "00002.parquet"
    raw = bytearray(path.read_bytes())
    at = len(raw) // 2 if place == "middle" else len(raw) - 6
    raw[at] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"00002\.parquet is damaged"):
        verify_shards(data)
    with pytest.raises(InputError, match=r"00002\.parquet is damaged"):
        list(read_shards(data))


def test_a_cut_shard_is_named(data: Path) -> None:
    path = data / "00000.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"00000\.parquet is damaged: it has \d+ bytes"):
        read_shards(data)


def test_data_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="omni data make"):
        read_shards(tmp_path)


def test_bad_samples_are_counted_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Sample, "check", lambda self: None)
        bad = [Sample(f"bad{n}", "text", (), (), {}) for n in range(3)]
        write_shards([*samples(10), *bad], tmp_path)
    reader = read_shards(tmp_path, bad=3)
    assert len(list(reader)) == 10
    assert (reader.bad, reader.position) == (3, 13)
    with pytest.raises(InputError, match="more than 2 bad samples"):
        list(read_shards(tmp_path, bad=2))


def test_a_sample_whose_messages_name_no_medium_is_not_written(tmp_path: Path) -> None:
    wrong = Sample("x", "image", (Message("user", (1,)),), (Medium("image", b"", "png"),))
    with pytest.raises(InputError, match="'x' has 1 media"):
        write_shards([wrong], tmp_path)
    assert not list(tmp_path.glob("*.parquet"))


def test_making_resumes_by_shard(tmp_path: Path) -> None:
    made = []

    def make(number: int) -> Iterator[Sample]:
        made.append(number)
        if number == 2 and made.count(2) == 1:
            raise KeyboardInterrupt
        return shard_of_150(number)

    with pytest.raises(KeyboardInterrupt):
        make_shards(make, tmp_path, 4, recipe={"seed": 1})
    make_shards(make, tmp_path, 4, recipe={"seed": 1})
    assert made == [0, 1, 2, 2, 3]
    assert len(list(read_shards(tmp_path))) == 600
    assert not list(tmp_path.glob("*.new"))


def test_two_processes_make_what_one_makes(tmp_path: Path) -> None:
    make_shards(shard_of_150, tmp_path / "one", 3)
    make_shards(shard_of_150, tmp_path / "two", 3, workers=2)
    indexes = [json.loads((tmp_path / name / INDEX).read_text()) for name in ("one", "two")]
    assert indexes[0] == indexes[1]


def test_data_of_another_recipe_is_not_mixed_in(tmp_path: Path) -> None:
    make_shards(shard_of_150, tmp_path, 1, recipe={"seed": 1})
    with pytest.raises(InputError, match="another directory"):
        make_shards(shard_of_150, tmp_path, 2, recipe={"seed": 2})


def test_sound_and_pictures_survive_their_files() -> None:
    pcm = np.sin(np.arange(40_000) / 20).astype(np.float32) * 0.5
    sound = Medium.audio(pcm, 16_000).sound()
    assert sound.sample_rate == 16_000
    np.testing.assert_allclose(sound.pcm, pcm, atol=1 / 32767)
    pixels = np.full((20, 30, 3), (200, 30, 90), np.uint8)
    assert np.abs(Medium.image(pixels).pixels().astype(int) - pixels).mean() < 4


def test_a_lost_shard_is_made_again_by_repeating_the_command(tmp_path: Path) -> None:
    make_shards(shard_of_150, tmp_path, 3)
    (tmp_path / "00001.parquet").unlink()
    made = []
    make_shards(shard_of_150, tmp_path, 3, done=lambda shard: made.append(shard.name))
    assert made == ["00001.parquet"]
    verify_shards(tmp_path)


def test_a_full_disk_leaves_whole_shards_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_shards(shard_of_150, tmp_path, 1)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(
            OmniError, match=r"No space left on device; .* free some space and repeat"
        ):
            make_shards(shard_of_150, tmp_path, 2)
    assert len(list(read_shards(tmp_path))) == 150
    assert not list(tmp_path.glob("*.new"))


def test_two_makers_of_one_directory_do_not_mix(tmp_path: Path) -> None:
    def make(number: int) -> Iterator[Sample]:
        with pytest.raises(InputError, match="another process is making data"):
            make_shards(shard_of_150, tmp_path, 1)
        return shard_of_150(number)

    make_shards(make, tmp_path, 1)
