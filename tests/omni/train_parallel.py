"""What `torchrun` starts in the tests: a two-stage pipeline against one process, bit for bit named.

Run as ``torchrun --nproc-per-node 2 train_parallel.py OUT``: writes the losses and gradients.
"""

import sys

import torch

from omni.train.bridges import Projector
from omni.train.pipeline import Pipeline
from omni.train.synthetic import WIDTH, MadeUp, TinyModel
from omni.train.world import world


def batch_of(model):
    sources = [MadeUp.Config(modality=m, size=8).build(None, 0) for m in ("text", "audio")]
    examples = [item for source in sources for item in source.held_out(4)]
    rows, _ = model.bridge([m for e in examples for m in e.media])
    return model.batch(model.lay_out(examples, rows), packed=False)


def build():
    torch.set_num_threads(1)
    model = TinyModel(bridges={"audio": Projector.Config(features=WIDTH)}, layers=3).build(3)
    model.freeze(("bridges", "llm"))
    return model


def main(out: str) -> None:
    for schedule in ("gpipe", "1f1b"):
        model = build()
        with_all = Pipeline(model, HERE, micro_batches=4, schedule=schedule)
        loss = with_all.step(batch_of(model))
        gradients = {n: p.grad for n, p in with_all.parameters.items()}
        torch.save((loss, gradients), f"{out}/{schedule}-{HERE.rank}.pt")


if __name__ == "__main__":
    with world("cpu") as HERE:
        main(sys.argv[1])
