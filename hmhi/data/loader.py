"""Batches of clips for training, and the videos of a validation set.

The order of an epoch is one permutation of all samples, drawn from (seed, epoch). Global batch k is the
k-th slice of ``batch_size * world_size`` samples, of which rank r takes the r-th part; so one process with
batch 4 and two with batch 2 see the same samples at each step. What does not fill a group of global batches
(one batch, by default) at the end of an epoch is left out. Only where an epoch would be empty, the permutation is
repeated until it fills one group.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from hmhi.config import DataConfig
from hmhi.data.catalog import SYNTHETIC
from hmhi.data.dataset import ClipDataset, ClipKey, SyntheticClips, SyntheticVideo, ValVideo, VideoDataset
from hmhi.data.index import scan
from hmhi.data.objects import LabelledVideo, ObjectClipDataset, SyntheticObjectClips, build_object_videos
from hmhi.errors import BadFileError

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # linux/prctl.h

MAX_SUBSTITUTES = 20
"""Unreadable samples in a row after which ``on_bad_sample: skip`` gives up."""

ClipSource = ClipDataset | SyntheticClips | ObjectClipDataset | SyntheticObjectClips


class LoaderError(RuntimeError):
    """A loader process died, or gave nothing for too long."""


class JoinedClips(Dataset[dict[str, Any]]):
    """Several data sets in a row.

    An item gains ``bad``, messages about files that could not be read. With ``on_bad_sample: skip`` another
    clip of the same epoch takes their place; with ``raise`` the item holds nothing else, and the loader
    raises in the main process, where the message stays one line.
    """

    def __init__(self, parts: Sequence[ClipSource], seed: int, skip_bad: bool) -> None:
        self.parts = tuple(parts)
        self.seed = seed
        self.skip_bad = skip_bad
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, key: ClipKey) -> dict[str, Any]:
        """The clip of a key, or messages; see the class."""
        bad: list[str] = []
        substitutes = np.random.default_rng([self.seed, key.epoch, key.index, 1])
        while len(bad) <= MAX_SUBSTITUTES:
            part = int(np.searchsorted(self._starts, key.index, side="right")) - 1
            try:
                item = self.parts[part][replace(key, index=key.index - int(self._starts[part]))]
                return {**item, "bad": bad}
            except BadFileError as error:
                bad.append(str(error))
            if not self.skip_bad:
                break
            key = replace(key, index=int(substitutes.integers(len(self))))
        return {"bad": bad}


class ClipBatches(Sampler[list[ClipKey]]):
    """The keys of one rank's batches; see the module for the order."""

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        group: int,
        scales: Sequence[float] = (),
    ) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.group = group
        self.scales = scales or [1.0]
        self.epoch = 0
        self.start_batch = 0
        self.progress = 0.0

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever this one starts."""
        return max(self.samples // (self.batch_size * self.world_size * self.group), 1) * self.group

    def __iter__(self) -> Iterator[list[ClipKey]]:
        epoch = self.epoch
        order = np.random.default_rng([self.seed, epoch]).permutation(self.samples)
        step = self.batch_size * self.world_size
        order = np.resize(order, len(self) * step)  # cuts the end off, or repeats
        for batch in range(self.start_batch, len(self)):
            start = batch * step + self.rank * self.batch_size
            part = order[start : start + self.batch_size]
            draw = np.random.default_rng([self.seed, epoch, batch, 2]).integers(len(self.scales))
            scale = self.scales[int(draw)]
            yield [ClipKey(epoch, int(index), self.progress, scale) for index in part]


class TrainLoader:
    """Iterates over one epoch's batches of this rank.

    A batch is a dict of ``image`` and ``flow`` uint8 (B, T, 3, h, w), ``mask`` uint8 (B, T, 1, h, w),
    ``name`` (B strings) and ``frames`` (B lists of stems). With ``data.objects`` it has, in the place of ``flow`` and
    ``mask``, ``labels`` uint8 (B, T, h, w), ``valid`` bool (B, objects), ``objects`` (B numbers) and ``ids`` (B
    lists); see `hmhi.data.objects`.

    Loader processes ignore Ctrl-C and SIGTERM, which reach the whole process group: when to stop is for the main
    process to say. So they are killed instead, by `close` and at the latest when the interpreter ends.

    Args:
        clips: What is drawn from.
        batch_size: Clips of this rank's batches.
        seed: Source of the order; the same on all ranks.
        rank: This process.
        world_size: All processes.
        workers: Loader processes; 0 loads in this one.
        timeout: Seconds without a batch after which the loader processes count as hung.
        group: An epoch's batches are a multiple of this.
        scales: Of ``data.image_size``; one is drawn for each batch, the same on all ranks. Empty: 1.
    """

    def __init__(
        self,
        clips: JoinedClips,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        timeout: float = 300.0,
        group: int = 1,
        scales: Sequence[float] = (),
    ) -> None:
        self.skipped = 0
        """Unreadable samples so far that another one replaced."""
        self._batches = ClipBatches(len(clips), batch_size, seed, rank, world_size, group, scales)
        self._timeout = timeout
        self._workers = multiprocessing.RawArray("i", workers)  # their process ids
        self._loader: DataLoader[dict[str, Any]] = DataLoader(
            clips,
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=partial(_start_worker, self._workers),
            generator=torch.Generator(),  # or each new iteration, a resumed one too, draws from dropout's
            persistent_workers=workers > 0,
        )
        # Runs before multiprocessing's own handler, which waits for its children without an end.
        atexit.register(_kill, self._workers)

    def __len__(self) -> int:
        """Batches for each epoch and rank."""
        return len(self._batches)

    def set_epoch(self, epoch: int, start_batch: int = 0, progress: float = 0.0) -> None:
        """Choose what the next iteration yields: an epoch, from one of its batches on.

        Args:
            epoch: From 0.
            start_batch: The first one that is yielded.
            progress: Share of the run, 0-1, that is done when the epoch begins.
        """
        if not 0 <= start_batch <= len(self):
            raise ValueError(f"start_batch {start_batch} is outside an epoch of {len(self)} batches")
        self._batches.epoch = epoch
        self._batches.start_batch = start_batch
        self._batches.progress = progress

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the batches of the epoch.

        Raises:
            BadFileError: A file cannot be read and ``on_bad_sample`` is ``raise``, or too many cannot.
            LoaderError: A loader process died, or gave nothing for too long.
        """
        batches = iter(self._loader)
        for _ in range(self._batches.start_batch, len(self)):
            batch = self._next(batches) if len(self._workers) else next(batches)
            bad = batch.pop("bad")
            if "image" not in batch:
                raise BadFileError(
                    bad[0]
                    if len(bad) == 1
                    else f"{len(bad)} unreadable samples in a row; the last is {bad[-1]}"
                )
            for message in bad:
                logger.warning("skipped an unreadable sample: %s", message)
            self.skipped += len(bad)
            yield batch

    def _next(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """The next batch from loader processes; what makes this process wait for them in vain is their death."""
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _kill(self._workers)  # torch reads from a connection to a stopped one for ever

        watchdog = threading.Timer(self._timeout, expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            return next(batches)
        except (RuntimeError, OSError, EOFError) as error:
            reason = f"no batch for {self._timeout:g} s" if expired.is_set() else error
            raise LoaderError(
                f"a data loader process failed ({reason}); data.workers=0 loads in the main process and shows where"
            ) from error
        finally:
            watchdog.cancel()

    def close(self) -> None:
        """End the loader processes, whatever they are doing, and with them the use of this loader."""
        _kill(self._workers)


def build_train_loader(
    cfg: DataConfig,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    *,
    timeout: float = 300.0,
    group: int = 1,
) -> TrainLoader:
    """The training loader of a config.

    Args:
        cfg: What to read; ``cfg.train`` names the data sets.
        batch_size: Clips of this rank's batches.
        seed: Source of the order and of every draw; the same on all ranks.
        rank: This process.
        world_size: All processes.
        timeout: Seconds without a batch after which the loader processes count as hung.
        group: An epoch's batches are a multiple of this.

    Raises:
        ConfigError: A data set's name is unknown.
        DatasetNotFoundError: A data set is not below ``cfg.root``.
        DatasetError: Its files are missing or do not match.
    """
    parts: list[ClipSource] = []
    for number, name in enumerate(cfg.train):
        more = replace(cfg, repeats=cfg.repeats * cfg.set_repeats.get(name, 1))
        if name == SYNTHETIC:
            parts.append(
                SyntheticObjectClips(more, seed + number)
                if cfg.objects
                else SyntheticClips(more, seed + number)
            )
            continue
        need_flow = cfg.flow == "stored" and cfg.objects == 0
        videos = scan(Path(cfg.root), name, "train", need_flow=need_flow, need_mask=True)
        parts.append(
            ObjectClipDataset(videos, more, seed + number)
            if cfg.objects
            else ClipDataset(videos, more, seed + number)
        )
    clips = JoinedClips(parts, seed, skip_bad=cfg.on_bad_sample == "skip")
    return TrainLoader(
        clips, batch_size, seed, rank, world_size, cfg.workers, timeout, group, cfg.multi_scale
    )


def build_val_videos(cfg: DataConfig, dataset: str) -> Sequence[ValVideo | LabelledVideo]:
    """The validation videos of a data set, all frames of each, masks or label maps where there are some.

    Raises:
        ConfigError: The name is unknown.
        DatasetNotFoundError: The data set is not below ``cfg.root``.
        DatasetError: Its files are missing or do not match.
    """
    if cfg.objects:
        return build_object_videos(cfg, dataset)
    if dataset == SYNTHETIC:
        return [SyntheticVideo(number, cfg) for number in range(cfg.synthetic.val_videos)]
    videos = scan(Path(cfg.root), dataset, "val", need_flow=cfg.flow == "stored", need_mask=True)
    return [VideoDataset(video, cfg) for video in videos]


def _collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    bad = [message for item in items for message in item["bad"]]
    if any("image" not in item for item in items):
        failed = next(item for item in items if "image" not in item)
        return {"bad": failed["bad"]}
    tensors = [key for key, value in items[0].items() if isinstance(value, torch.Tensor)]
    others = [key for key in items[0] if key not in (*tensors, "bad")]
    return {
        **{key: default_collate([item[key] for item in items]) for key in tensors},
        **{key: [item[key] for item in items] for key in others},
        "bad": bad,
    }


def _start_worker(pids: Any, worker: int) -> None:
    pids[worker] = os.getpid()
    # Each loader process is one core's worth of work; OpenCV's own threads would only compete.
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(
            PR_SET_PDEATHSIG, signal.SIGKILL
        )  # not to outlive a main process that is killed


def _kill(pids: Any) -> None:
    """End those of our loader processes that are still there."""
    numbers = set(pids)
    with _deaths_unnoticed():
        for process in multiprocessing.active_children():
            if process.pid in numbers:
                process.kill()
                process.join()


@contextlib.contextmanager
def _deaths_unnoticed() -> Iterator[None]:
    """Torch's handler raises where a loader process dies, which is right but for those that we kill."""
    if threading.current_thread() is not threading.main_thread():  # has no handlers
        yield
        return
    previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, previous)
