"""The parts of `benchmark.py gpu`: each yields its figures as it finds them, within about the seconds it is given."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.models.optical_flow import raft_large, raft_small

from benchmarks import infer
from benchmarks.machine import memory_now, synchronise
from hmhi.config import ModelConfig, Precision
from hmhi.data.transforms import to_chw
from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.raft import RAFTEstimator
from hmhi.inference.base import EMBEDDED
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.models.build import build_model
from hmhi.models.hmhi_net import HMHINet
from hmhi.models.weights import load_model
from hmhi.runtime.frames import FrameRunner, to_arrays, to_probability
from hmhi.runtime.graphs import GraphRunner
from hmhi.runtime.precision import amp_precision, compile_parts, use_channels_last
from hmhi.synthetic import render_clip

STREAM_AIMS = {1: 300.0, 16: 1000.0}
"""Videos in a batch to frames a second, for the fastest arm on an H100."""


@dataclass(frozen=True)
class Setting:
    """How large everything is."""

    size: int
    """Pixels of a side of the network's input."""
    backbone: str
    memory_frames: int
    batches: tuple[int, ...]
    """Videos in a batch."""
    parity: tuple[int, ...]
    """Sizes of the stored numbers that are compared."""
    clips: int
    """In a batch of training."""
    clip_frames: int
    steps: int
    """Of training, which are counted."""
    raft: str
    raft_size: tuple[int, int]
    pairs: tuple[int, ...]
    """Pairs of frames in a batch of RAFT."""
    compiled: bool
    """Whether the compiler is tried at all."""
    video: tuple[int, int]
    """Frames after which what the device holds is compared."""


SETTINGS = {
    "full": Setting(
        size=512, backbone="mit_b1", memory_frames=5, batches=(1, 16), parity=(256, 512), clips=2, clip_frames=5,
        steps=15, raft="raft", raft_size=(480, 854), pairs=(1, 4, 8), compiled=True, video=(20, 200),
    ),
    "small": Setting(
        size=64, backbone="mit_b0", memory_frames=2, batches=(1, 2), parity=(256,), clips=1, clip_frames=2,
        steps=2, raft="raft-small", raft_size=(128, 136), pairs=(1, 2), compiled=False, video=(4, 10),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One number of the report."""

    name: str
    value: float | None
    unit: str
    aim: str | None = None


Figures = Generator[Figure, None, None]


@dataclass(frozen=True)
class Part:
    """What runs, and its share of the time."""

    run: Callable[[Setting, str, float], Figures]
    """Called with the setting, the device and seconds."""
    share: float


@dataclass(frozen=True)
class Arm:
    """One way to run the network."""

    precision: Precision
    tf32: bool = False
    compiled: bool = False
    graphs: bool = False
    triton: bool = False
    """Whether the top-k search is the kernel that is off until a GPU has run it."""

    @property
    def name(self) -> str:
        """As in the report."""
        words = [self.precision, self.tf32 and "TF32", self.compiled and "compiled", self.graphs and "graphs"]
        words.append(self.triton and "Triton")
        return " ".join(word for word in words if word)


def parity(setting: Setting, device: str, seconds: float) -> Figures:
    """Logits of the network against those of the authors' release, from the arrays that the tests compare with."""
    from reference import MODELS, clip, save_release_checkpoint, stored  # of tests/parity

    with tempfile.TemporaryDirectory() as folder:
        model = load_model(save_release_checkpoint(MODELS["full"], Path(folder) / "full.pth"), device)
    cuda = torch.device(device).type == "cuda"
    for size, tf32 in itertools.product(setting.parity, (False, True) if cuda else (False,)):
        use_tf32(tf32)
        images, flows = (x.to(device) for x in clip(5, size))
        with torch.inference_mode():
            logits = model(images, flows)[0, :, 0, :: size // 64, :: size // 64].cpu()  # (T, 64, 64)
        release = torch.stack([torch.from_numpy(stored(f"full_{size}")[f"score_t{t}"]) for t in range(5)])
        apart = (logits - release).abs()
        name = f"{'TF32' if tf32 else 'fp32'} at {size}, difference of logits from the release"
        yield Figure(f"{name}, largest", apart.max().item(), "", None if tf32 or size > 256 else "1e-4")
        yield Figure(f"{name}, above 1e-4", 100 * (apart > 1e-4).double().mean().item(), "%")


def deviation(setting: Setting, device: str, seconds: float) -> Figures:
    """Masks of the bundled weights in 16 bits against those in fp32, on synthetic video."""
    model = load_model(EMBEDDED, device)
    assert isinstance(model, HMHINet)
    use_channels_last(model)
    clip = render_clip(60_001, 4 if setting.size < 128 else 20, (192, 192))
    images = [to_chw(image) for image in clip.images]
    flows = [to_chw(flow_to_rgb(flow)) for flow in clip.flows]
    truth = torch.from_numpy(clip.masks).bool()  # (T, H, W)

    def probabilities(precision: Precision) -> Tensor:
        runner, memory, maps = FrameRunner(model, torch.device(device), precision), None, []
        with torch.inference_mode():
            for image, flow in zip(images, flows, strict=True):
                logits, memory = runner.step(image, flow, memory)
                maps.append(logits[0, 0].float().sigmoid().cpu())
        return torch.stack(maps)  # (T, H, W)

    use_tf32(False)
    exact = probabilities("fp32")
    yield Figure("fp32, J of the bundled weights", overlap(exact > 0.5, truth), "")
    for precision in ("bf16", "fp16"):
        prob = probabilities(precision)
        yield Figure(f"{precision}, J of the bundled weights", overlap(prob > 0.5, truth), "")
        yield Figure(
            f"{precision}, mean difference of probabilities from fp32", (prob - exact).abs().mean().item(), ""
        )
        yield Figure(
            f"{precision}, pixels whose mask differs from fp32's",
            100 * ((prob > 0.5) != (exact > 0.5)).double().mean().item(),
            "%",
        )


def overlap(masks: Tensor, truth: Tensor) -> float:
    """Mean J over frames of (T, H, W) bool masks."""
    both, either = (masks & truth).sum((1, 2)), (masks | truth).sum((1, 2))
    return (both / either.clamp(min=1)).double().mean().item()


def stream(setting: Setting, device: str, seconds: float) -> Figures:
    """Frames a second, from uint8 pixels to probabilities, both on the host; one wait for the device a frame."""
    fast = amp_precision(torch.device(device))
    arms = [Arm("fp32"), Arm(fast)]
    if torch.device(device).type == "cuda":
        arms = [Arm("fp32"), Arm("fp32", tf32=True), Arm(fast), Arm("fp16"), Arm(fast, graphs=True)]
    yield from time_arms(setting, device, seconds, arms)


def compiled(setting: Setting, device: str, seconds: float) -> Figures:
    """`stream` with compiled parts, and what compiling takes."""
    if not setting.compiled:
        return
    fast = amp_precision(torch.device(device))
    cuda = torch.device(device).type == "cuda"
    yield from time_arms(
        setting,
        device,
        seconds / 2,
        [Arm(fast, compiled=True), *([Arm(fast, compiled=True, graphs=True)] if cuda else [])],
    )


def triton(setting: Setting, device: str, seconds: float) -> Figures:
    """`stream` with graphs and the top-k search in Triton, which the CPU has not."""
    if torch.device(device).type == "cuda":
        arm = Arm(amp_precision(torch.device(device)), graphs=True, triton=True)
        yield from time_arms(setting, device, seconds, [arm])


def time_arms(setting: Setting, device: str, seconds: float, arms: Sequence[Arm]) -> Figures:
    """Frames a second of each arm, for each batch."""
    for batch, arm in itertools.product(setting.batches, arms):
        begin = time.perf_counter()
        frame = start_arm(setting, device, arm, batch)
        for _ in range(setting.memory_frames + 3):  # until the memory is full, and a graph is recorded
            frame()
        name = f"{arm.name}, batch {batch}"
        if arm.compiled:
            yield Figure(f"{name}, first frames", time.perf_counter() - begin, "s")
        rate = batch * calls_a_second(frame, device, seconds / (2 * len(arms) * len(setting.batches)))
        aim = STREAM_AIMS.get(batch) if arm.graphs else None
        yield Figure(name, rate, "frames/s", None if aim is None else f"{aim:g}")


def start_arm(setting: Setting, device: str, arm: Arm, batch: int) -> Callable[[], list[np.ndarray]]:
    """A call that takes the next frame of each of `batch` videos, and returns its probabilities."""
    use_tf32(arm.tf32)
    os.environ["HMHI_KERNELS"] = "triton" if arm.triton else ""  # read at each call
    model = random_model(setting, device)
    if arm.compiled:
        compile_parts(model)
    kind = GraphRunner if arm.graphs else FrameRunner
    runner, memory = kind(model, torch.device(device), arm.precision), None
    size = (setting.size, setting.size)
    pictures = torch.randint(0, 256, (2, batch, 3, *size), dtype=torch.uint8)
    images, flows = (list(x.unbind()) for x in pictures)

    @torch.inference_mode()
    def frame() -> list[np.ndarray]:
        nonlocal memory
        logits, memory = runner.advance(runner.encode(images, flows), size, memory)
        return to_arrays([to_probability(logits, size)])

    return frame


def parts(setting: Setting, device: str, seconds: float) -> Figures:
    """Milliseconds of each module for a frame, the device waited for before and after: launches count."""
    options = infer_options(setting, device)
    for batch in setting.batches:
        for precision in dict.fromkeys(("fp32", amp_precision(torch.device(device)))):
            for name, ms in infer.time_parts(options, infer.Arm(precision), batch).items():
                yield Figure(f"{precision}, batch {batch}, {name}", ms, "ms")


def memory(setting: Setting, device: str, seconds: float) -> Figures:
    """Peak memory above the model's, and time, against the dense form; and whether long video needs more."""
    options = infer_options(setting, device)
    fast = amp_precision(torch.device(device))
    for batch in setting.batches:
        dense_ms, dense_peak = None, None
        for arm in dict.fromkeys((infer.Arm(dense=True), infer.Arm(), infer.Arm(fast))):
            run, peak, _ = infer.start_arm(options, arm, batch)
            ms = 1000 * min(infer.take_turn(run, device) for _ in range(options.rounds)) / batch
            yield Figure(f"{arm.name}, batch {batch}", ms, "ms a frame")
            if peak is not None:
                yield Figure(f"{arm.name}, batch {batch}, peak", peak, "MiB")
            if arm.dense:
                dense_ms, dense_peak = ms, peak
                continue
            assert dense_ms is not None
            yield Figure(f"{arm.name}, batch {batch}, speed against the dense form", dense_ms / ms, "times")
            if peak and dense_peak:
                yield Figure(f"{arm.name}, batch {batch}, peak of the dense form's", peak / dense_peak, "")
            del run
    frame = start_arm(setting, device, Arm(fast), 1)
    first, last = setting.video
    held = []
    for count in (first, last - first):
        for _ in range(count):
            frame()
        held.append(memory_now(device))
    if None not in held:
        yield Figure(f"held after {last} frames beyond what was after {first}", held[1] - held[0], "MiB", "0")


def train(setting: Setting, device: str, seconds: float) -> Figures:
    """Clips a second and peak memory of training, against the dense form in fp32, and what the loader lacks."""
    from benchmarks.train import main

    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "train.json"
        fast = amp_precision(torch.device(device))
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        arguments = [
            "--device", device, "--rounds", str(setting.steps), "--json", str(report),
            f"data.image_size=[{setting.size},{setting.size}]", f"data.clip_frames={setting.clip_frames}",
            f"data.synthetic.size=[{setting.size},{setting.size}]", f"train.batch_size={setting.clips}",
            f"data.workers={workers if setting.size > 128 else 0}", f"model.backbone={setting.backbone}",
            "--arms", "dense", fast,
        ]  # fmt: skip
        main(arguments)
        results = json.loads(report.read_text(encoding="utf-8"))["results"]
    for row in results:
        name = f"{row['arm']}, {setting.clips} clips of {setting.clip_frames} frames"
        yield Figure(name, row["clips_per_second"], "clips/s")
        if row["peak_mib"] is not None:
            yield Figure(f"{name}, peak", row["peak_mib"], "MiB")
        yield Figure(f"{name}, waits for the loader ({workers} cores)", 100 * row["waiting"], "%", "0")
    dense, ours = results
    yield Figure(f"{ours['arm']}, speed against the dense form", ours["speedup"], "times", "4")
    if ours["peak_mib"] and dense["peak_mib"]:
        yield Figure(
            f"{ours['arm']}, peak of the dense form's", ours["peak_mib"] / dense["peak_mib"], "", "0.33"
        )


def raft(setting: Setting, device: str, seconds: float) -> Figures:
    """Pairs of frames a second, from arrays to arrays; random weights."""
    torch.manual_seed(0)
    build = {"raft": raft_large, "raft-small": raft_small}[setting.raft]
    height, width = setting.raft_size
    precisions = dict.fromkeys(("fp32", amp_precision(torch.device(device))))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pth"
        torch.save(build(weights=None).state_dict(), weights)
        for precision in precisions:
            estimator = RAFTEstimator(setting.raft, device, weights, precision=precision)
            for pairs in setting.pairs:
                a, b = np.random.default_rng(0).integers(0, 256, (2, pairs, height, width, 3), dtype=np.uint8)
                share = seconds / (2 * len(precisions) * len(setting.pairs))
                rate = pairs * calls_a_second(lambda a=a, b=b, run=estimator.batch: run(a, b), device, share)
                yield Figure(
                    f"{setting.raft}, {width} x {height}, {precision}, {pairs} at once", rate, "pairs/s"
                )


def video(setting: Setting, device: str, seconds: float) -> Figures:
    """`VideoSegmenter.stream` on frames of 854 x 480 in memory, flow by DIS or stored, and where its time goes."""
    height, width = setting.raft_size
    clip = render_clip(60_002, 6, (height, width))
    there_and_back = [*range(6), *range(4, 0, -1)]
    ways = [(flow, graphs) for flow in ("dis", "stored") for graphs in (False, True)]
    if torch.device(device).type != "cuda":
        ways = [("dis", False), ("stored", False)]

    def frames(end: float) -> Iterator[np.ndarray]:
        for number in itertools.cycle(there_and_back):
            if time.perf_counter() > end:
                return
            yield clip.images[number]

    stored = [flow_to_rgb(flow) for flow in clip.flows]
    for flow, graphs in ways:
        segmenter = VideoSegmenter(None, device, image_size=setting.size, amp=True, graphs=graphs, flow="dis")
        flows = (stored[number] for number in itertools.cycle(there_and_back)) if flow == "stored" else None
        begin = time.perf_counter()
        warm = begin + min(3.0, seconds / (4 * len(ways)))
        since, count, spent = None, 0, dict.fromkeys(("decode", "flow", "network"), 0.0)
        for result in segmenter.stream(frames(warm + seconds / (2 * len(ways))), flows):
            if since is None:
                since = time.perf_counter() if time.perf_counter() > warm else None
                continue
            count += 1
            for stage in spent:
                spent[stage] += result.seconds[stage]
        if since is None or count == 0:
            raise RuntimeError(f"no frame was finished in {seconds / (2 * len(ways)):.1f} s")
        name = f"bundled weights, flow {flow}{', graphs' if graphs else ''}"
        yield Figure(name, count / (time.perf_counter() - since), "frames/s")
        for stage, total in spent.items():
            yield Figure(f"{name}, {stage} of a frame", 1000 * total / count, "ms")


def calls_a_second(call: Callable[[], object], device: str, seconds: float) -> float:
    """Calls until the time is over, after three that are not counted; at least two."""
    for _ in range(3):
        call()
    synchronise(device)
    begin, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - begin < seconds:
        call()
        count += 1
    synchronise(device)
    return count / (time.perf_counter() - begin)


def use_tf32(on: bool) -> None:
    """Whether float32 products and convolutions may round their factors to 10 bits."""
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on


def random_model(setting: Setting, device: str) -> HMHINet:
    """The setting's network, in eval mode."""
    torch.manual_seed(0)
    config = ModelConfig(backbone=setting.backbone, memory_frames=setting.memory_frames)
    model = build_model(config).eval().to(device)
    assert isinstance(model, HMHINet)
    use_channels_last(model)
    return model


def infer_options(setting: Setting, device: str) -> argparse.Namespace:
    """What the functions of `benchmark.py infer` read."""
    return argparse.Namespace(
        checkpoint=None, backbone=setting.backbone, device=device, size=[setting.size] * 2,
        memory_frames=setting.memory_frames, rounds=3,
    )  # fmt: skip


PARTS = {
    "parity": Part(parity, 40),
    "deviation": Part(deviation, 30),
    "stream": Part(stream, 100),
    "parts": Part(parts, 40),
    "memory": Part(memory, 60),
    "train": Part(train, 90),
    "raft": Part(raft, 40),
    "video": Part(video, 50),
    "triton": Part(triton, 30),
    "compiled": Part(compiled, 120),
}
"""What is most needed comes first; shares are seconds of ten minutes."""
