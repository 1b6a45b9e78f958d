"""Two processes give what one gives: sharded, resumed in another world, and as a pipeline."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from train_parallel import batch_of, build

from omni.sequence import IGNORE
from omni.train.config import override
from omni.train.recipe import load_recipe
from omni.train.run import WEIGHTS, train

ROOT = Path(__file__).parents[2]
STEPS = ["stages.pretrain.steps=4", "stages.pretrain.save_every=2", "stages.instruct.steps=3"]
# Each process draws hard negatives of its own.
SHORT = [*STEPS, "stages.align.steps=2", "model.contrastive=None"]
TOLERANCE = 5e-5
"""AdamW divides a gradient's rounding by its size; sums over processes round differently."""


def two_processes(*command):
    ran = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    recipe = override(load_recipe("tiny"), SHORT)
    assert train(recipe, one, device="cpu").finished
    options = [a for s in SHORT for a in ("--set", s)]
    arguments = ["tiny", "--device", "cpu", "--out", str(two), *options]
    shown = two_processes("-m", "omni.cli", "train", *arguments)
    assert shown.count("pretrain: held-out loss") == 1
    return recipe, one, two


@pytest.mark.parametrize("stage", ["pretrain", "instruct", "align"])
def test_sharded_training_ends_where_one_process_does(runs, stage):
    _, one, two = runs
    a, b = (load_file(out / stage / WEIGHTS) for out in (one, two))
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=0, atol=TOLERANCE, msg=name)


def test_a_checkpoint_of_two_processes_goes_on_in_one(runs, tmp_path):
    recipe, one, two = runs
    shutil.copytree(two / "pretrain", tmp_path / "pretrain")
    (tmp_path / "pretrain" / WEIGHTS).unlink()
    shutil.rmtree(tmp_path / "pretrain" / "step-00000004")
    assert len(list((tmp_path / "pretrain" / "step-00000002").glob("*.distcp"))) == 2
    train(recipe, tmp_path, stage="pretrain", resume=True, device="cpu")
    a, b = (load_file(out / "pretrain" / WEIGHTS) for out in (one, tmp_path))
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=0, atol=TOLERANCE, msg=name)


def test_a_pipeline_of_two_gives_the_loss_and_gradients_of_one_process(tmp_path):
    two_processes(str(Path(__file__).with_name("train_parallel.py")), str(tmp_path))
    model = build()
    batch = batch_of(model)
    logits = model.causal.lm_head(model.hidden(batch))[:, :-1]
    labels = batch.labels_BT[:, 1:]
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
    loss.backward()
    for schedule in ("gpipe", "1f1b"):
        found = {}
        for rank in (0, 1):
            value, gradients = torch.load(tmp_path / f"{schedule}-{rank}.pt")
            assert value == pytest.approx(float(loss.detach()), abs=1e-6)
            found |= gradients
        want = {n: p.grad for n, p in model.named_parameters()}
        assert found.keys() == want.keys()
        for name, gradient in want.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
