"""Checkpoints: whole or not there, and enough to go on bit for bit.

A checkpoint is a directory ``step-00000100`` with the tensors in the format of
torch.distributed.checkpoint, which is written sharded by several processes and read by any number,
and JSON beside them. It is written under another name, synced to the disk, and renamed last.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from omni.errors import OmniError
from omni.train.config import differences

FORMAT = 1


class CheckpointError(OmniError):
    """A checkpoint cannot be written, read, or belongs to another run."""


class Checkpoints:
    """The checkpoints of one stage, in one directory. All processes call, the first one renames."""

    def __init__(self, directory: Path, *, keep: int) -> None:
        """``keep``: how many of the newest stay."""
        self.directory, self._keep = directory, keep

    def steps(self) -> list[int]:
        """Of the whole ones, in order."""
        found = self.directory.glob("step-*/state.json")
        return sorted(int(path.parent.name.removeprefix("step-")) for path in found)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.directory / f"step-{step:08d}"

    def save(self, step: int, tensors: dict[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write one. Raises `CheckpointError`; what was there before is then untouched."""
        final = self.path(step)
        temporary = self.directory / f".{final.name}.tmp"
        try:
            if _rank() == 0:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
            _barrier()
            _dcp_save(tensors, temporary)
            _write(temporary / f"random-{_rank()}.json", random_state())
            if _rank() == 0:
                _write(temporary / "state.json", {"format": FORMAT, "step": step, **state})
            _barrier()
            if _rank() == 0:
                if final.exists():  # of a run that went back to an earlier one
                    shutil.rmtree(final)
                _sync(temporary)
                temporary.rename(final)
                _sync(self.directory)
        except (OSError, RuntimeError, CheckpointException) as error:
            if _rank() == 0:
                shutil.rmtree(temporary, ignore_errors=True)
            steps = self.steps()
            last = f"the last good one is {self.path(steps[-1])}" if steps else "there is none yet"
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {self.directory}: "
                f"{_reason(error)}; {last}. Make room and go on with --resume"
            ) from error
        if _rank() == 0:
            for old in self.steps()[: -self._keep]:
                shutil.rmtree(self.path(old), ignore_errors=True)
        return final

    def state(self, step: int) -> dict[str, Any]:
        """The JSON part. Raises `CheckpointError`."""
        path = self.path(step) / "state.json"
        try:
            state: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}); {_older(self, step)}"
            ) from error
        if state.get("format") != FORMAT:
            raise CheckpointError(f"{path} has the format {state.get('format')}, expected {FORMAT}")
        return state

    def load(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Read into ``tensors`` in place, and set this process's random states.

        Raises `CheckpointError` when it is damaged or holds other tensors.
        """
        path = self.path(step)
        try:
            reader = FileSystemReader(path)
            stored = reader.read_metadata().state_dict_metadata
            want = {name: tuple(t.shape) for name, t in tensors.items()}
            have = {name: tuple(getattr(t, "size", ())) for name, t in stored.items()}
            if want != have:
                other = sorted(n for n in want.keys() | have.keys() if want.get(n) != have.get(n))
                raise CheckpointError(
                    f"{path} is of another model: {len(other)} tensors differ, the first is "
                    f"{other[0]} with {have.get(other[0])}, expected {want.get(other[0])}"
                )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that no process group is there
                load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
            own = path / f"random-{_rank()}.json"
            if own.exists():
                set_random_state(json.loads(own.read_text("utf-8")))
        except CheckpointError:
            raise
        except (Exception, CheckpointException) as error:  # which is no Exception
            raise CheckpointError(
                f"{path} cannot be read ({_reason(error)}); {_older(self, step)}"
            ) from error


def refuse_other(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` when a checkpoint's ``model`` or ``recipe`` is not that of now."""
    for key in ("model", "recipe"):
        found = differences(saved.get(key), now[key])
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise CheckpointError(
                f"{path} is of another {key}: {'; '.join(found[:3])}{more}. Go on with the same "
                "one, or begin anew with another --out"
            )


def tensors_of(
    parameters: Mapping[str, torch.nn.Parameter],
    buffers: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> dict[str, Tensor]:
    """Parameters, buffers and the optimiser's state under their names, to be saved or loaded into.

    State that the optimiser has not made yet is made, as zeros.
    """
    tensors = {f"model.{n}": p.detach() for n, p in parameters.items()}
    tensors |= {f"buffer.{n}": b for n, b in buffers.items()}
    names = {p: n for n, p in parameters.items()}
    for group in optimiser.param_groups:
        for p in group["params"]:
            state = optimiser.state[p]
            if not state:
                # What AdamW makes in its first step.
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            tensors |= {f"optimiser.{names[p]}.{k}": t for k, t in state.items()}
    return tensors


def random_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators, as JSON types."""
    name, keys, *rest = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "torch": bytes(torch.get_rng_state().tolist()).hex(),
        "cuda": [bytes(s.tolist()).hex() for s in cuda],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Go on from `random_state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_bytes(state["torch"]))
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_bytes(s) for s in state["cuda"]])


def _bytes(text: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)


def _dcp_save(tensors: dict[str, Tensor], directory: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no process group is there
        save(
            tensors,
            storage_writer=FileSystemWriter(directory, sync_files=True),
            no_dist=not dist.is_initialized(),
        )


def _write(path: Path, value: object) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """Make the names in a directory durable, where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _older(checkpoints: Checkpoints, step: int) -> str:
    older = [s for s in checkpoints.steps() if s < step]
    if not older:
        return "begin anew with another --out"
    return f"delete it to go on from {checkpoints.path(older[-1]).name}"


def _reason(error: BaseException) -> str:
    """What lies below: an exception of torch.distributed.checkpoint holds one for each process."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the disk is full ({error.strerror})"
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
