"""How fast clips are made: each stage in processor time, the loader with any number of processes, and the wait."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch

from hmhi.commands.errors import report_errors
from hmhi.config import DataConfig, SyntheticConfig
from hmhi.data.catalog import SYNTHETIC
from hmhi.data.dataset import ClipDataset, ClipKey, SyntheticClips
from hmhi.data.index import scan
from hmhi.data.loader import build_train_loader
from hmhi.data.transforms import Augmentation, draw_photometric, resize_mask, resize_rgb, to_chw
from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.estimate import build_estimator
from hmhi.flow.files import read_flow_rgb
from hmhi.media.masks import read_mask
from hmhi.media.pictures import read_rgb
from hmhi.synthetic import render_clip


@dataclass(frozen=True)
class Step:
    """One step of making a frame, in processor time of one core."""

    stage: str
    ms_per_frame: float
    clips_per_second: float
    """If nothing else had to be done."""


@dataclass(frozen=True)
class Loading:
    """The whole loader."""

    workers: int
    clips_per_second: float
    first_batch_s: float
    waiting: float | None
    """Share of the time that a model of the given step time waits for data."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its table to stdout."""
    options = _parser().parse_args(arguments)
    config = DataConfig(
        root=str(options.root),
        train=[options.dataset],
        image_size=options.size,
        clip_frames=options.clip_frames,
        flow=options.flow,
        synthetic=SyntheticConfig(videos=10_000, size=options.size),
    )
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    stages = time_stages(config, options.clips)
    loads = [time_loader(config, options, workers) for workers in options.workers]
    print(format_table(config, stages, loads, options))
    if options.json is not None:
        machine = {"python": platform.python_version(), "pillow": PIL.__version__, "opencv": cv2.__version__}
        values = {
            "stages": [asdict(s) for s in stages],
            "loader": [asdict(x) for x in loads],
            "machine": machine,
        }
        options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 0


def time_stages(config: DataConfig, clips: int) -> list[Step]:
    """Time every step on the same frames, spread over the data set."""
    name = config.train[0]
    rng = np.random.default_rng(0)
    timed: dict[str, float] = {}
    if name == SYNTHETIC:
        count = clips * config.clip_frames
        height, width = config.synthetic.size
        scenes = range(clips)
        rendered = _timed(
            timed,
            "render image, mask, flow",
            scenes,
            lambda s: render_clip(s, config.clip_frames, (height, width)),
        )
        images = [image for clip in rendered for image in clip.images]
        masks = [mask for clip in rendered for mask in clip.masks]
        fields = [field for clip in rendered for field in clip.flows]
        flows = _timed(timed, "flow to colours", fields, flow_to_rgb)
        whole: ClipDataset | SyntheticClips = SyntheticClips(config, 0)
    else:
        videos = scan(Path(config.root), name, "train", need_flow=config.flow == "stored", need_mask=True)
        chosen = [
            (video.frames[i], video.frames[i + 1])
            for video in videos
            for i in range(len(video.frames) - 1)
            if video.frames[i].mask is not None
        ]
        count = min(clips * config.clip_frames, len(chosen))
        pairs = [chosen[i] for i in np.linspace(0, len(chosen) - 1, count).astype(int)]
        images = _timed(timed, "decode image", [pair[0].image for pair in pairs], read_rgb)
        masks = _timed(timed, "decode mask", [pair[0].mask for pair in pairs if pair[0].mask], read_mask)
        if config.flow == "stored":
            flows = _timed(
                timed, "decode flow", [pair[0].flow for pair in pairs if pair[0].flow], read_flow_rgb
            )
        else:
            estimate = build_estimator("dis")
            following = [read_rgb(pair[1].image) for pair in pairs]
            fields = _timed(
                timed, "DIS flow", list(zip(images, following, strict=True)), lambda pair: estimate(*pair)
            )
            flows = _timed(timed, "flow to colours", fields, flow_to_rgb)
        whole = ClipDataset(videos, config, 0)
    size = config.image_size
    small = _timed(timed, "resize image", images, lambda image: resize_rgb(image, size))
    small_flows = _timed(timed, "resize flow", flows, lambda flow: resize_rgb(flow, size))
    _timed(timed, "resize mask", masks, lambda mask: resize_mask(mask, size))
    mirror = Augmentation(flip=True)
    _timed(timed, "colour changes of image", small, lambda image: draw_photometric(rng)(image))
    _timed(timed, "mirror and recolour flow (every second clip)", small_flows[::2], mirror.flow)
    _timed(timed, "to tensors", small, to_chw)
    stages = [Step(name, 1000 * s / count, count / s / config.clip_frames) for name, s in timed.items()]
    whole_clips: dict[str, float] = {}
    keys = [ClipKey(0, i % len(whole)) for i in range(clips)]
    _timed(whole_clips, "whole clip", keys, whole.__getitem__)
    seconds = whole_clips["whole clip"]
    return [*stages, Step("whole clip", 1000 * seconds / (clips * config.clip_frames), clips / seconds)]


def time_loader(config: DataConfig, options: argparse.Namespace, workers: int) -> Loading:
    """Time batches from the loader, after its first one; again with a model that takes its time."""
    loader_config = replace(config, workers=workers, repeats=_enough_repeats(config, options))
    loader = build_train_loader(loader_config, options.batch_size, seed=0)
    start = time.perf_counter()
    batches = iter(loader)
    next(batches)
    first = time.perf_counter() - start
    # Batches that were made ahead during the first wait would flatter a short run: let them pass.
    for _ in range(2 * workers // options.batch_size):
        next(batches)
    start = time.perf_counter()
    for _ in range(options.batches):
        next(batches)
    rate = options.batches * options.batch_size / (time.perf_counter() - start)
    waiting = None
    if options.step_seconds is not None:
        waited, start = 0.0, time.perf_counter()
        for _ in range(options.batches):
            asked = time.perf_counter()
            next(batches)
            waited += time.perf_counter() - asked
            time.sleep(options.step_seconds)
        waiting = waited / (time.perf_counter() - start)
    return Loading(workers, rate, first, waiting)


def format_table(
    config: DataConfig, stages: Sequence[Step], loads: Sequence[Loading], options: argparse.Namespace
) -> str:
    """The figures in text."""
    height, width = config.image_size
    lines = [
        f"{config.train[0]}, clips of {config.clip_frames} frames at {width}x{height}, {config.flow} flow",
        f"{'stage, one core':<48}{'ms/frame':>10}{'clips/s':>10}",
        *(f"{row.stage:<48}{row.ms_per_frame:>10.2f}{row.clips_per_second:>10.2f}" for row in stages),
        f"\n{'loader processes':<20}{'clips/s':>10}{'first batch s':>15}{'model waits':>13}",
    ]
    for row in loads:
        waits = "" if row.waiting is None else f"{100 * row.waiting:.0f} %"
        lines.append(f"{row.workers:<20}{row.clips_per_second:>10.2f}{row.first_batch_s:>15.2f}{waits:>13}")
    if options.step_seconds is not None:
        lines.append(f"the model takes {options.step_seconds} s for each batch of {options.batch_size} clips")
    return "\n".join(lines)


def _timed(
    timed: dict[str, float], stage: str, items: Sequence[Any], function: Callable[[Any], Any]
) -> list[Any]:
    function(items[0])  # tables that are made once are not counted
    start = time.process_time()  # of this process alone, so that a busy machine does not count
    results = [function(item) for item in items]
    timed[stage] = time.process_time() - start
    return results


def _enough_repeats(config: DataConfig, options: argparse.Namespace) -> int:
    """Repeats of the data set that last for both measurements."""
    if config.train[0] == SYNTHETIC:
        return 1
    videos = scan(
        Path(config.root), config.train[0], "train", need_flow=config.flow == "stored", need_mask=True
    )
    needed = options.batch_size * (2 * options.batches + 2 * max(options.workers) + 2)
    return -(-needed // len(videos))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/benchmark.py data", description=__doc__)
    parser.add_argument("--dataset", default=SYNTHETIC, help="data set to read (default: synthetic)")
    parser.add_argument("--root", type=Path, default=Path("data"), help="data folder (default: data)")
    parser.add_argument("--flow", choices=("stored", "dis"), default="stored", help="flow of real sets")
    parser.add_argument("--size", type=int, nargs=2, default=[512, 512], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--clip-frames", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=2, help="clips in a batch")
    parser.add_argument("--clips", type=int, default=8, help="clips for the stages")
    parser.add_argument("--batches", type=int, default=8, help="batches for the loader")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2], help="loader processes to try")
    parser.add_argument(
        "--step-seconds", type=float, help="time of a model's step, to measure how long it waits"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser


if __name__ == "__main__":
    sys.exit(report_errors(main)())
