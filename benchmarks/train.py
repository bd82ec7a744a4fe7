"""Clips a second, peak memory and waiting for data in training, against the dense form in float32, in turns."""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.dense import DenseHMHINet, DenseMemory
from benchmarks.machine import describe_machine, memory_now, memory_peak, reset_peak, synchronise
from hmhi.commands.errors import report_errors
from hmhi.config import Config, Precision, load_config
from hmhi.errors import UserError
from hmhi.models.hmhi_net import HMHINet
from hmhi.runtime.allocator import keep_pages
from hmhi.runtime.distributed import Ranks
from hmhi.training.plan import estimate_memory
from hmhi.training.run import Run, build_run
from hmhi.training.train import set_train_mode, train_step

WARM_UP = 1  # steps that are not counted: libraries load, the optimiser makes its averages


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    precision: Precision = "fp32"
    recompute: bool = False
    dense: bool = False

    @property
    def name(self) -> str:
        """As in the table, and on the command line."""
        if self.dense:
            return "dense"
        return self.precision + ("-recompute" if self.recompute else "")


ARMS = {
    arm.name: arm
    for arm in (Arm(dense=True), Arm(), Arm("bf16"), Arm(recompute=True), Arm("bf16", recompute=True))
}


@dataclass(frozen=True)
class Result:
    """What was measured of one arm."""

    arm: str
    clips_per_second: float
    """Median over rounds, waiting for data included."""
    speedup: float
    """Median over rounds of the first arm's time over this one's, measured one after the other."""
    speedup_low: float
    speedup_high: float
    """Quartiles."""
    waiting: float
    """Share of the time in which the network waited for clips."""
    peak_mib: float | None
    """Peak memory above that of the process before the run was built; None where it is not known."""
    estimated_mib: float | None
    """What ``tools/train.py --dry-run`` expects; None for the dense form."""


class DenseClip(nn.Module):
    """The dense form of a network, frame after frame, in the place of the network's own `forward`."""

    def __init__(self, model: HMHINet) -> None:
        super().__init__()
        self.model = model
        self._dense = DenseHMHINet(model)

    def forward(self, images: Tensor, flows: Tensor) -> Tensor:
        """As `HMHINet.forward`: (B, T, 3, H, W) twice to (B, T, 1, H, W) logits; H and W multiples of 32."""
        memory: DenseMemory | None = None
        clip = []
        for t in range(images.shape[1]):
            logits, memory = self._dense.step(images[:, t], flows[:, t], memory)
            clip.append(logits)
        return torch.stack(clip, dim=1)  # (B, T, 1, H, W)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its table to stdout."""
    options = _parser().parse_intermixed_args(arguments)
    if options.rounds < 1:
        raise UserError(f"--rounds must be at least 1, got {options.rounds}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    given = ["data.train=[synthetic]"] if options.config is None else []
    config = load_config(options.config, [*given, "train.val_every=0", *options.overrides])
    if config.model.kind != "hmhi" and "dense" in options.arms:
        raise UserError("--arms dense: the dense form is written for model.kind=hmhi")
    values = {
        "machine": describe_machine(torch.device(options.device)),
        "settings": {
            "size": config.data.image_size, "clip_frames": config.data.clip_frames, "rounds": options.rounds,
            "batch_size": config.train.batch_size, "backbone": config.model.backbone,
            "workers": config.data.workers,
        },
        "results": [asdict(result) for result in measure(options, config)],
    }  # fmt: skip
    print(format_table(values))
    if options.json is not None:
        options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(options: argparse.Namespace, config: Config) -> list[Result]:
    """Let the arms train in turns, each in a process of its own."""
    arms = [ARMS[name] for name in options.arms]
    seconds: list[list[float]] = [[] for _ in arms]
    waited: list[list[float]] = [[] for _ in arms]
    with ExitStack() as stack:
        pipes = [_start(stack, options, config, arm) for arm in arms]
        for _, (number, pipe) in itertools.product(range(options.rounds), enumerate(pipes)):
            pipe.send("step")
            step, waiting = pipe.recv()
            seconds[number].append(step)
            waited[number].append(waiting)
        ends = []
        for pipe in pipes:
            pipe.send("end")
            ends.append(pipe.recv())
    results = []
    for arm, mine, waiting, (peak, estimate) in zip(arms, seconds, waited, ends, strict=True):
        low, middle, high = _quartiles([a / b for a, b in zip(seconds[0], mine, strict=True)])
        rate = config.train.batch_size / statistics.median(mine)
        results.append(Result(arm.name, rate, middle, low, high, sum(waiting) / sum(mine), peak, estimate))
    return results


def _start(stack: ExitStack, options: argparse.Namespace, config: Config, arm: Arm) -> Connection:
    """A process that trains, and the end of a pipe to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    threads = torch.get_num_threads()
    process = context.Process(target=_train, args=(theirs, options.device, threads, config, arm))
    process.start()
    theirs.close()
    stack.callback(process.join)
    stack.callback(ours.close)  # ends the process, where an error ends this one
    if ours.recv() != "ready":
        raise RuntimeError(f"the process of {arm.name} did not start")
    return cast(Connection, ours)


def _train(pipe: Connection, device: str, threads: int, config: Config, arm: Arm) -> None:
    """Take a step for each message; at the end tell the peak memory, and what was expected."""
    torch.set_num_threads(threads)
    if not arm.dense:
        keep_pages()  # as tools/train.py does
    train = replace(config.train, precision=arm.precision, checkpoint_activations=arm.recompute)
    config = replace(config, train=train)
    with tempfile.TemporaryDirectory() as folder:
        before, known = memory_now(device), reset_peak(device)
        ranks = Ranks(0, 1, torch.device(device))
        run = build_run(config, ranks, Path(folder), resume=None, force=False)
        if arm.dense:
            run.parallel = DenseClip(cast(HMHINet, run.state.model))
        set_train_mode(run)
        batches = _endless(run)
        for _ in range(WARM_UP):
            train_step(run, [next(batches)])
        pipe.send("ready")
        try:
            while pipe.recv() == "step":
                begin = time.perf_counter()
                batch = next(batches)
                loaded = time.perf_counter()
                train_step(run, [batch])
                run.state.progress.step += 1
                synchronise(device)
                pipe.send((time.perf_counter() - begin, loaded - begin))
            peak = memory_peak(device)
            added = None if peak is None or before is None or not known else peak - before
            expected = None if arm.dense else estimate_memory(run.state.model, config, next(batches))
            pipe.send((added, None if expected is None else expected.peak))
        except EOFError:
            pass
        finally:
            run.loader.close()
            run.logger.close()


def _endless(run: Run) -> Iterator[Mapping[str, Any]]:
    for epoch in itertools.count():
        run.loader.set_epoch(epoch)
        yield from run.loader


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def format_table(values: Mapping[str, Any]) -> str:
    """The figures as text."""
    machine, settings = values["machine"], values["settings"]
    lines = [
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}",
        ", ".join(f"{name} {value}" for name, value in settings.items()),
        f"{'arm':<16}{'clips/s':>9}{'x ' + values['results'][0]['arm']:>20}{'waiting':>9}{'peak MiB':>10}"
        f"{'estimate':>10}",
    ]
    for row in values["results"]:
        ratio = f"{row['speedup']:.2f} ({row['speedup_low']:.2f}-{row['speedup_high']:.2f})"
        peak, estimate = (
            "" if row[key] is None else f"{row[key]:.0f}" for key in ("peak_mib", "estimated_mib")
        )
        lines.append(
            f"{row['arm']:<16}{row['clips_per_second']:>9.3f}{ratio:>20}{row['waiting']:>9.1%}{peak:>10}{estimate:>10}"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/benchmark.py train", description=__doc__)
    parser.add_argument("--config", help="experiment (default: the defaults, on synthetic video)")
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=["dense", "bf16"], help="the first is the yardstick"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each arm, in turns (default: 5)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings, data.image_size=[128,128]"
    )
    return parser


if __name__ == "__main__":
    sys.exit(report_errors(main)())
