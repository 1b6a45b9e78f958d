"""Smoke test: the shipped tiny recipe, a random model on made-up data, through all three stages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from omni.errors import InputError
from omni.train.config import override
from omni.train.metrics import read
from omni.train.recipe import load_recipe, shipped
from omni.train.run import WEIGHTS, export, train

ROOT = Path(__file__).parents[2]
SHORT = [
    f"stages.{stage}.{field}={value}"
    for stage, steps in (("pretrain", 20), ("instruct", 40), ("align", 20))
    for field, value in (("steps", steps), ("evaluate_every", 10), ("save_every", 20))
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """By the command, from empty caches."""
    out = tmp_path_factory.mktemp("tiny")
    options = [a for s in SHORT for a in ("--set", s)]
    ran = subprocess.run(
        [sys.executable, "-m", "omni.cli", "train", "tiny", "--out", str(out), "--json", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMNI_HOME": str(out / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    return out, json.loads(ran.stdout.splitlines()[-1]), ran.stderr


def test_all_three_stages_run_and_leave_their_weights(trained):
    out, result, _ = trained
    assert result["finished"]
    assert [s for s in ("pretrain", "instruct", "align") if (out / s / WEIGHTS).exists()] == [
        *("pretrain", "instruct", "align")
    ]
    assert result["bad_samples"] == result["skipped"] == 0


def test_every_modality_learns(trained):
    out, result, _ = trained
    for modality in ("text", "audio", "image"):
        lines = read(out / "instruct" / "metrics.jsonl")
        curve = [line[f"held_out/{modality}"] for line in lines if f"held_out/{modality}" in line]
        assert curve[-1] < 0.8 * curve[0]
    assert result["held_out"]["align"]["text"] < 0.68  # ln 2 is where DPO begins


def test_each_stage_trains_its_parts_alone(trained):
    out, _, _ = trained
    first, second = (load_file(out / stage / WEIGHTS) for stage in ("pretrain", "instruct"))
    third = load_file(out / "align" / WEIGHTS)
    changed = {name for name in second if not second[name].equal(third[name])}
    assert {name.partition(".")[0] for name in changed} == {"llm"}
    assert all(not first[n].any() for n in first if "lora_B" in n)


def test_the_log_has_a_line_for_each_step_and_text_is_never_under_a_quarter(trained):
    out, _, _ = trained
    lines = [line for line in read(out / "instruct" / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert all(line["share/text"] >= 0.25 for line in lines)
    assert len({line["share/audio"] for line in lines}) > 1


def test_without_a_terminal_there_are_no_bars(trained):
    _, _, said = trained
    assert "\x1b" not in said
    assert "held-out loss" in said


def test_a_finished_stage_is_exported_with_lora_merged(trained, tmp_path):
    from transformers import AutoModelForCausalLM

    out, _, _ = trained
    export(load_recipe("tiny"), out / "align" / WEIGHTS, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert {p.name for p in tmp_path.glob("*.safetensors")} == {
        *("model.safetensors", "audio.safetensors", "image.safetensors")
    }


def test_experts_learn_and_gradient_checkpointing_changes_nothing(tmp_path):
    recipe = (ROOT / "tests/omni/train_experts.py").as_posix()
    plain = train(load_recipe(recipe), tmp_path / "a", device="cpu")
    again = override(load_recipe(recipe), ["model.checkpointing=True"])
    assert train(again, tmp_path / "b", device="cpu").held_out == plain.held_out
    lines = read(tmp_path / "a" / "only" / "metrics.jsonl")
    assert all(line["train/text.router_balance"] > 0 for line in lines if "loss" in line)
    before, after = recipe_weights(recipe), load_file(tmp_path / "a" / "only" / WEIGHTS)
    moved = {n for n in after if not after[n].equal(before[n])}
    assert any(".router." in n for n in moved)
    assert any(".experts.3." in n for n in moved)


def recipe_weights(recipe):
    chosen = load_recipe(recipe)
    return chosen.model.build(chosen.seed).learned()


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = override(load_recipe("tiny"), ["stages.pretrain.steps=2", "tensorboard=True"])
    train(recipe, tmp_path, stage="pretrain", device="cpu")
    events = EventAccumulator(str(tmp_path / "pretrain" / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("train/audio")] == [1, 2]


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("stages.pretrain.stepz=1", r"Stage has no 'stepz' \(did you mean steps\?\); it has: "),
        ("stages.pretrian.steps=1", r"has no 'pretrian' \(did you mean pretrain"),
        ("stages.pretrain.steps=many", "stages.pretrain.steps=many: input should be"),
        ("stages.pretrain.steps=0", "Stage.steps is 0"),
        ("stages.pretrain.optimiser.schedule.shape=square", "cosine"),
        ("steps", "PATH=VALUE"),
        ("stages.pretrain.data.video.size=3", "it has: audio, image, text"),
    ],
)
def test_a_field_that_does_not_exist_or_fit_is_named(assignment, problem):
    with pytest.raises(InputError, match=problem):
        override(load_recipe("tiny"), [assignment])


def test_assignments_reach_every_depth():
    changed = override(
        load_recipe("tiny"),
        ["seed=5", "stages.2.objective.beta=0.3", "model.lora=None", "stages.align.train=('llm',)"],
    )
    assert (changed.seed, changed.stages[2].objective.beta, changed.model.lora) == (5, 0.3, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("recipe = 3", "no `recipe` that is a Recipe"),
        ("from omni.train.recipe import Recipe\nrecipe = Recipe(nam='x')", "Recipe has no 'nam'"),
        ("from omni.train.recipe import Recipe\nrecipe = Recipe(name='x')", "missing"),
        ("raise RuntimeError('oh')", "RuntimeError: oh"),
    ],
)
def test_a_recipe_file_that_is_wrong_is_explained(text, problem, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=problem):
        load_recipe(str(path))


def test_an_unknown_recipe_names_those_that_come_with_omni():
    assert "tiny" in shipped()
    with pytest.raises(InputError, match="tiny"):
        load_recipe("huge")
