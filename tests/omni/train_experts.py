"""A recipe of the tests: one layer of experts beside LoRA, on made-up text and sound."""

from omni.train.bridges import Projector
from omni.train.model import LoRA, MixtureOfExperts
from omni.train.recipe import Recipe, Stage
from omni.train.synthetic import WIDTH, MadeUp, TinyModel

recipe = Recipe(
    name="experts",
    threads=1,
    model=TinyModel(
        bridges={"audio": Projector.Config(features=WIDTH)},
        lora=LoRA(rank=4),
        experts=MixtureOfExperts(layers=(1,), routing="bias", capacity=1.5),
    ),
    stages=(
        Stage(
            name="only",
            data={m: MadeUp.Config(modality=m, size=100) for m in ("text", "audio")},
            steps=3,
            train=("bridges", "llm"),
            micro_batches=4,
            tokens=128,
        ),
    ),
)
