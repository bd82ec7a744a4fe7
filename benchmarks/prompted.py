"""Time and memory of HMMN on a frame with a full memory, beside its dense form."""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context

import torch

from benchmarks.dense_hmmn import DenseHMMN
from benchmarks.machine import describe_machine, memory_now, memory_peak, reset_peak, synchronise
from hmhi.commands.errors import report_errors
from hmhi.config import Precision, load_config
from hmhi.memory.objects import ObjectState
from hmhi.models.build import build_model
from hmhi.models.hmmn import HMMN
from hmhi.models.weights import load_model
from hmhi.runtime.allocator import keep_pages
from hmhi.runtime.precision import autocast


@dataclass
class Arm:
    """What was measured of one form."""

    name: str
    model: HMMN
    precision: Precision
    seconds: list[float] = field(default_factory=list)
    """Of each frame."""
    peak: float | None = None
    """MiB that one frame adds to a process of its own; None where the system does not tell."""


@report_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its table to stdout."""
    parser = argparse.ArgumentParser(prog="benchmark.py prompted", description=__doc__)
    parser.add_argument("--checkpoint", help="of HMMN; without it the weights are random")
    parser.add_argument("--size", type=int, nargs=2, default=[480, 854], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 3], metavar="K")
    parser.add_argument(
        "--slots", type=int, nargs="+", default=[2, 12, 22], metavar="T", help="frames in memory"
    )
    parser.add_argument("--rounds", type=int, default=3, help="frames of each form, in turns")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=("fp32", "bf16"),
        default=["fp32"],
        help="of ours; the dense form is fp32",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    keep_pages()
    torch.set_num_threads(options.threads)
    model = make_model(options.checkpoint, options.device)
    print(describe_machine(torch.device(options.device)))
    print(f"{'K':>3} {'T':>3} {'form':>6} {'s a frame':>10} {'of dense':>9} {'peak MiB':>9}")
    for objects in options.objects:
        for slots in options.slots:
            for arm in (arms := measure(model, options, objects, slots)):
                ratio = statistics.median(a / b for a, b in zip(arm.seconds, arms[0].seconds, strict=True))
                seconds = statistics.median(arm.seconds)
                peak = "" if arm.peak is None else f"{arm.peak:9.0f}"
                print(f"{objects:3} {slots:3} {arm.name:>6} {seconds:10.2f} {ratio:9.2f} {peak}", flush=True)
    return 0


def make_model(checkpoint: str | None, device: str) -> HMMN:
    """A checkpoint's network, or one with random weights."""
    if checkpoint is not None:
        model = load_model(checkpoint, device)
    else:
        model = build_model(load_config(None, ["model.kind=hmmn"]).model).eval().to(device)
    assert isinstance(model, HMMN)
    return model


@torch.inference_mode()
def measure(model: HMMN, options: argparse.Namespace, objects: int, slots: int) -> list[Arm]:
    """Let the dense form and ours take turns on the same frame and memory, memorising included."""
    generator, device = torch.Generator().manual_seed(1), torch.device(options.device)
    frames = torch.rand(2, 1, 3, *options.size, generator=generator).to(device)
    state = full_memory(model, frames[0], objects, slots)
    arms = [Arm("dense", DenseHMMN.of(model), "fp32")]
    arms += [Arm(precision, model, precision) for precision in options.precision]
    for turn in range(options.rounds + 1):
        for arm in arms:
            begin = time.perf_counter()
            with autocast(device, arm.precision):
                arm.model.step(frames[1], state)
            synchronise(options.device)
            if turn:  # libraries load at their first call
                arm.seconds.append(time.perf_counter() - begin)
    for arm in arms:  # in a fresh process each: pages that are kept hide what a frame needs
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            arm.peak = pool.submit(measure_peak, options, arm.name, objects, slots).result()
    return arms


@torch.inference_mode()
def measure_peak(options: argparse.Namespace, name: str, objects: int, slots: int) -> float | None:
    """`Arm.peak` of the form that is called `name`."""
    torch.set_num_threads(options.threads)
    model, device = make_model(options.checkpoint, options.device), torch.device(options.device)
    model = DenseHMMN.of(model) if name == "dense" else model
    precision: Precision = "bf16" if name == "bf16" else "fp32"
    small, frame = torch.rand(1, 3, 32, 32, device=device), torch.rand(1, 3, *options.size, device=device)
    with autocast(device, precision):
        model.step(small, full_memory(model, small, 1, 2))  # libraries load at their first call
        state = full_memory(model, frame, objects, slots)
        gc.collect()
        before, known = memory_now(options.device), reset_peak(options.device)
        model.step(frame, state)
    peak = memory_peak(options.device) if known else None
    return None if peak is None or before is None else peak - before


def full_memory(model: HMMN, frame: torch.Tensor, objects: int, slots: int) -> ObjectState:
    """A state whose coarse memory holds `slots` frames: one that was seen, and others made of its numbers."""
    height, width = frame.shape[2:]
    given = {}
    for k in range(objects):
        mask = torch.zeros(height, width, dtype=torch.bool, device=frame.device)
        mask[:, k * width // objects : (2 * k + 1) * width // (2 * objects)] = True
        given[k + 1] = mask
    _, state = model.step(frame, model.start(), given)
    _, state = model.step(frame, state)  # so that the first slot has its places
    (group,) = state.groups
    first, newest = group.banks["coarse"].slots
    noise = torch.Generator().manual_seed(2)

    def variant(frame_number: int) -> dict[str, torch.Tensor]:
        scale = 1 + 0.1 * torch.rand(1, generator=noise).item() * frame_number / slots
        return {name: tensor if name == "track" else tensor * scale for name, tensor in first.tensors.items()}

    middle = [replace(first, frame=5 * i, tensors=variant(i), pinned=False) for i in range(1, slots - 1)]
    last = 5 * (slots - 1)
    coarse = replace(group.banks["coarse"], slots=(first, *middle, replace(newest, frame=last)))
    fine = group.banks["fine"]
    fine = replace(fine, slots=(fine.slots[0], replace(fine.slots[1], frame=last)))
    banks = {"coarse": coarse, "fine": fine}
    return replace(state, frame=last + 1, groups=(replace(group, banks=banks),))


if __name__ == "__main__":
    sys.exit(main())
