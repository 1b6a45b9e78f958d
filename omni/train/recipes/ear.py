"""The audio adapter for the default LLM: CTC on whisper-base's states, 18 h of speech.

```sh
omni data pull && omni data make speech --hours 17.9 && omni data make speech --part held_out
omni train ear --out runs/ear --budget 110      # and on with --resume
```

`ship` makes a file of it for ``omni demo --ear FILE``.
"""

import json
from importlib.resources import files
from pathlib import Path

from omni.adapters.audio import AudioAdapter, save_adapter
from omni.llm.model import find
from omni.llm.tokenizer import ChatTokenizer
from omni.train.balance import Mixing
from omni.train.bridges import CTC, trained
from omni.train.model import OmniModel
from omni.train.objective import BridgeLoss
from omni.train.optimiser import Optimiser, Schedule
from omni.train.recipe import Recipe, Stage
from omni.train.shards import Shards
from omni.weights.store import home

units = tuple(json.loads((files("omni.adapters") / "data" / "units.json").read_text("utf-8")))
"""Made by `omni.adapters.units.common_units` of the transcripts of 10 h."""
adapter = AudioAdapter.Config(units=units)
LLM = "qwen2.5-coder-0.5b"
speech = home() / "data" / "speech"

recipe = Recipe(
    name="ear",
    threads=1,
    model=OmniModel.Config(
        llm=LLM,
        bridges={"audio": CTC.Config(adapter=adapter)},
        lora=None,
    ),
    stages=(
        Stage(
            name="pretrain",
            data={
                "audio": Shards.Config(
                    directory=str(speech / "train"),
                    held_out=str(speech / "held_out"),
                    encoders={"audio": "encoders.states:whisper_states"},
                    transcript="spoken",
                    units=units,
                )
            },
            steps=7000,
            balance=Mixing.Config(),
            objective=BridgeLoss(),
            optimiser=Optimiser(
                lr=1e-3,
                betas=(0.9, 0.98),
                clip=5.0,
                schedule=Schedule(shape="wsd", warmup=300, floor=0.02, decay=0.35),
            ),
            micro_batches=1,
            tokens=3000,
            pool=400,
            held_out=128,
            evaluate_every=250,
            save_every=250,
        ),
    ),
)


def ship(weights: Path, path: Path) -> None:
    """Write what the stage left in ``weights`` as the file that the runtime reads."""
    tokenizer = ChatTokenizer(find(LLM))
    card = {
        "llm": LLM,
        "languages": "en",
        "recipe": recipe.name,
        "seed": str(recipe.seed),
        "data": "18 h of omni data make speech (hibari)",
        "licence": "Apache-2.0",
    }
    texts = [tokenizer.token_bytes(unit) for unit in units]
    save_adapter(path, trained(weights, "audio", adapter.build()), texts, card)
