"""A training run and its parts, built from a config."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from hmhi.config import Config, ConfigError, save_config
from hmhi.data.dataset import ValVideo
from hmhi.data.loader import TrainLoader, build_train_loader, build_val_videos
from hmhi.data.objects import LabelledVideo
from hmhi.data.provenance import flow_records
from hmhi.flow.provenance import flow_mismatch
from hmhi.models.build import build_model
from hmhi.models.imagenet import find_package
from hmhi.models.pretrained import PACKAGE, encoder_name, load_pretrained
from hmhi.models.weights import load_exactly, load_state, model_from
from hmhi.runtime import distributed
from hmhi.runtime.distributed import Ranks
from hmhi.runtime.interrupt import StopSignal
from hmhi.runtime.precision import compile_parts
from hmhi.training import checkpoint
from hmhi.training.checkpoint import Progress, TrainState
from hmhi.training.logs import RunLogger, Tracker, environment
from hmhi.training.optim import build_optimizer
from hmhi.training.tasks import Task, task_of
from hmhi.training.writer import CheckpointWriter

log = logging.getLogger(__name__)

ValSets = Mapping[str, Sequence[ValVideo | LabelledVideo]]
"""Data set to its validation videos."""


@dataclass(kw_only=True)
class Run:
    """A `TrainState` and what moves it."""

    state: TrainState
    task: Task
    """How the network is trained and scored."""
    parallel: nn.Module
    """Called for training; joins the ranks' gradients."""
    loader: TrainLoader
    val_videos: ValSets
    folder: Path
    logger: RunLogger
    stop: StopSignal
    bar: tqdm
    accumulate: int
    """Batches of each optimiser step."""
    epochs: int
    """Passes over the training clips; the last one may be cut short."""
    total_steps: int
    """Optimiser steps of the whole run."""
    best: float | None
    """J&F of ``best.pt`` on the first validation set; None before there is such a file."""
    writer: CheckpointWriter = field(default_factory=CheckpointWriter)
    saved_at: float = field(default_factory=time.monotonic)
    """When ``last.pt`` was last saved, or the run began."""
    save_due: bool = False
    """Whether ``last.pt`` is to be saved after this step; all ranks agree on it."""


def build_run(
    config: Config,
    ranks: Ranks,
    folder: Path,
    *,
    resume: str | Path | None,
    force: bool,
    tracker: Tracker | None = None,
) -> Run:
    """Make everything that `fit` needs; nothing but logs has been written when it fails."""
    # a) data first: what is missing there shows before anything slow
    loader, val_videos = build_data(config, ranks.rank, ranks.world_size)

    # b) model, optimiser and the place to continue from
    saved = find_checkpoint(folder / "ckpt", resume)
    if saved is None:
        check_weights(config)
    state = build_state(config, ranks, fresh=saved is None)
    parallel = distributed.parallel(state.model, ranks)
    torch.manual_seed(config.train.seed + 1 + ranks.rank)  # dropout differs between ranks
    if saved is not None:
        continue_from(state, *saved, batches=len(loader), force=force)
    places = distributed.gather((state.progress.epoch, state.progress.batch, state.progress.step))
    if len(set(places)) > 1:
        raise ConfigError(
            f"ranks found different checkpoints in {folder}; it must be a folder that all machines share"
        )

    # c) what the reader of the run folder needs, before step 1
    if ranks.is_main:
        save_config(config, folder / "config.yaml")
        (folder / "environment.json").write_text(
            json.dumps(state.environment, indent=2) + "\n", encoding="utf-8"
        )
    # The last step of an epoch may have fewer than accumulate batches, but for train.effective_batch.
    accumulate = config.train.accumulation(ranks.world_size)
    steps = math.ceil(len(loader) / accumulate)
    epochs, total = run_length(config, steps)
    describe(state, steps, epochs, folder)
    done = state.progress.step
    return Run(
        state=state, task=task_of(config), parallel=parallel, loader=loader, val_videos=val_videos, folder=folder,
        logger=RunLogger(
            folder, active=ranks.is_main, step=done, validated=state.progress.batch == 0, tracker=tracker
        ),
        stop=StopSignal(), accumulate=accumulate, epochs=epochs, total_steps=total,
        best=checkpoint.best_score(folder / "ckpt", config.data.val),
        bar=tqdm(
            total=total, initial=done, unit="step", disable=not (ranks.is_main and sys.stderr.isatty())
        ),
    )  # fmt: skip


def continue_from(
    state: TrainState, source: Path, content: Mapping[str, Any], *, batches: int, force: bool
) -> None:
    """Restore a checkpoint; under ``force`` an epoch, of `batches` now, may have become shorter."""
    checkpoint.restore(state, content, source, force=force)
    progress = state.progress
    progress.batch = min(progress.batch, batches)
    log.info("continuing from %s: epoch %d, step %d", source, progress.epoch + 1, progress.step)


def run_length(config: Config, steps: int) -> tuple[int, int]:
    """Epochs, and optimiser steps of all of them, where one whole epoch has so many."""
    total = config.train.steps
    if total is None:
        return config.train.epochs, steps * config.train.epochs
    return math.ceil(total / steps), total


def describe(state: TrainState, steps: int, epochs: int, folder: Path) -> None:
    """Log what is trained, and in how many steps of how many clips."""
    cfg, ranks = state.config.train, state.ranks
    log.info(
        "%s on %d x %s: %d steps of %d clips in each of %d epochs, %.1f M parameters, run folder %s",
        encoder_name(state.config.model), ranks.world_size, ranks.device.type, steps,
        cfg.batch_size * ranks.world_size * cfg.accumulation(ranks.world_size), epochs,
        sum(p.numel() for p in state.model.parameters()) / 1e6, folder,
    )  # fmt: skip


def build_data(config: Config, rank: int = 0, world_size: int = 1) -> tuple[TrainLoader, ValSets]:
    """This rank's training loader, and the validation videos by data set.

    Raises:
        ConfigError: A data set's name is unknown, or the clips are too short for the model.
        FileNotFoundError: A data set is not where ``data.root`` says.
    """
    if (config.data.objects or config.model.memory_stages) and config.data.clip_frames < 2:
        what = "" if config.data.objects else " (model.memory_stages)"
        raise ConfigError(f"data.clip_frames must be at least 2 to train a memory{what}")
    cfg = config.train
    group = 1 if cfg.effective_batch is None else cfg.accumulation(world_size)
    loader = build_train_loader(
        config.data, cfg.batch_size, cfg.seed, rank, world_size, timeout=60 * cfg.timeout, group=group
    )
    val_sets = config.data.val if cfg.val_every else []
    return loader, {name: build_val_videos(config.data, name) for name in val_sets}


def check_inputs(config: Config, resume: str | Path | None = None) -> str:
    """Find all that a run reads, without starting it; says what it found, or raises what `fit` would."""
    loader, val_videos = build_data(config)
    if find_checkpoint(Path(config.train.output) / "ckpt", resume) is None:
        check_weights(config)
    counts = ", ".join(f"{len(videos)} videos of {name}" for name, videos in val_videos.items())
    trained = f"{len(loader)} batches of {', '.join(config.data.train)} in an epoch of one process"
    return f"{trained}; validation on {counts or 'nothing'}"


def check_weights(config: Config) -> None:
    """Raise FileNotFoundError or CheckpointError where the weights that a new run starts from are missing."""
    cfg = config.train
    if cfg.load_from is not None:
        if not Path(cfg.load_from).is_file():
            raise FileNotFoundError(f"train.load_from: checkpoint {cfg.load_from} not found")
    elif cfg.pretrained == PACKAGE:
        find_package(encoder_name(config.model))
    elif cfg.pretrained is not None and not Path(cfg.pretrained).is_file():
        raise FileNotFoundError(
            f"train.pretrained: {cfg.pretrained} not found; docs/TRAINING.md says which file belongs there, and "
            f"train.pretrained=null starts from random weights"
        )


def find_checkpoint(folder: Path, resume: str | Path | None) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that ``--resume`` means, or None to start anew.

    Args:
        folder: The run's ``ckpt`` folder.
        resume: ``auto``, a file, or None.

    Raises:
        ConfigError: Another run in the folder would be overwritten.
        FileNotFoundError: The given file does not exist.
        CheckpointError: It cannot be read.
    """
    if resume == "auto":
        found = checkpoint.load_latest(folder)
        if found is None:
            log.info("no checkpoint in %s yet, starting anew", folder)
        return found
    elsewhere = resume is None or Path(resume).resolve().parent != folder.resolve()
    if elsewhere and checkpoint.resumable(folder):
        raise ConfigError(
            f"{folder.parent} already holds {'a' if resume is None else 'another'} run: continue it with --resume "
            f"auto, choose another folder with train.output=..., or remove it"
        )
    return None if resume is None else (Path(resume), load_state(resume))


def build_state(config: Config, ranks: Ranks, *, fresh: bool) -> TrainState:
    """Model, optimiser and moving average at step 0.

    Args:
        config: The experiment.
        ranks: This process's place.
        fresh: Read ``train.load_from`` or ``train.pretrained``; a resumed run needs neither.
    """
    cfg = config.train
    flow = {} if config.data.objects else flow_records(config.data, config.data.train, "train")
    torch.manual_seed(cfg.seed)
    model = build_model(config.model)
    if fresh:
        load_start(model, config, flow)
    model.to(ranks.device)
    ema = None if cfg.ema is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(cfg.ema))
    if cfg.checkpoint_activations:
        model.recompute_steps = True
    if cfg.compile:
        compile_parts(model)  # in place: the keys of the state dict stay as they are
    return TrainState(
        config=config, ranks=ranks, environment=environment(), flow=flow, model=model, ema=ema,
        progress=Progress(), optimizer=build_optimizer(model, cfg),
        scaler=torch.amp.GradScaler(ranks.device.type, enabled=cfg.precision == "fp16"),
    )  # fmt: skip


def load_start(model: nn.Module, config: Config, flow: Mapping[str, Mapping[str, str]]) -> None:
    """Give a new model the weights that ``train.load_from`` or ``train.pretrained`` names, if any.

    Logs a warning where the flow to train on is of another kind than that of ``load_from``.
    """
    cfg = config.train
    if cfg.load_from is not None:
        start = load_state(cfg.load_from)
        load_exactly(model, model_from(start, Path(cfg.load_from))[0].state_dict(), cfg.load_from)
        log.info("weights from %s", cfg.load_from)
        found = ((name, flow_mismatch(start.get("flow", {}), record)) for name, record in flow.items())
        if differing := "; ".join(f"{name} has {mismatch}" for name, mismatch in found if mismatch):
            log.warning("training reads other flow than %s was trained on: %s", cfg.load_from, differing)
    elif cfg.pretrained is not None:
        load_pretrained(model, cfg.pretrained, config.model)
        log.info("backbone weights from %s", cfg.pretrained)
