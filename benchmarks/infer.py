"""Time and memory of the network per frame, against the dense form of the same weights, alternating in one run."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.dense import DenseHMHINet
from benchmarks.machine import describe_machine, memory_now, memory_peak, reset_peak, synchronise
from hmhi.commands.errors import report_errors
from hmhi.config import ModelConfig, Precision
from hmhi.errors import UserError
from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.estimate import build_estimator
from hmhi.memory.bank import Memory
from hmhi.models.build import build_model
from hmhi.models.hmhi_net import HMHINet
from hmhi.models.weights import load_model
from hmhi.runtime.allocator import keep_pages
from hmhi.runtime.precision import autocast, compile_parts, use_channels_last

WARM_UP = 1  # rounds that are not counted
TURN = 3  # calls of one arm before the next; the first, which finds cold caches, is not counted


@dataclass(frozen=True)
class Arm:
    """One way to run the network."""

    precision: Precision = "fp32"
    compiled: bool = False
    look_ahead: int = 1
    """Frames whose encoders run in one batch."""
    dense: bool = False
    kernels: bool = True
    """With the search that `hmhi.layers.topk_cpu` builds."""

    @property
    def name(self) -> str:
        """As in the table."""
        if self.dense:
            return "dense fp32"
        ahead = f" look-ahead {self.look_ahead}" if self.look_ahead > 1 else ""
        kernels = "" if self.kernels else " no kernels"
        return self.precision + (" compiled" if self.compiled else "") + ahead + kernels


@dataclass(frozen=True)
class Timing:
    """What was measured of one arm at one batch size."""

    arm: str
    batch: int
    ms_per_frame: float
    """Median over rounds, of one frame of one video."""
    ms_low: float
    ms_high: float
    """Quartiles."""
    speedup: float | None
    """Median over rounds of the dense form's time over this one's, measured one after the other."""
    speedup_low: float | None
    speedup_high: float | None
    compile_s: float | None
    """First call beyond a usual one."""
    peak_mib: float | None
    """Peak memory above the model's own; None where it was not measured."""
    parts_ms: dict[str, float]
    """Median time of each module for one frame of the batch; eager arms without look-ahead only."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its table to stdout."""
    options = _parser().parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {device}: this torch sees no CUDA device")
    for name, value in vars(options).items():
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(x, int) and not isinstance(x, bool) and x < 1 for x in numbers):
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if any(side % 32 for side in options.size):
        raise UserError(f"--size must be multiples of 32, got {options.size}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    arms = list_arms(options)
    results = [result for batch in options.batch_size for result in measure(options, arms, batch)]
    values = {
        "machine": describe_machine(device),
        "settings": {
            "size": options.size,
            "memory_frames": options.memory_frames,
            "rounds": options.rounds,
            "weights": str(options.checkpoint or f"random {options.backbone}"),
        },
        "results": [asdict(result) for result in results],
        "work": count_work(options),
        "flow_ms": time_flow(options) if options.flow else None,
    }
    print(format_table(values))
    if options.json is not None:
        options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 0


def list_arms(options: argparse.Namespace) -> list[Arm]:
    """The dense form first, with the allocator as it comes; then every combination that was asked for."""
    ours = [
        Arm(precision, compiled, look_ahead, kernels=kernels)
        for precision in options.precision
        for compiled in ((False, True) if options.compile else (False,))
        for look_ahead in options.look_ahead
        for kernels in ((False, True) if options.without_kernels else (True,))
    ]
    if options.no_dense:
        return ours
    return [Arm(dense=True), *ours]


def measure(options: argparse.Namespace, arms: Sequence[Arm], batch: int) -> list[Timing]:
    """Time all arms in turns, so that a machine that is busy for a while is so for all of them.

    Each arm lives in a process of its own, as in use: what one leaves in caches of the allocator, another would
    otherwise pay for.
    """
    with ExitStack() as stack:
        pipes, peaks, compile_s = [], [], []
        for arm in arms:
            pipe = stack.enter_context(_process(options, arm, batch))
            peak, compiling = pipe.recv()
            pipes.append(pipe)
            peaks.append(peak)
            compile_s.append(compiling)
        seconds = np.empty((options.rounds, len(arms)))
        for number in range(-WARM_UP, options.rounds):
            for column, pipe in enumerate(pipes):
                pipe.send("turn")
                elapsed = pipe.recv()
                if number >= 0:
                    seconds[number, column] = elapsed
        parts: list[dict[str, float]] = [{} for _ in arms]
        for column, (arm, pipe) in enumerate(zip(arms, pipes, strict=True)):
            if arm == Arm(arm.precision, kernels=arm.kernels):
                pipe.send("parts")
                parts[column] = pipe.recv()
    results = []
    for column, arm in enumerate(arms):
        low, median, high = np.quantile(1000 * seconds[:, column], (0.25, 0.5, 0.75)).tolist()
        ratios: list[Any] = [None] * 3
        if arms[0].dense and column:
            ratios = np.quantile(seconds[:, 0] / seconds[:, column], (0.25, 0.5, 0.75)).tolist()
        results.append(
            Timing(
                arm=arm.name,
                batch=batch,
                ms_per_frame=median,
                ms_low=low,
                ms_high=high,
                speedup=ratios[1],
                speedup_low=ratios[0],
                speedup_high=ratios[2],
                compile_s=compile_s[column],
                peak_mib=peaks[column],
                parts_ms=parts[column],
            )
        )
    return results


@contextmanager
def _process(options: argparse.Namespace, arm: Arm, batch: int) -> Iterator[Connection]:
    """The process of an arm, reached through a pipe."""
    context = multiprocessing.get_context("spawn")
    pipe, far_end = context.Pipe()
    process = context.Process(target=_serve, args=(far_end, options, arm, batch), daemon=True)
    process.start()
    far_end.close()  # so that the end of the process ends the pipe
    try:
        yield pipe
    except EOFError:
        raise OSError(f"the process that measured {arm.name} ended; its message stands above") from None
    finally:
        pipe.close()
        process.join(timeout=10)
        process.kill()


def _serve(pipe: Connection, options: argparse.Namespace, arm: Arm, batch: int) -> None:
    """Send peak memory and seconds of compilation once, then at each "turn" what `take_turn` returns.

    At "parts", send what `time_parts` returns.
    """
    if not arm.dense:  # the plain form runs with the allocator as it comes, ours as tools/infer.py does
        keep_pages()
    if not arm.kernels:
        os.environ["HMHI_KERNELS"] = "off"
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    run, peak, compile_s = start_arm(options, arm, batch)
    with suppress(EOFError):  # the other side has closed the pipe: no more turns
        pipe.send((peak, compile_s))
        while True:
            if pipe.recv() == "parts":
                pipe.send(time_parts(options, arm, batch))
                continue
            pipe.send(take_turn(run, options.device) / (batch * arm.look_ahead))


def take_turn(run: Callable[[], None], device: str) -> float:
    """Seconds of one call, the mean of a turn without its first one."""
    run()
    synchronise(device)
    start = time.perf_counter()
    for _ in range(TURN - 1):
        run()
    synchronise(device)
    return (time.perf_counter() - start) / (TURN - 1)


def start_arm(
    options: argparse.Namespace, arm: Arm, batch: int
) -> tuple[Callable[[], None], float | None, float | None]:
    """Build an arm in this process.

    Returns:
        A call that segments its next frames with a full memory; peak MiB of this process (of its CUDA tensors on a
        GPU) above the model's own, where the bank, the inputs and every buffer count, but not code and weights;
        seconds by which the first call exceeds a usual one, where it compiles. None for what does not apply or
        the system does not tell.
    """
    model = make_model(options)
    if not arm.dense:
        use_channels_last(model)
    small = torch.zeros(1, 3, 64, 64, device=options.device)
    with torch.inference_mode(), autocast(small.device, arm.precision):
        model.step(small, small)  # libraries load at their first call
    before = memory_now(options.device)
    # a compiler's own memory cannot be told from the network's
    known = before is not None and not arm.compiled and reset_peak(options.device)
    run, first = build_run(model, options, arm, batch)
    start = time.perf_counter()
    run()
    synchronise(options.device)
    usual = time.perf_counter() - start
    peak = memory_peak(options.device) if known else None
    return (
        run,
        None if peak is None or before is None else peak - before,
        max(0.0, first - usual) if arm.compiled else None,
    )


def build_run(
    model: HMHINet, options: argparse.Namespace, arm: Arm, batch: int
) -> tuple[Callable[[], None], float]:
    """A call that segments the arm's next frames with a full memory, and the seconds of the very first one."""
    device = torch.device(options.device)
    inputs = make_inputs(options, batch * arm.look_ahead)
    if arm.compiled:
        compile_parts(model)
    frames = options.memory_frames * model.policy.interval
    step = (
        _dense_steps(DenseHMHINet(model), *inputs) if arm.dense else _steps(model, arm, *inputs, batch=batch)
    )

    def run() -> None:
        with torch.inference_mode(), autocast(device, arm.precision):
            next(step)

    start = time.perf_counter()
    run()
    synchronise(options.device)
    first = time.perf_counter() - start
    for _ in range(-(-frames // arm.look_ahead)):  # until the memory is full
        run()
    return run, first


def _steps(model: HMHINet, arm: Arm, image: Tensor, flow: Tensor, *, batch: int) -> Iterator[None]:
    """Segment `arm.look_ahead` frames of each of `batch` videos at each turn, for ever."""
    memory: Memory | None = None
    size = (image.shape[2], image.shape[3])
    while True:
        if arm.look_ahead == 1:
            _, memory = model.step(image, flow, memory)
        else:
            encoded = model.encode(image, flow)
            for first in range(0, batch * arm.look_ahead, batch):
                own = {stage: feature[first : first + batch] for stage, feature in encoded.items()}
                _, memory = model.advance(own, size, memory)
        yield


def _dense_steps(model: DenseHMHINet, image: Tensor, flow: Tensor) -> Iterator[None]:
    memory = None
    while True:
        _, memory = model.step(image, flow, memory)
        yield


def make_model(options: argparse.Namespace) -> HMHINet:
    """The checkpoint's network, or a full one with random weights."""
    frames = options.memory_frames
    if options.checkpoint is not None:
        return load_model(options.checkpoint, options.device, [f"model.memory_frames={frames}"])
    config = ModelConfig(backbone=options.backbone, memory_frames=frames)
    return build_model(config).eval().to(options.device)


def make_inputs(options: argparse.Namespace, batch: int) -> tuple[Tensor, Tensor]:
    """Image and flow, (batch, 3, H, W) of noise."""
    generator = torch.Generator().manual_seed(1)
    image, flow = torch.randn(2, batch, 3, *options.size, generator=generator).to(options.device)
    return image, flow


def time_parts(options: argparse.Namespace, arm: Arm, batch: int) -> dict[str, float]:
    """Median milliseconds of each module for one frame of the batch, with a full memory."""
    model = make_model(options)
    use_channels_last(model)
    image, flow = make_inputs(options, batch)
    parts: dict[str, nn.Module | None] = {"encoder": model.encoder}
    for stage in model.memory_stages:
        parts[f"read-out {stage}"] = model.readouts[str(stage)]
    parts["high to shallow"] = model.high_to_shallow
    parts["shallow to high"] = model.shallow_to_high
    parts["decoder"] = model.decoder
    for stage in model.memory_stages:
        parts[f"memory encoder {stage}"] = model.memory_encoders[str(stage)]
    present = {name: module for name, module in parts.items() if module is not None}
    memory = None
    with torch.inference_mode(), autocast(torch.device(options.device), arm.precision):
        for _ in range(options.memory_frames * model.policy.interval + 1):
            _, memory = model.step(image, flow, memory)
        with _timing(present, options.device) as seconds:
            for _ in range(options.rounds):
                model.step(image, flow, memory)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


@contextmanager
def _timing(modules: dict[str, nn.Module], device: str) -> Iterator[dict[str, list[float]]]:
    """Collect the seconds of each call of each module, with the device waited for before and after."""
    seconds: dict[str, list[float]] = {name: [] for name in modules}
    began: dict[str, float] = {}
    handles = []
    for name, module in modules.items():

        def before(_module: nn.Module, _inputs: Any, name: str = name) -> None:
            synchronise(device)
            began[name] = time.perf_counter()

        def after(_module: nn.Module, _inputs: Any, _output: Any, name: str = name) -> None:
            synchronise(device)
            seconds[name].append(time.perf_counter() - began[name])

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


def count_work(options: argparse.Namespace) -> dict[str, float | None]:
    """Floor of one frame with a full memory: operations of products and convolutions, and bytes that must move.

    Operations are counted by `torch.utils.flop_counter` (two for each multiplication and addition), ours and, where
    it is measured, the dense form's. Bytes are those of the weights and of the memory bank, both read once in
    float32.
    """
    model = make_model(options)
    image, flow = make_inputs(options, 1)
    memory = model.new_memory()
    with torch.inference_mode():
        for _ in range(options.memory_frames * model.policy.interval + 1):
            _, memory = model.step(image, flow, memory)
    banks = [x for bank in memory.banks.values() for slot in bank.slots for x in slot.tensors.values()]
    return {
        "gflop": _count_gflop(options, Arm()),
        "dense_gflop": None if options.no_dense else _count_gflop(options, Arm(dense=True)),
        "weights_mib": sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20,
        "bank_mib": sum(x.numel() * x.element_size() for x in banks) / 2**20,
    }


def _count_gflop(options: argparse.Namespace, arm: Arm) -> float:
    run, _ = build_run(make_model(options), options, arm, 1)
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


def time_flow(options: argparse.Namespace) -> float:
    """Median milliseconds of DIS flow and its colours for one pair of frames of the size given."""
    height, width = options.size
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8 + 1, 3), np.uint8)
    coarse = noise.repeat(8, 0).repeat(8, 1)
    first, second = coarse[:, :width].copy(), coarse[:, 4 : width + 4].copy()  # moves by four pixels
    estimator = build_estimator("dis")
    seconds = []
    for _ in range(options.rounds + 1):
        start = time.perf_counter()
        flow_to_rgb(estimator(first, second))
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[1:])


def format_table(values: dict[str, Any]) -> str:
    """The figures in text."""
    machine, settings, work = values["machine"], values["settings"], values["work"]
    height, width = settings["size"]
    lines = [
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}",
        f"{settings['weights']} at {width}x{height}, T = {settings['memory_frames']}, memory full, "
        f"{settings['rounds']} rounds: median (quartiles)",
        f"{'arm':<24}{'batch':>6}{'ms/frame':>20}{'times dense':>19}{'compile s':>10}{'peak MiB':>9}",
    ]
    for row in values["results"]:
        spread = f"{row['ms_per_frame']:.0f} ({row['ms_low']:.0f}-{row['ms_high']:.0f})"
        ratio = ""
        if row["speedup"] is not None:
            ratio = f"{row['speedup']:.2f} ({row['speedup_low']:.2f}-{row['speedup_high']:.2f})"
        compile_s = "" if row["compile_s"] is None else f"{row['compile_s']:.0f}"
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        lines.append(f"{row['arm']:<24}{row['batch']:>6}{spread:>20}{ratio:>19}{compile_s:>10}{peak:>9}")
    for row in values["results"]:
        if row["parts_ms"]:
            parts = ", ".join(f"{name} {ms:.0f}" for name, ms in row["parts_ms"].items())
            lines.append(f"parts of {row['arm']}, batch {row['batch']}, ms: {parts}")
    dense = "" if work["dense_gflop"] is None else f", dense {work['dense_gflop']:.1f}"
    lines.append(
        f"products and convolutions of one frame: {work['gflop']:.1f} GFLOP{dense}; "
        f"weights {work['weights_mib']:.0f} MiB, memory bank {work['bank_mib']:.0f} MiB in float32"
    )
    if values["flow_ms"] is not None:
        lines.append(f"DIS flow and its colours: {values['flow_ms']:.0f} ms a frame")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/benchmark.py infer", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="weights (default: random ones; speed is the same)")
    parser.add_argument("--backbone", default="mit_b1", help="of random weights (default: mit_b1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--size", type=int, nargs=2, default=[512, 512], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--memory-frames", type=int, default=5, help="T (default: 5)")
    parser.add_argument(
        "--batch-size", type=int, nargs="+", default=[1], help="videos in a batch (default: 1)"
    )
    parser.add_argument("--precision", nargs="+", choices=get_args(Precision), default=["fp32"])
    parser.add_argument(
        "--look-ahead", type=int, nargs="+", default=[1], help="frames whose encoders run in one batch"
    )
    parser.add_argument("--compile", action="store_true", help="measure with torch.compile, too")
    parser.add_argument(
        "--without-kernels", action="store_true", help="measure with PyTorch's top-k search, too"
    )
    parser.add_argument("--flow", action="store_true", help="measure DIS flow estimation, too")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--no-dense", action="store_true", help="leave the dense form out")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser


if __name__ == "__main__":
    sys.exit(report_errors(main)())
