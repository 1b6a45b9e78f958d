"""The image adapter that ships for the default LLM: what is where on EfficientNet's map.

```sh
omni data pull clipart fluent easy-vqa
omni data make pictures easy-vqa --count 4096
omni data make pictures easy-vqa --part held_out
omni train eye --out runs/eye --budget 40       # and on with --resume
```
"""

import json
from importlib.resources import files

from omni.adapters.image import ImageAdapter
from omni.train.balance import Mixing
from omni.train.model import OmniModel
from omni.train.objective import BridgeLoss
from omni.train.optimiser import Optimiser, Schedule
from omni.train.recipe import Recipe, Stage
from omni.train.scenes import Scenes
from omni.train.shards import Shards
from omni.weights.store import home

words = json.loads((files("omni.adapters") / "data" / "things.json").read_text("utf-8"))
"""The names, kinds and colours of the things in `omni.data.pictures`, but for those held out."""
adapter = ImageAdapter.Config(
    names=tuple(words["names"]), kinds=tuple(words["kinds"]), colours=tuple(words["colours"])
)


def data(name: str) -> Shards.Config:
    """A set of pictures made by `omni data`."""
    return Shards.Config(
        directory=str(home() / "data" / name / "train"),
        held_out=str(home() / "data" / name / "held_out"),
        encoders={"image": "encoders.image:Eye"},
        text=False,
    )


def stage(name: str, steps: int, lr: float) -> Stage:
    """All learn the same; in the second the rate rises once more (SGDR, 2017)."""
    return Stage(
        name=name,
        data={"pictures": data("pictures"), "easy-vqa": data("easy-vqa")},
        steps=steps,
        balance=Mixing.Config(shares={"pictures": 4, "easy-vqa": 1}),
        objective=BridgeLoss(),
        optimiser=Optimiser(
            lr=lr,
            betas=(0.9, 0.98),
            weight_decay=0.05,
            schedule=Schedule(shape="cosine", warmup=40, floor=0.01),
        ),
        micro_batches=1,
        tokens=48 * 49,
        pool=256,
        held_out=96,
        evaluate_every=100,
        save_every=100,
    )


recipe = Recipe(
    name="eye",
    threads=1,
    model=OmniModel.Config(
        llm="qwen2.5-coder-0.5b",
        bridges={"image": Scenes.Config(adapter=adapter)},
        lora=None,
    ),
    stages=(stage("pretrain", 500, 2e-3), stage("again", 500, 1.5e-3)),
)
