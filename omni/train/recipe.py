"""A recipe: the model, and the stages that train it one after the other."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from importlib import import_module, resources
from pathlib import Path
from typing import Any, Literal, Protocol

from omni.errors import InputError
from omni.train.balance import AdaptiveBalance, Mixing, StepBalance
from omni.train.config import config, positive, unknown
from omni.train.data import Source
from omni.train.model import OmniModel, Part
from omni.train.objective import BridgeLoss, Language, Preference
from omni.train.optimiser import Optimiser


class SourceConfig(Protocol):
    """What a recipe names: the options of a data source."""

    def build(self, model: OmniModel.Config, seed: int) -> Source:
        """Open it for a model. Raises `OmniError` when the data is not there or damaged."""
        ...


class ModelConfig(Protocol):
    """What a recipe names: `OmniModel.Config`, or another that builds an `OmniModel`."""

    def build(self, seed: int) -> OmniModel:
        """The model at the beginning of the first stage."""
        ...


@config
class Stage:
    """One stage. Of every figure there is a default but for the data and the steps.

    ``train``: the parts that learn. ``micro_batches`` of at most ``tokens`` positions make a step.
    ``pool`` items are bucketed by length together. ``held_out`` items of every modality are
    evaluated every ``evaluate_every`` steps. ``bad_steps`` steps in a row may be skipped for a loss
    that is not finite, and ``bad_samples`` samples in all.
    """

    name: str
    data: Mapping[str, Any]
    steps: int
    balance: Mixing.Config | StepBalance.Config | AdaptiveBalance.Config = StepBalance.Config()
    objective: Language | BridgeLoss | Preference = Language()
    train: tuple[Part, ...] = ("bridges", "heads")
    optimiser: Optimiser = Optimiser()
    micro_batches: int = 8
    tokens: int = 1024
    pool: int = 64
    held_out: int = 32
    evaluate_every: int = 100
    save_every: int = 100
    bad_steps: int = 5
    bad_samples: int = 100

    def __post_init__(self) -> None:
        """Raise `InputError` for a stage that cannot run."""
        positive(self, "steps", "micro_batches", "tokens", "pool", "held_out")
        positive(self, "evaluate_every", "save_every")
        if not self.data:
            raise InputError(f"stage {self.name!r} has no data", param="data")
        odd = set(self.train) - {"bridges", "heads", "llm"}
        if odd or not self.train:
            raise InputError(
                f"stage {self.name!r} trains {', '.join(sorted(odd)) or 'nothing'}; "
                "use bridges, heads, llm",
                param="train",
            )


@config
class Recipe:
    """What `omni train` runs. ``precision`` auto: bf16 where a GPU has it, else float32.

    ``keep`` checkpoints of a stage stay. ``threads`` of torch on the CPU; None leaves them.
    """

    name: str
    model: Any
    stages: tuple[Stage, ...]
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    keep: int = 2
    threads: int | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Raise `InputError` for stages without names of their own."""
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise InputError(
                f"recipe {self.name!r} has the stages {names}; it needs at least one, and each a "
                "name of its own",
                param="stages",
            )
        positive(self, "keep")

    def stage(self, name: str) -> int:
        """The index of a stage. Raises `InputError` with the names that exist."""
        names = [stage.name for stage in self.stages]
        if name not in names:
            raise unknown(f"recipe {self.name!r}", name, names)
        return names.index(name)


def shipped() -> list[str]:
    """The names of the recipes that come with Omni."""
    files = resources.files("omni.train.recipes").iterdir()
    names = (file.name for file in files)
    return sorted(n.removesuffix(".py") for n in names if n.endswith(".py") and n[0] != "_")


def load_recipe(recipe: str) -> Recipe:
    """A shipped recipe by name, or ``recipe`` of a Python file. Raises `InputError`."""
    if recipe.endswith(".py"):
        path = Path(recipe).expanduser()
        if not path.is_file():
            raise InputError(f"there is no file {path}", param="recipe")
        try:
            found = runpy.run_path(str(path)).get("recipe")
        except InputError as error:
            raise InputError(f"{path}: {error}", param=error.param) from error
        except Exception as error:
            raise InputError(
                f"{path} cannot be run: {type(error).__name__}: {error}", param="recipe"
            ) from error
    elif recipe in shipped():
        found = getattr(import_module(f"omni.train.recipes.{recipe}"), "recipe", None)
    else:
        raise InputError(
            f"there is no recipe {recipe!r}; use {', '.join(shipped())}, or the path of a .py file "
            "with `recipe = Recipe(...)`",
            param="recipe",
        )
    if not isinstance(found, Recipe):
        raise InputError(f"{recipe} has no `recipe` that is a Recipe", param="recipe")
    return found
