"""Low-rank updates of the LLM's matrices that act from a conversation's first picture on.

Before that the LLM is what it was, bit for bit, and what its cache holds stays valid when a picture
comes. Sources: Hu et al., LoRA (2021); Greenewald et al., Activated LoRA (2025), for updates that
act from a point of the sequence on.

Shape letters: N rows (new tokens), K input width, M output width, R rank of all updates of a fused
matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from omni.adapters.files import not_an_adapter, read_adapter, write_adapter
from omni.llm.linear import Linear

FUSED: Mapping[str, tuple[str, ...]] = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "out": ("o_proj",),
    "gate_up": ("gate_proj", "up_proj"),
    "down": ("down_proj",),
}
"""The matrices of a layer in `omni.llm.decoder`, and those of a checkpoint in them."""


class Updates:
    """For each layer that learned: pairs (down (R, K), up (M, R)), scaled, by `FUSED`."""

    def __init__(self, layers: Mapping[int, Mapping[str, tuple[Tensor, Tensor]]], llm: str) -> None:
        self.layers = layers
        self.llm = llm
        """Name of the LLM that they belong to."""

    @classmethod
    def load(cls, path: Path) -> tuple[Updates, dict[str, str]]:
        """What `save` wrote, in float32, and its card. Raises `WeightsError` for any other file."""
        config, tensors, card = read_adapter(path)
        try:
            plain: dict[int, dict[str, tuple[Tensor, Tensor]]] = {}
            for name in tensors:
                layer, matrix, which = name.split(".")
                if which == "down":
                    pair = tensors[name], tensors[f"{layer}.{matrix}.up"]
                    plain.setdefault(int(layer), {})[matrix] = pair
            layers = {i: _fused(plain[i]) for i in sorted(plain)}
            return cls(layers, config["llm"]), card
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise not_an_adapter(path, error) from error


def save_updates(
    path: Path,
    plain: Mapping[int, Mapping[str, tuple[Tensor, Tensor]]],
    llm: str,
    card: Mapping[str, str],
) -> None:
    """Write pairs (down (r, K), up (M, r)), scaled, by the names of a checkpoint's matrices."""
    tensors = {
        f"{layer}.{matrix}.{which}": tensor
        for layer, matrices in plain.items()
        for matrix, pair in matrices.items()
        for which, tensor in zip(("down", "up"), pair, strict=True)
    }
    write_adapter(path, tensors, {"llm": llm}, card)


class Acting:
    """The rows of the pass in progress that updates act on; None: none of them."""

    rows: Tensor | None = None


class UpdatedLinear:
    """A matrix with an update that acts on some rows. See `omni.llm.linear.Linear`."""

    def __init__(self, linear: Linear, update: tuple[Tensor, Tensor], acting: Acting) -> None:
        self._linear, self._acting = linear, acting
        down_RK, up_MR = update
        self._down, self._up = down_RK.t().contiguous(), up_MR.t().contiguous()
        self.bytes = linear.bytes + down_RK.nbytes + up_MR.nbytes

    def __call__(self, x_NK: Tensor) -> Tensor:
        """Apply the matrix to every row, and the update to those that it acts on."""
        y_NM = self._linear(x_NK)
        rows = self._acting.rows
        if rows is None:
            return y_NM
        if len(rows) == len(x_NK):
            return y_NM.addmm_((x_NK @ self._down), self._up)
        return y_NM.index_add_(0, rows, (x_NK[rows] @ self._down) @ self._up)


def acting_rows(
    begins: Sequence[tuple[int, int, int | None]], device: torch.device
) -> Tensor | None:
    """Rows of a pass from the first picture of each sequence on; None where there are none.

    ``begins``: for each sequence its first and last + 1 new token's index, and that of its first
    picture's.
    """
    rows: list[int] = []
    at = 0
    for begin, end, picture in begins:
        if picture is not None:
            rows.extend(range(at + max(picture - begin, 0), at + end - begin))
        at += end - begin
    return torch.tensor(rows, device=device) if rows else None


def _fused(plain: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    if odd := set(plain) - {name for names in FUSED.values() for name in names}:
        raise ValueError(f"unknown matrix {sorted(odd)[0]}")
    return {
        fused: (
            torch.cat([plain[name][0] for name in names]),
            torch.block_diag(*[plain[name][1] for name in names]),  # type: ignore[no-untyped-call]
        )
        for fused, names in FUSED.items()
        if any(name in plain for name in names)
    }
