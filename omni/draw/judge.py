"""A classifier of drawings that has nothing to do with what draws: which thing, in which colour.

It learns in a minute from the pictures themselves, moved, scaled, blurred and made noisy, and never
sees one that was drawn. Its network and its randomness are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from omni.draw.pictures import Drawing

_SIDE = 32
_BATCH = 64


class Judge:
    """Names what pictures show.

    Shape letters: B pictures, N of them to learn, H and W pixels, K things, C colours.
    """

    def __init__(self, drawings: Sequence[Drawing], seed: int = 0, steps: int = 500) -> None:
        """Learn to tell ``drawings`` apart."""
        self._things = list(dict.fromkeys(d.subject for d in drawings))
        self._colours = list(dict.fromkeys(d.colour for d in drawings))
        things_N = torch.tensor([self._things.index(d.subject) for d in drawings])
        colours_N = torch.tensor([self._colours.index(d.colour) for d in drawings])
        pictures_N3HW = torch.stack([_small(d.render()) for d in drawings])
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self._network = _Network(len(self._things), len(self._colours))
            optimiser = torch.optim.AdamW(self._network.parameters(), 2e-3, weight_decay=0.05)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, steps)
            for _ in range(steps):
                some = torch.randint(len(drawings), (_BATCH,))
                things_BK, colours_BC = self._network(_varied(pictures_N3HW[some]))
                loss = F.cross_entropy(things_BK, things_N[some])
                loss = loss + F.cross_entropy(colours_BC, colours_N[some])
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
                schedule.step()
        self._network.eval()

    @torch.inference_mode()
    def sees(self, asked: Drawing, pixels: NDArray[np.uint8]) -> tuple[bool, bool]:
        """Whether pixels (H, W, 3) show the thing, and the colour, that was asked for."""
        things_1K, colours_1C = self._network(_small(pixels)[None])
        return (
            self._things[int(things_1K.argmax())] == asked.subject,
            self._colours[int(colours_1C.argmax())] == asked.colour,
        )


class _Network(nn.Module):
    """Three convolutions with their own means of the map, and a word for thing and colour each."""

    def __init__(self, things: int, colours: int) -> None:
        super().__init__()
        widths = (3, 32, 64, 128)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3))
        width = widths[-1] * (_SIDE // 2 ** (len(widths) - 1)) ** 2
        self.thing, self.colour = nn.Linear(width, things), nn.Linear(width, colours)

    def forward(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of things and (B, C) of colours."""
        x = self.body(x_B3HW)
        return self.thing(x), self.colour(x)


def _small(pixels: NDArray[np.uint8]) -> Tensor:
    image = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1) / 127.5 - 1


def _varied(x_B3HW: Tensor) -> Tensor:
    """Moved by up to a tenth, scaled, some of them blurred, with noise; the ground stays white."""
    count = len(x_B3HW)
    scale_B = 1 + 0.12 * (2 * torch.rand(count) - 1)
    shift_B2 = 0.12 * (2 * torch.rand(count, 2) - 1)
    place_B23 = torch.zeros(count, 2, 3)
    place_B23[:, 0, 0] = place_B23[:, 1, 1] = scale_B
    place_B23[:, :, 2] = shift_B2
    grid = F.affine_grid(place_B23, list(x_B3HW.shape), align_corners=False)
    moved = 1 - F.grid_sample(1 - x_B3HW, grid, align_corners=False)
    blurred = F.avg_pool2d(F.pad(moved, (1, 1, 1, 1), mode="replicate"), 3, 1)
    much_B = torch.rand(count, 1, 1, 1)
    return torch.lerp(moved, blurred, much_B) + 0.06 * torch.randn_like(moved)
