"""Ranks of a run of training or inference: torchrun's environment, or one process without any environment.

Everything below does the obvious thing in a single process, so that callers have no second path.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hmhi.errors import UserError


@dataclass(frozen=True)
class Ranks:
    """This process's place in the run."""

    rank: int
    """Number of this process over all machines, from 0."""
    world_size: int
    """Number of processes over all machines."""
    device: torch.device
    """Where this process computes."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0


@contextmanager
def process_group(timeout: timedelta = timedelta(minutes=15)) -> Iterator[Ranks]:
    """Join the other ranks for the length of a ``with`` block.

    Under torchrun the group is nccl on CUDA and gloo on the CPU; without torchrun's variables there is none.

    Args:
        timeout: How long a collective waits for the slowest rank, a whole validation for instance.

    Raises:
        UserError: There are more processes on this machine than GPUs.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        local_rank, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local_rank >= gpus:
            raise UserError(
                f"process {local_rank} has no GPU, {gpus} visible; start at most {gpus} processes"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        yield Ranks(0, 1, device)
        return
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", timeout=timeout, **_fresh_store(timeout)
    )
    yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    # Only after success: with a failed peer nccl would wait here, and leaving is what tells the peers.
    dist.destroy_process_group()


def _fresh_store(timeout: timedelta) -> dict[str, Any]:
    """Where ranks that torchrun has started again meet: not at the addresses of those that died.

    Torchrun keeps one store for all attempts. It counts them for each machine apart, so that the count is no common
    prefix for several machines; there, the whole command has to be started again.
    """
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if not attempt or os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]:
        return {}
    store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
    return {
        "store": dist.PrefixStore(f"attempt{attempt}", store), "rank": rank, "world_size": world_size,
    }  # fmt: skip


def parallel(model: nn.Module, ranks: Ranks) -> nn.Module:
    """The module whose call trains ``model`` on all ranks; ``model`` itself in a single process.

    Every parameter must take part in every forward pass: unused ones are not searched for.
    """
    if not dist.is_initialized():
        return model
    devices = [ranks.device] if ranks.device.type == "cuda" else None
    # Kernels with one input channel have two equally valid stride patterns; torch warns of it on every rank.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)


def all_reduce(values: list[float], op: Literal["mean", "max"], device: torch.device) -> list[float]:
    """Reduce a few scalars over ranks.

    Args:
        values: As many on every rank.
        op: What the ranks' values become.
        device: Where this rank computes.
    """
    if not dist.is_initialized():
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX if op == "max" else dist.ReduceOp.SUM)
    if op == "mean":
        tensor /= dist.get_world_size()
    return list(tensor.tolist())


def gather(value: Any) -> list[Any]:
    """Every rank's picklable value, in the order of ranks, on every rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
