"""What balancing buys on real data: a small LLM that learns to hear, to see and to go on talking.

Spoken questions are eight times scarcer than pictures and texts.

```sh
omni data pull
omni data make text --count 8192
omni data make questions --count 1024
omni data make easy-vqa
omni data make text questions --part held_out --count 256
omni data make easy-vqa --part held_out
omni train balance --ablate balance --seeds 2 --report docs/balance.md
```
"""

from omni.train.balance import AdaptiveBalance
from omni.train.bridges import Projector
from omni.train.model import LoRA, OmniModel
from omni.train.objective import Language
from omni.train.optimiser import Optimiser, Schedule
from omni.train.recipe import Recipe, Stage
from omni.train.shards import Shards
from omni.weights.store import home


def data(name: str, **encoders: str) -> Shards.Config:
    """A set made by `omni data`."""
    return Shards.Config(
        directory=str(home() / "data" / name / "train"),
        held_out=str(home() / "data" / name / "held_out"),
        encoders=encoders,
        preferences=False,
    )


recipe = Recipe(
    name="balance",
    model=OmniModel.Config(
        llm="smollm2-135m",
        bridges={
            "audio": Projector.Config(features=512, stride=4),
            "image": Projector.Config(features=1328),
        },
        lora=LoRA(rank=8, alpha=16),
        boundaries=False,
    ),
    stages=(
        Stage(
            name="instruct",
            data={
                "text": data("text"),
                "audio": data("questions", audio="encoders.states:whisper_states"),
                "image": data("easy-vqa", image="encoders.image:Eye"),
            },
            steps=80,
            balance=AdaptiveBalance.Config(),
            objective=Language(),
            train=("bridges", "llm"),
            optimiser=Optimiser(
                lr=1e-3, llm_lr=4e-4, schedule=Schedule(shape="wsd", warmup=10, decay=0.3)
            ),
            micro_batches=3,
            tokens=400,
            pool=32,
            held_out=24,
            evaluate_every=20,
            save_every=40,
        ),
    ),
)
