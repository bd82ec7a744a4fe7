"""A run that is small enough for a test: the real model, data and engine at 64 x 64."""

import hashlib
import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hmhi.training.tasks as tasks
import hmhi.training.train as engine
from hmhi.config import Config, config_from_dict
from hmhi.models.weights import load_state
from hmhi.training.train import train_step

TINY: dict[str, Any] = {
    "model": {
        "backbone": "mit_b0",
        "flow_adapters": False,
        "memory_stages": [2],
        "high_to_shallow": "none",
        "shallow_to_high": "none",
        "memory_frames": 2,
        "ffn_channels": 16,
        "decoder_channels": 8,
    },
    "data": {
        "train": ["synthetic"],
        "val": ["synthetic"],
        "image_size": [64, 64],
        "clip_frames": 2,
        "workers": 0,
        "synthetic": {"videos": 8, "val_videos": 2, "val_frames": 3, "size": [64, 64]},
    },
    "train": {"epochs": 2, "batch_size": 2, "lr": 1e-3, "log_every": 1, "val_every": 0},
}


OBJECTS: dict[str, Any] = {
    "model": {
        "kind": "hmmn",
        "hmmn": {
            "trunk": "lite0",
            "key_channels": [8, 8, 8],
            "value_channels": [8, 8, 16],
            "decoder_channels": 8,
            "topk": 4,
        },
    },
    "data": {
        **TINY["data"],
        "objects": 2,
        "sampler": "gaps",
        "curriculum": [[0, 0], [0.5, 4]],
        "clip_frames": 3,
        "synthetic": {"videos": 4, "val_videos": 2, "val_frames": 4, "size": [64, 64]},
    },
    "train": {**TINY["train"], "freeze_batchnorm": True, "object_loss": {"dice": 1.0}},
    "infer": {"short_side": 64},
}


def tiny_objects(output: Path, *overrides: str) -> Config:
    """HMMN: two steps of two clips with up to two objects in each of two epochs, without validation."""
    return config_from_dict(OBJECTS, [*overrides, f"train.output={output}"])


def tiny_config(output: Path, *overrides: str) -> Config:
    """Four steps of two clips in each of two epochs, without validation."""
    return config_from_dict(TINY, [*overrides, f"train.output={output}"])


def fingerprint(checkpoint: Path) -> str:
    """Hash of everything that training changes: weights, optimiser, progress, random states."""
    saved = load_state(checkpoint)
    digest = hashlib.sha256()
    _update(digest, {"model": saved["model"], **saved["training"]})
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in value:
            digest.update(str(key).encode())
            _update(digest, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _update(digest, item)
    else:
        digest.update(repr(value).encode())


def records(folder: Path) -> list[dict[str, Any]]:
    """What a run has written to metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(one: Path, other: Path) -> None:
    """Two runs have the same last checkpoint and wrote the same losses."""
    assert fingerprint(one / "ckpt" / "last.pt") == fingerprint(other / "ckpt" / "last.pt")
    losses = [
        [(r["step"], r["train/loss"]) for r in records(run) if "train/loss" in r] for run in (one, other)
    ]
    assert losses[0] == losses[1]


def signal_at_step(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal in the middle of its `step`-th call of train_step, once."""
    calls = []

    def counted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), number)
        return train_step(*args)

    monkeypatch.setattr(engine, "train_step", counted)


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Make the loss of some optimiser steps infinite."""
    calls, loss = [], tasks.segmentation_loss

    def spoiled(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        terms = loss(*args, **kwargs)
        return {**terms, "loss": terms["loss"] * torch.inf} if len(calls) in steps else terms

    monkeypatch.setattr(tasks, "segmentation_loss", spoiled)


def run_ranks(target: Callable[..., None], *args: Any, world_size: int = 2, timeout: float = 90) -> list[int]:
    """Run `target` in processes that see torchrun's environment; their exit codes, by rank."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hmhi.training.train"])  # the slow imports, once for all tests
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        context.Process(target=_enter, args=(rank, world_size, port, target, args))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
        process.join()
    assert not hung, f"{len(hung)} of {world_size} ranks hung"
    return [process.exitcode or 0 for process in processes]


def _enter(rank: int, world_size: int, port: int, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)
    target(*args)
