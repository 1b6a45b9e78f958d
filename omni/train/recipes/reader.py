"""Low-rank updates that read the image adapter's sentences: yes and no, numbers, places.

A third of each step is talk about other things after a picture, answered as the LLM answers it
without one, so that a picture changes nothing else.

```sh
omni data pull clipart fluent easy-vqa
omni data make pictures easy-vqa --count 4096
omni data make pictures easy-vqa --part held_out
omni data make talk --count 384
omni data make talk --part held_out --count 32
omni train reader --out runs/reader --budget 60     # and on with --resume
```
"""

from dataclasses import replace
from importlib.resources import files

from omni.prompts import INSTRUCTIONS
from omni.train.balance import AdaptiveBalance, Mixing
from omni.train.model import LoRA, OmniModel
from omni.train.objective import Language, Preference
from omni.train.optimiser import Optimiser, Schedule
from omni.train.recipe import Recipe, Stage
from omni.train.recipes.eye import adapter, data
from omni.train.scenes import Scenes
from omni.train.shards import Shards


def talk(name: str) -> Shards.Config:
    """Conversations about a set of pictures, as the assistant has them."""
    return replace(data(name), text=True, preferences=False, instructions=INSTRUCTIONS)


recipe = Recipe(
    name="reader",
    model=OmniModel.Config(
        llm="qwen2.5-coder-0.5b",
        bridges={
            "image": Scenes.Config(
                adapter=adapter, start=str(files("omni.adapters") / "data" / "image.safetensors")
            )
        },
        lora=LoRA(rank=8, alpha=16, layers=8, after="image"),
        boundaries=False,
    ),
    stages=(
        Stage(
            name="instruct",
            data={
                "pictures": talk("pictures"),
                "easy-vqa": talk("easy-vqa"),
                "text": talk("talk"),
            },
            steps=120,
            balance=AdaptiveBalance.Config(),
            objective=Language(),
            train=("llm",),
            optimiser=Optimiser(
                llm_lr=4e-4,
                betas=(0.9, 0.98),
                schedule=Schedule(shape="wsd", warmup=10, decay=0.3, floor=0.05),
            ),
            micro_batches=3,
            tokens=900,
            pool=64,
            held_out=16,
            evaluate_every=30,
            save_every=10,
        ),
        Stage(
            name="align",
            data={name: replace(talk(name), preferences=True) for name in ("pictures", "easy-vqa")},
            steps=30,
            balance=Mixing.Config(shares={"pictures": 1, "easy-vqa": 1}),
            objective=Preference(beta=0.1),
            train=("llm",),
            optimiser=Optimiser(llm_lr=5e-5, schedule=Schedule(shape="linear", warmup=3)),
            micro_batches=2,
            tokens=900,
            pool=64,
            held_out=16,
            evaluate_every=10,
            save_every=10,
        ),
    ),
)
