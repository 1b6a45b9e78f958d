"""Checkpoints: a killed run that resumes, a full disk, another model."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from omni.errors import InputError
from omni.train import checkpoint
from omni.train.checkpoint import CheckpointError
from omni.train.config import override
from omni.train.metrics import read
from omni.train.recipe import load_recipe
from omni.train.run import WEIGHTS, train

ROOT = Path(__file__).parents[2]
STAGE = "instruct"
# Dropout and drawn negatives need the random states; an evaluation moves the balance.
SHORT = [
    "stages.pretrain.steps=2",
    f"stages.{STAGE}.steps=14",
    f"stages.{STAGE}.save_every=4",
    f"stages.{STAGE}.evaluate_every=4",
    "stages.align.steps=3",
    "model.lora.dropout=0.1",
]


def tiny(*more):
    return override(load_recipe("tiny"), [*SHORT, *more])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert train(tiny(), out, device="cpu").finished
    return out


def test_a_run_killed_in_the_middle_and_resumed_ends_with_the_same_bytes(uninterrupted, tmp_path):
    arguments = [a for s in SHORT for a in ("--set", s)]
    command = [sys.executable, "-m", "omni.cli", "train", "tiny", "--out", str(tmp_path)]
    running = subprocess.Popen(
        [*command, *arguments, "--device", "cpu"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    log, deadline = tmp_path / STAGE / "metrics.jsonl", time.monotonic() + 120
    # Between two checkpoints, so that steps are lost and done again.
    while not any(line["step"] >= 6 for line in read(log)):
        assert running.poll() is None, running.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert not (tmp_path / STAGE / WEIGHTS).exists()

    assert train(tiny(), tmp_path, resume=True, device="cpu").finished
    for stage in ("pretrain", STAGE, "align"):
        whole, resumed = (out / stage for out in (uninterrupted, tmp_path))
        assert (whole / WEIGHTS).read_bytes() == (resumed / WEIGHTS).read_bytes()
        lines = [without_times(read(at / "metrics.jsonl")) for at in (whole, resumed)]
        assert lines[0] == lines[1]


def without_times(lines):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_a_budget_saves_and_stops_and_the_run_goes_on(uninterrupted, tmp_path):
    ticks = iter(range(10_000))
    result = train(tiny(), tmp_path, minutes=0.12, device="cpu", clock=lambda: next(ticks))
    assert not result.finished
    assert result.stage == STAGE
    assert train(tiny(), tmp_path, resume=True, device="cpu").finished
    whole = (uninterrupted / "align" / WEIGHTS).read_bytes()
    assert (tmp_path / "align" / WEIGHTS).read_bytes() == whole


def test_a_run_is_not_begun_over_another(uninterrupted):
    with pytest.raises(InputError, match="--resume"):
        train(tiny(), uninterrupted, device="cpu")


def test_a_stage_needs_what_the_one_before_it_leaves(tmp_path):
    with pytest.raises(InputError, match="train 'pretrain' first"):
        train(tiny(), tmp_path, stage=STAGE, device="cpu")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("model.layers=3", r"another model: options.layers was 2, is 3"),
        ("stages.pretrain.optimiser.lr=0.5", r"another recipe: .*lr was 0.01, is 0.5"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_the_reason(change, problem, tmp_path):
    ticks = iter(range(10_000))
    train(tiny(), tmp_path, minutes=0.03, device="cpu", clock=lambda: next(ticks))
    with pytest.raises(CheckpointError, match=problem):
        train(tiny(change), tmp_path, resume=True, device="cpu")


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    short = tiny("stages.pretrain.steps=6", "stages.pretrain.save_every=2")
    sync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"the disk is full.*last good one is .*step-0"):
        train(short, tmp_path, device="cpu")
    monkeypatch.undo()
    directory = tmp_path / "pretrain"
    assert [p for p in directory.iterdir() if p.name.startswith(".")] == []
    steps = checkpoint.Checkpoints(directory, keep=1).steps()
    assert steps
    whole = tmp_path / "whole"
    train(short, whole, stage="pretrain", device="cpu")
    train(short, tmp_path, resume=True, stage="pretrain", device="cpu")
    assert (directory / WEIGHTS).read_bytes() == (whole / "pretrain" / WEIGHTS).read_bytes()


def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path):
    short = tiny("stages.pretrain.steps=6", "stages.pretrain.save_every=2")
    train(short, tmp_path, stage="pretrain", device="cpu")
    directory = tmp_path / "pretrain"
    (directory / WEIGHTS).unlink()
    newest = checkpoint.Checkpoints(directory, keep=2).path(6)
    for file in newest.glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"cannot be read .*delete it to go on from"):
        train(short, tmp_path, stage="pretrain", resume=True, device="cpu")


def test_as_many_checkpoints_as_asked_for_are_kept(uninterrupted):
    assert checkpoint.Checkpoints(uninterrupted / STAGE, keep=2).steps() == [12, 14]


def test_random_states_survive_json():
    import random

    import numpy as np

    state = json.loads(json.dumps(checkpoint.random_state()))
    drawn = random.random(), np.random.rand(), torch.rand(3).tolist()
    checkpoint.set_random_state(state)
    assert (random.random(), np.random.rand(), torch.rand(3).tolist()) == drawn
