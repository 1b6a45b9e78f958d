"""A smoke test of all three stages: a random model on made-up data, in seconds. It learns a toy."""

from omni.train.balance import AdaptiveBalance, StepBalance
from omni.train.bridges import Projector
from omni.train.contrastive import Contrastive
from omni.train.model import LoRA
from omni.train.objective import Language, Preference
from omni.train.optimiser import Optimiser, Schedule
from omni.train.recipe import Recipe, Stage
from omni.train.synthetic import WIDTH, MadeUp, TinyModel

DATA = {
    "text": MadeUp.Config(modality="text", size=400),
    "audio": MadeUp.Config(modality="audio", size=100, noise=0.6),
    "image": MadeUp.Config(modality="image", size=1000, noise=0.3),
}
SIZES = {
    "micro_batches": 4,
    "tokens": 256,
    "pool": 64,
    "evaluate_every": 20,
    "save_every": 20,
}

recipe = Recipe(
    name="tiny",
    threads=1,  # a model this small only waits for a second one
    model=TinyModel(
        bridges={
            "audio": Projector.Config(features=WIDTH, stride=2),
            "image": Projector.Config(features=WIDTH),
        },
        lora=LoRA(rank=8, alpha=16),
        contrastive=Contrastive.Config(width=16),
    ),
    stages=(
        Stage(
            name="pretrain",
            data=DATA,
            steps=60,
            balance=StepBalance.Config(),
            objective=Language(),
            train=("bridges", "heads"),
            optimiser=Optimiser(lr=1e-2, schedule=Schedule(shape="wsd", warmup=5)),
            **SIZES,
        ),
        Stage(
            name="instruct",
            data=DATA,
            steps=60,
            balance=AdaptiveBalance.Config(),
            objective=Language(),
            train=("bridges", "llm"),
            optimiser=Optimiser(lr=3e-3, llm_lr=1e-2, schedule=Schedule(warmup=5)),
            **SIZES,
        ),
        Stage(
            name="align",
            data={
                "text": MadeUp.Config(modality="text", size=200, pairs=True),
                "audio": MadeUp.Config(modality="audio", size=100, noise=0.6, pairs=True),
            },
            steps=30,
            balance=StepBalance.Config(shares={"text": 1, "audio": 1}),
            objective=Preference(),
            train=("llm",),
            optimiser=Optimiser(llm_lr=3e-3, schedule=Schedule(shape="linear")),
            **SIZES,
        ),
    ),
)
