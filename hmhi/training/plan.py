"""What a run would do and need, told without starting it: ``tools/train.py --dry-run``."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeCopyMode,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hmhi.config import Config, config_to_dict
from hmhi.models.build import build_model
from hmhi.models.hmhi_net import HMHINet
from hmhi.models.prompted import PromptedNet
from hmhi.training.optim import build_optimizer, parameter_groups
from hmhi.training.run import build_data, check_inputs, run_length
from hmhi.training.tasks import task_of

MIB = 2**20


@dataclass(frozen=True)
class MemoryEstimate:
    """MiB of tensors that one process holds."""

    weights: float
    """Parameters and buffers, and their moving average."""
    gradients: float
    """Held all the time by several processes, which join them in place."""
    optimizer: float
    """Its averages."""
    peak: float
    """The most at any time of a step, all of it."""


def describe_plan(config: Config, resume: str | Path | None = None, processes: int = 1) -> str:
    """The resolved config, what is read, what is trained in which steps, and the memory it takes; writes nothing.

    Args:
        config: The experiment.
        resume: As for `fit`.
        processes: Ranks that the run would have.

    Raises:
        UserError: As `fit` does before its first step; also where the first batch cannot be read.
    """
    checked = check_inputs(config, resume)
    largest = [max(config.data.multi_scale)] if config.data.multi_scale else []
    data = replace(config.data, workers=0, multi_scale=largest)
    loader, _ = build_data(replace(config, data=data), world_size=processes)
    batch = next(iter(loader))
    torch.manual_seed(config.train.seed)
    model = build_model(config.model).train()
    shapes = {key: tuple(value.shape) for key, value in batch.items() if isinstance(value, Tensor)}
    sections = [
        yaml.safe_dump(config_to_dict(config), sort_keys=False).rstrip(),
        f"data: {checked}\nfirst batch: " + ", ".join(f"{key} {shape}" for key, shape in shapes.items()),
        _describe_groups(model, config),
        _describe_steps(config, len(loader), processes),
        _describe_memory(model, config, batch, processes),
    ]
    return "\n\n".join(sections)


def _describe_groups(model: nn.Module, config: Config) -> str:
    lines = ["parameter groups:"]
    for group in parameter_groups(model, config.train):
        count = sum(parameter.numel() for parameter in group["params"])
        lines.append(
            f"  {len(group['params'])} tensors, {count / 1e6:.2f} M parameters: peak learning rate "
            f"{config.train.lr * group['lr_factor']:g}, weight decay {group['weight_decay']:g}"
        )
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    return "\n".join([*lines, *([f"  {frozen / 1e6:.2f} M parameters are frozen"] if frozen else [])])


def _describe_steps(config: Config, batches: int, processes: int) -> str:
    cfg = config.train
    passes = cfg.accumulation(processes)
    steps = math.ceil(batches / passes)
    epochs, total = run_length(config, steps)
    return (
        f"steps: {epochs} epochs of {steps}, {total} in all; a step is "
        f"{cfg.batch_size * processes * passes} clips = {cfg.batch_size} x {processes} processes x {passes} passes"
    )


def _describe_memory(
    model: HMHINet | PromptedNet, config: Config, batch: Mapping[str, Any], processes: int
) -> str:
    estimate = estimate_memory(model, config, batch, processes)
    if estimate is None:
        return "memory: not estimated; what this kind of model computes depends on the numbers in the clip"
    saved = estimate.weights + estimate.optimizer
    return (
        f"memory of a process, estimated: {estimate.peak:.0f} MiB at the peak of a step, of which "
        f"weights {estimate.weights:.0f}, gradients {estimate.gradients:.0f}, optimiser {estimate.optimizer:.0f}; "
        f"PyTorch itself and the loader are not counted (docs/TRAINING.md)\n"
        f"checkpoints: {saved:.0f} MiB each, and a copy in the CPU's memory while one is written"
    )


def estimate_memory(
    model: HMHINet | PromptedNet, config: Config, batch: Mapping[str, Any], processes: int = 1
) -> MemoryEstimate | None:
    """Go through one step with tensors that have shapes and no numbers, and count what is alive.

    Args:
        model: The network, in training mode; left as it is.
        config: How it is trained.
        batch: Of the training loader.
        processes: Ranks of the run.

    Returns:
        None where the step depends on the tensors' numbers.
    """
    cfg, fake = config.train, FakeTensorMode()
    with FakeCopyMode(fake):
        model, batch = copy.deepcopy((model, dict(batch)))
    model.recompute_steps = cfg.checkpoint_activations
    try:
        with fake, _LiveTensors() as live:
            task, optimizer = task_of(config), build_optimizer(model, cfg)
            live.note([*model.parameters(), *model.buffers()])
            weights = live.bytes
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            gradients = live.bytes - weights
            optimizer.step()
            averages = live.bytes - weights - gradients
            if processes == 1:
                optimizer.zero_grad(set_to_none=True)
            task.losses(model, batch, 0.0)["loss"].backward()
            optimizer.step()
    except (DataDependentOutputException, DynamicOutputShapeException):
        return None
    average = 0 if cfg.ema is None else weights
    counts = (weights + average, gradients, averages, live.peak + average)
    return MemoryEstimate(*(count / MIB for count in counts))


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors that were made inside and are still there, each storage once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def note(self, tensors: list[Tensor]) -> None:
        """Count these, too."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            if storage not in self._known:
                self._known.add(storage)
                self.bytes += storage.nbytes()
                self.peak = max(self.peak, self.bytes)
                weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, count: int) -> None:
        self.bytes -= count

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.note([x for x in tree_leaves(out) if isinstance(x, Tensor)])
        return out
