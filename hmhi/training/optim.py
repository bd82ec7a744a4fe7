"""Optimiser, parameter groups and learning-rate schedules.

A schedule is a pure function of the optimiser step, so that it has no state of its own to save or restore.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hmhi.config import TrainConfig

POSITION_TABLES = ("relative_position_bias_table", "absolute_pos_embed", "pos_embed")
POLY_POWER = 0.9
ENCODERS = ("encoder.", "memory_encoder.trunk.", "query_encoder.", "backbone.", "value_encoder.trunk.")
"""Beginnings of the names of the encoders' parameters, in any of the models."""
_BLOCK = re.compile(r".*?\.?(?:blocks|layer)\d*\.\d+\.")


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, Adam, or SGD with momentum 0.9, over `parameter_groups`."""
    groups = parameter_groups(model, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, fused=True)


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    saved: Mapping[str, Any],
    model: nn.Module,
    former: TrainConfig,
) -> None:
    """Give an optimiser the averages of an earlier one of the same kind, parameter by parameter.

    The settings of its groups stay its own, and the earlier groups may have been others.

    Args:
        optimizer: Of `build_optimizer`; changed in place.
        saved: State dict of the earlier optimiser.
        model: The network that both optimise.
        former: Settings from which the earlier one was built.
    """
    former_numbers = {
        id(parameter): number for number, parameter in enumerate(_parameters(parameter_groups(model, former)))
    }
    state = {
        number: saved["state"][former_numbers[id(parameter)]]
        for number, parameter in enumerate(_parameters(optimizer.param_groups))
        if former_numbers[id(parameter)] in saved["state"]
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _parameters(groups: Sequence[Mapping[str, Any]]) -> list[nn.Parameter]:
    return [parameter for group in groups for parameter in group["params"]]


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Split the trainable parameters by weight decay and learning rate.

    Args:
        model: Network whose parameters are trained; frozen ones are left out.
        config: ``weight_decay`` holds for weight matrices and kernels, and with ``decay_norms`` for vectors (norm
            scales, biases) and position tables too. ``lr_encoder`` belongs to the parameters of `ENCODERS`, times
            ``layer_decay`` to the power of `blocks_after`.

    Returns:
        Groups for a torch optimiser, each with an ``lr_factor`` for `set_learning_rate`; parameters of a group in
        the model's order.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    after = blocks_after(name for name, _ in model.named_parameters())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        spare = parameter.ndim <= 1 or name.rsplit(".", 1)[-1] in POSITION_TABLES
        factor = config.lr_encoder * config.layer_decay ** after[name] if name in after else 1.0
        groups.setdefault((factor, config.decay_norms or not spare), []).append(parameter)
    return [
        {
            "params": groups[factor, decays],
            "weight_decay": config.weight_decay if decays else 0.0,
            "lr_factor": factor,
        }
        for factor, decays in sorted(groups, reverse=True)
    ]


def blocks_after(names: Iterable[str]) -> dict[str, int]:
    """How many blocks of its encoder come after that of a parameter.

    What lies outside the blocks, such as embeddings, belongs to the next one, or at the end to the last. A stage of
    EfficientNet-Lite counts as a block.

    Args:
        names: Of a model's parameters, in its order.

    Returns:
        A number for each name of `ENCODERS`, 0 in the last block.
    """
    places: dict[
        str, list[tuple[str, int]]
    ] = {}  # encoder -> names, and how many blocks have begun before each
    blocks: dict[str, list[str]] = {}
    for name in names:
        encoder = next((prefix for prefix in ENCODERS if name.startswith(prefix)), None)
        if encoder is None:
            continue
        found = blocks.setdefault(encoder, [])
        block = _BLOCK.match(name)
        if block is not None and block[0] not in found:
            found.append(block[0])
        place = len(found) if block is None else found.index(block[0])
        places.setdefault(encoder, []).append((name, place))
    return {
        name: max(len(blocks[encoder]) - 1 - place, 0)
        for encoder, members in places.items()
        for name, place in members
    }


def learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """Learning rate of one optimiser step.

    Linear warm-up to ``config.lr`` over ``config.warmup_steps``, then ``config.schedule`` down to
    ``config.min_lr`` at the end of the run. ``poly`` has power 0.9; ``step`` divides by 10 at each of
    ``config.lr_drops`` and has no such end.

    Args:
        step: Optimiser step, from 0.
        total_steps: Optimiser steps of the whole run.
        config: Peak, warm-up, schedule and end.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "step":
        return config.lr * 0.1 ** sum(step >= drop for drop in config.lr_drops)
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    done = min(done, 1.0)
    left = (1 + math.cos(math.pi * done)) / 2 if config.schedule == "cosine" else (1 - done) ** POLY_POWER
    return config.min_lr + (config.lr - config.min_lr) * left


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate, times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def gradient_norm(parameters: Sequence[nn.Parameter], limit: float | None) -> torch.Tensor:
    """L2 norm of the whole gradient; afterwards the gradient is scaled down to ``limit`` if it is longer.

    A norm that is not finite leaves the gradient unusable: check the returned value before the step.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm
