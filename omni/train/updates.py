"""What a stage with LoRA left, as the updates that the runtime reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from omni.errors import WeightsError
from omni.llm.updates import save_updates
from omni.train.model import OmniModel

_NAME = re.compile(r"\.layers\.(\d+)\.\w+\.(\w+)\.lora_A\.default\.weight$")


def ship(weights: Path, path: Path, model: OmniModel.Config, card: Mapping[str, str]) -> None:
    """Write the LoRA in ``weights`` of a stage, with its ``card``.

    Raises `WeightsError` where there is none, or it acts elsewhere than after pictures.
    """
    lora = model.lora
    if lora is None or lora.after != "image":
        raise WeightsError(
            'the runtime takes updates of LoRA(after="image") alone; train such ones'
        )
    pairs: dict[int, dict[str, tuple[Tensor, Tensor]]] = {}
    try:
        with safe_open(weights, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                if found := _NAME.search(name):
                    up_MR = file.get_tensor(name.replace("lora_A", "lora_B"))
                    pair = file.get_tensor(name), up_MR * (lora.alpha / lora.rank)
                    pairs.setdefault(int(found[1]), {})[found[2]] = pair
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{weights} cannot be read ({error}); train the stage again") from error
    if not pairs:
        raise WeightsError(f"{weights} holds no LoRA; name what a stage with it has left")
    llm = model.llm.rstrip("/").rsplit("/", 1)[-1]
    save_updates(path, pairs, llm, card)
