"""Checkpoints: atomic to write, safe to read, and exact to resume from.

A run keeps ``ckpt/last.pt``, the one before it (``previous.pt``), ``ckpt/best.pt`` with weights only, and
optionally ``ckpt/epoch_0010.pt`` ... for good. Every file loads with ``torch.load(..., weights_only=True)``:

    format       "hmhi-1"
    config       the resolved config as nested plain values
    environment  git revision and versions that wrote it
    flow         training set -> how its flow was made (hmhi/flow/provenance.py)
    model        the weights to use: the moving average where there is one
    scores       (best.pt) mean J, F and J&F of each validation set
    training     (all but best.pt) raw weights beside an average, optimiser, scaler, progress, random states
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hmhi.config import NEUTRAL_KEYS, Config, ConfigError, config_from_dict, config_to_dict
from hmhi.models.key_maps import CheckpointError
from hmhi.models.weights import FORMAT, load_exactly, load_state
from hmhi.runtime import distributed
from hmhi.runtime.distributed import Ranks
from hmhi.training.optim import load_optimizer

log = logging.getLogger(__name__)

FREE_KEYS = NEUTRAL_KEYS | {"train.output", "train.pretrained", "train.load_from", "train.val_every"}
"""Settings that may differ on resume, beside ``infer.*``: the rest of the run does not depend on them."""


@dataclass
class Progress:
    """Where a run stands."""

    epoch: int = 0
    """Epoch under way, from 0; the number of epochs once the run is complete."""
    batch: int = 0
    """Batches of this epoch that each rank has used; all of them until the epoch is validated."""
    step: int = 0
    """Optimiser steps so far, skipped ones included."""
    updates: int = 0
    """Optimiser steps that changed the weights."""
    bad_steps: int = 0
    """Skipped steps in a row."""


KINDS: Mapping[str, Any] = {
    "config": dict,
    "model": {"": Tensor},
    "training": {
        "world_size": int,
        "progress": {"epoch": int, "batch": int, "step": int, "bad_steps": int},
        "raw_model": dict | None,
        "ema_updates": int,
        "optimizer": {"state": {"": dict}},
        "scaler": dict,
        "random": [{"cpu": Tensor}],
    },
}
"""What a checkpoint must hold to be resumed; the empty key stands for all others."""


@dataclass(kw_only=True)
class TrainState:
    """Everything that training changes."""

    config: Config
    ranks: Ranks
    environment: dict[str, str]
    flow: dict[str, dict[str, str]]
    """Training set -> how its flow was made."""
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None
    progress: Progress

    @property
    def scored_model(self) -> nn.Module:
        """What is validated and released: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module


def weights_dict(state: TrainState) -> dict[str, Any]:
    """What inference needs, for ``best.pt``."""
    return {
        "format": FORMAT,
        "config": config_to_dict(state.config),
        "environment": state.environment,
        "flow": state.flow,
        "model": state.scored_model.state_dict(),
    }


def training_dict(state: TrainState) -> dict[str, Any]:
    """`weights_dict` and all that a later process needs to continue. Every rank must call it."""
    return {
        **weights_dict(state),
        "training": {
            "world_size": state.ranks.world_size,
            "progress": dataclasses.asdict(state.progress),
            "raw_model": None if state.ema is None else state.model.state_dict(),
            "ema_updates": 0 if state.ema is None else int(state.ema.n_averaged),
            "optimizer": state.optimizer.state_dict(),
            "scaler": state.scaler.state_dict(),
            "random": distributed.gather(_random_state(state.ranks.device)),
        },
    }


def restore(state: TrainState, saved: Mapping[str, Any], source: Path, *, force: bool = False) -> None:
    """Continue where a checkpoint stopped.

    Args:
        state: A freshly built run; changed in place.
        saved: Content of the checkpoint, from `load_state`.
        source: File it came from, for messages.
        force: Accept another config or number of ranks. The given config then holds, and the run is no exact
            continuation: the place within the epoch is converted to the new batch size.

    Raises:
        CheckpointError: The file holds no training state, or a damaged one.
        ConfigError: Config or number of ranks differ, and ``force`` is not set.
    """
    training = _training_part(saved, source)
    differences = run_differences(state, saved)
    if differences and not force:
        raise ConfigError(
            f"{source} belongs to a different run:\n  "
            + "\n  ".join(differences)
            + "\nGive the old values, start another run (train.output=...), or continue inexactly with --force"
        )
    raw_model = training["raw_model"]
    load_exactly(state.model, saved["model"] if raw_model is None else raw_model, str(source))
    if state.ema is not None:
        load_exactly(state.ema.module, saved["model"], str(source))
        state.ema.n_averaged.fill_(training["ema_updates"])
    former = config_from_dict(saved["config"])
    _restore_optimizer(state, training, former)
    _restore_progress(state, training, former)
    if state.ranks.rank < len(training["random"]):
        _set_random_state(training["random"][state.ranks.rank], state.ranks.device)


def _training_part(saved: Mapping[str, Any], source: Path) -> Mapping[str, Any]:
    """What `training_dict` put beside the weights, checked."""
    if saved.get("format") != FORMAT or "training" not in saved:
        raise CheckpointError(
            f"{source} holds weights only and cannot be resumed; use --load-from to start from it"
        )
    misfit = _misfit(saved, KINDS)
    if misfit is not None:
        raise CheckpointError(f"{source} is damaged: its {misfit} is missing or of a wrong kind")
    training: Mapping[str, Any] = saved["training"]
    return training


def _misfit(value: Any, kind: Any, key: str = "") -> str | None:
    """Key of the first part of `value` that is not of its kind: a type, a dict of kinds, or a list with one kind."""
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return key
        parts = [
            (value.get(name, ...), inner, f"{key}.{name}".strip(".")) for name, inner in kind.items() if name
        ]
        if "" in kind:  # of any other name
            parts += [(item, kind[""], key) for name, item in value.items() if name not in kind]
    elif isinstance(kind, list):
        if not isinstance(value, list):
            return key
        parts = [(item, kind[0], key) for item in value]
    else:
        return None if isinstance(value, kind) else key
    return next((found for part in parts if (found := _misfit(*part)) is not None), None)


def _restore_optimizer(state: TrainState, training: Mapping[str, Any], former: Config) -> None:
    """Averages and loss scale, where the optimiser and the precision are still the same."""
    before, now = former.train, state.config.train
    if before.optimizer == now.optimizer:
        load_optimizer(state.optimizer, training["optimizer"], state.model, before)
    else:
        log.warning("the averages of %s are dropped: this run uses %s", before.optimizer, now.optimizer)
    if training["scaler"] and state.scaler.is_enabled():
        state.scaler.load_state_dict(training["scaler"])
    elif training["scaler"] or state.scaler.is_enabled():
        log.warning(
            "the loss scale starts anew: precision was %s, and is %s", before.precision, now.precision
        )


def _restore_progress(state: TrainState, training: Mapping[str, Any], former: Config) -> None:
    progress, saved = state.progress, training["progress"]
    for name in KINDS["training"]["progress"]:
        setattr(progress, name, saved[name])
    progress.updates = saved.get("updates", progress.step)  # the first files do not count them
    before = former.train.batch_size * training["world_size"]
    progress.batch = progress.batch * before // (state.config.train.batch_size * state.ranks.world_size)


def run_differences(state: TrainState, saved: Mapping[str, Any]) -> list[str]:
    """Lines ``key: old in the checkpoint, new now`` of what makes this another run."""
    old = _flat(
        config_to_dict(config_from_dict(saved["config"]))
    )  # fills in keys that are newer than the file
    new = _flat(config_to_dict(state.config))
    free = set(FREE_KEYS)
    # A longer run starts with the same steps, unless something follows the share of the run that is done.
    if state.config.train.schedule in ("constant", "step") and state.config.model.kind == "hmhi":
        free |= {"train.epochs", "train.steps"}
    lines = [
        f"{key}: {old[key]} in the checkpoint, {new[key]} now"
        for key in new
        if old[key] != new[key] and key not in free and not key.startswith("infer.")
    ]
    ranks_then, ranks_now = saved["training"]["world_size"], state.ranks.world_size
    if ranks_then != ranks_now:
        lines.append(f"number of processes: {ranks_then} in the checkpoint, {ranks_now} now")
    return lines


def save(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint so that ``path`` is at every moment the old file or the complete new one.

    Raises:
        OSError: It cannot be written; the old file is intact and nothing half-written is left.
    """
    partial = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise OSError(
            f"cannot write checkpoint {path}: {reason}; is there space on the disk? Older checkpoints are intact"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the renaming itself
    finally:
        os.close(folder)


def save_last(
    content: Mapping[str, Any], folder: Path, *, rotate: bool = True, epoch: int | None = None, most: int = 0
) -> None:
    """Write ``last.pt``.

    Args:
        content: From `training_dict`.
        folder: The run's ``ckpt`` folder.
        rotate: Whether the former ``last.pt`` becomes ``previous.pt``.
        epoch: Epochs done, where a copy is to be kept under this number.
        most: Such copies that stay, the newest ones; 0 for all.
    """
    last = folder / "last.pt"
    fresh = folder / "fresh.pt" if rotate else last
    save(content, fresh)
    if rotate:
        if last.exists():
            os.replace(last, folder / "previous.pt")
        os.replace(fresh, last)
    if epoch is not None:
        save(content, folder / f"epoch_{epoch:04d}.pt")
        for old in _kept(folder)[:-most] if most else []:
            old.unlink()


def _kept(folder: Path) -> list[Path]:
    """The copies that `save_last` keeps, in the order of their epochs."""
    return sorted(folder.glob("epoch_*.pt"), key=lambda path: (len(path.name), path.name))


def best_score(folder: Path, val_sets: Sequence[str]) -> float | None:
    """J&F of ``best.pt`` on the first validation set; None where there is no such file yet."""
    path = folder / "best.pt"
    if not val_sets or not path.exists():
        return None
    try:
        return float(load_state(path)["scores"][val_sets[0]]["JF"])
    except (CheckpointError, KeyError, TypeError, ValueError) as error:
        log.warning("the next validation replaces %s, which does not tell its score (%s)", path, error)
        return None


def load_latest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint of a run that is furthest on, of those that can be read.

    Args:
        folder: The run's ``ckpt`` folder.

    Returns:
        Its path and content; None where there is no checkpoint yet.

    Raises:
        CheckpointError: There are checkpoints, and none can be read.
    """
    candidates = resumable(folder)
    places: dict[Path, tuple[int, int]] = {}
    for path in candidates:
        try:
            places[path] = _place(path)
        except CheckpointError as error:
            log.warning("skipping an unreadable checkpoint: %s", error)
    for path in sorted(places, key=lambda path: places[path], reverse=True):
        try:
            return path, load_state(path)
        except CheckpointError as error:
            log.warning("skipping an unreadable checkpoint: %s", error)
    if candidates:
        raise CheckpointError(f"none of the checkpoints in {folder} can be read; remove them to start anew")
    return None


def resumable(folder: Path) -> list[Path]:
    """Complete checkpoints with training state; of those of the same step the first one is to be preferred."""
    found = [folder / "last.pt", folder / "fresh.pt", folder / "previous.pt", *_kept(folder)]
    return [path for path in found if path.exists()]


def _place(path: Path) -> tuple[int, int]:
    """Step and epoch of a checkpoint; its tensors stay on disk."""
    try:
        progress = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["training"]["progress"]
        return int(progress["step"]), int(progress["epoch"])
    except Exception as error:  # bytes that are no checkpoint make torch raise nearly anything
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__})") from None


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
