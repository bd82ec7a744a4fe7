"""Look a whole data root over: what is there, what is wrong with it, and what to do about each problem."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hmhi.config import DataConfig
from hmhi.data.catalog import DATASETS, SYNTHETIC, get_spec
from hmhi.data.index import DatasetError, DatasetNotFoundError, Frame, Video, find_layout, scan_layout
from hmhi.data.splits import PUBLISHED
from hmhi.errors import BadFileError, UserError
from hmhi.flow.files import read_flow_rgb, read_flow_size
from hmhi.flow.provenance import UNKNOWN, read_record
from hmhi.media.masks import read_mask_values
from hmhi.media.packs import read_bytes
from hmhi.media.pictures import SHAPE_TOLERANCE, read_rgb

YTOBJ_SIZES = ("480x360", "854x480")
"""Sizes of YouTube-Objects on which papers report scores."""


@dataclass(frozen=True)
class Finding:
    """One problem and what to do about it."""

    problem: str
    fix: str
    only_flow: bool = False
    """Whether the split still works with ``data.flow=dis``."""
    note: bool = False
    """Worth knowing, but nothing fails."""


@dataclass
class SplitReport:
    """What one split of a data set holds."""

    dataset: str
    split: str
    videos: list[Video] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)
    """"854x480" -> videos of this size."""
    truth: Counter[str] = field(default_factory=Counter)
    """Kind of truth values -> masks looked at."""
    flow_made_by: str = UNKNOWN
    """Method and direction in the manifest that tools/make_flow.py leaves beside its maps."""
    findings: list[Finding] = field(default_factory=list)
    absent: bool = False

    @property
    def frames(self) -> int:
        """Frames of all videos."""
        return sum(len(video.frames) for video in self.videos)

    @property
    def masks(self) -> int:
        """Frames with a mask."""
        return sum(frame.mask is not None for video in self.videos for frame in video.frames)

    @property
    def flows(self) -> int:
        """Frames with a flow map, repeated ones included."""
        return sum(frame.flow is not None for video in self.videos for frame in video.frames)

    @property
    def state(self) -> str:
        """``absent``, ``problems``, ``no flow`` (all else is well) or ``ready``."""
        if self.absent:
            return "absent"
        real = [finding for finding in self.findings if not finding.note]
        if any(not finding.only_flow for finding in real):
            return "problems"
        return "no flow" if real else "ready"


def check_split(root: Path, dataset: str, split: str, decode: int = 3) -> SplitReport:
    """Check one split of one data set.

    Args:
        root: Data root.
        dataset: Name in the catalog.
        split: ``train`` or ``val``.
        decode: Frames of each video whose image, flow and mask are decoded, spread evenly; 0 decodes all.

    Raises:
        UserError: `decode` is negative.
    """
    if decode < 0:
        raise UserError(f"frames to decode must be 0 or more, got {decode}")
    report = SplitReport(dataset, split)
    spec = get_spec(dataset)
    try:
        layout = find_layout(root, spec, split)
        report.videos, problems = scan_layout(layout, spec, need_flow=True, need_mask=True)
    except DatasetNotFoundError as error:
        report.absent = True
        spare = spec.still and split == "val"  # nothing is validated on single images
        fix = f"python tools/prepare_data.py {dataset} --source ..."
        report.findings.append(Finding(str(error), fix, note=spare))
        return report
    except DatasetError as error:
        report.findings.append(Finding(str(error), "see docs/DATA.md for the layouts that are understood"))
        return report
    record = read_record(layout.flows)
    if record["method"] != UNKNOWN:
        report.flow_made_by = f"{record['method']} {record['direction']}"
    report.findings += [_listing_finding(problem, layout.images, layout.flows) for problem in problems]
    report.findings += _compare_with_published(report)
    for video in tqdm(report.videos, desc=f"{dataset} {split}", unit="video", leave=False, disable=None):
        _check_files(report, video, decode)
    if dataset == "ytobj" and (known := report.sizes.keys() & YTOBJ_SIZES):
        problem = (
            f"this copy is {' and '.join(sorted(known))}; {' and '.join(YTOBJ_SIZES)} are in circulation"
        )
        fix = "compare scores only with those on the same size, and state it"
        report.findings.append(Finding(problem, fix, note=True))
    return report


def find_shared_images(reports: Sequence[SplitReport]) -> list[Finding]:
    """Images that occur, byte for byte, both in a training split and in a validation split of any set."""
    paths: dict[str, dict[int, list[tuple[str, Path]]]] = {
        "train": defaultdict(list),
        "val": defaultdict(list),
    }
    for report in reports:
        for video in report.videos:
            for frame in video.frames:
                if frame.image.is_file():  # packs have no files of their own to compare
                    entry = (f"{report.dataset} {report.split} {video.name}", frame.image)
                    paths[report.split][frame.image.stat().st_size].append(entry)
    pairs: Counter[tuple[str, str]] = Counter()
    for size in paths["train"].keys() & paths["val"].keys():  # only equal sizes can be equal files
        owners: dict[bytes, set[str]] = defaultdict(set)
        for owner, path in paths["train"][size]:
            owners[hashlib.sha256(read_bytes(path)).digest()].add(owner)
        for owner, path in paths["val"][size]:
            for other in owners.get(hashlib.sha256(read_bytes(path)).digest(), ()):
                pairs[other, owner] += 1
    return [
        Finding(
            f"{train} and {val} share {count} identical images: the test set is trained on",
            f"remove {train} from training, or do not report numbers on {val}",
        )
        for (train, val), count in sorted(pairs.items())
    ]


def readiness(data: DataConfig, reports: Iterable[SplitReport]) -> str:
    """Whether a config can run on what was looked at: ``ready``, or what it lacks."""
    states = {(report.dataset, report.split): report.state for report in reports}
    lacking = []
    for split, names in (("train", data.train), ("val", data.val)):
        for name in names:
            state = "ready" if name == SYNTHETIC else states.get((name, split), "not looked at")
            if state == "no flow" and data.flow == "dis":
                state = "ready"
            if state != "ready":
                lacking.append(f"{name} {split}: {state}")
    return "; ".join(lacking) or "ready"


def all_splits(names: Iterable[str] = ()) -> list[tuple[str, str]]:
    """(data set, split) of the given data sets, or of all.

    Raises:
        ConfigError: A name is unknown.
    """
    specs = [get_spec(name) for name in names] or list(DATASETS.values())
    return [(spec.name, split) for spec in specs for split in spec.splits]


def _listing_finding(problem: str, images: Path, flows: Path) -> Finding:
    if "flow map" in problem:
        fix = f"python tools/make_flow.py --input {images} --output {flows}, or set data.flow=dis"
        return Finding(problem, fix, only_flow="has no image" not in problem)
    if "mask" in problem:
        return Finding(
            problem, "prepare the set again with tools/prepare_data.py; its archive may be incomplete"
        )
    if "files are called" in problem:
        return Finding(problem, "keep one of them")
    return Finding(problem, "unpack or prepare the set again; docs/DATA.md has the expected tree")


def _compare_with_published(report: SplitReport) -> list[Finding]:
    published = PUBLISHED.get((report.dataset, report.split))
    if published is None:
        return []
    names = {video.name for video in report.videos}
    others = [key for key, group in PUBLISHED.items() if names and names <= set(group)]
    if others and (report.dataset, report.split) not in others:
        dataset, split = others[0]
        return [
            Finding(
                f"these are the videos of {dataset} {split}, not of {report.dataset} {report.split}",
                "download the set from its authors (docs/DATA.md); renamed copies of other sets are in circulation",
            )
        ]
    findings = []
    missing, extra = sorted(set(published) - names), sorted(names - set(published))
    if missing:
        problem = f"{len(missing)} of {len(published)} published videos are missing: {_few(missing)}"
        findings.append(
            Finding(problem, "complete the set before comparing scores with published ones", note=True)
        )
    if extra:
        problem = f"{len(extra)} videos are not in the published split: {_few(extra)}"
        findings.append(
            Finding(problem, "remove them before comparing scores with published ones", note=True)
        )
    return findings


def _check_files(report: SplitReport, video: Video, decode: int) -> None:
    frames = video.frames
    count = len(frames) if decode == 0 else min(decode, len(frames))
    chosen = {int(i) for i in np.linspace(0, len(frames) - 1, count)} if frames else set()
    annotated = [i for i, frame in enumerate(frames) if frame.mask is not None]
    if annotated and chosen.isdisjoint(annotated):
        chosen.add(annotated[0])
    sizes: Counter[tuple[int, int]] = Counter()
    for number in sorted(chosen):
        try:
            sizes[_check_frame(report, video, frames[number])] += 1
        except (BadFileError, OSError) as error:
            problem = f"{video.name}: {error}"
            report.findings.append(Finding(problem, "delete the file and download or prepare the set again"))
    for height, width in list(sizes)[:1]:
        report.sizes[f"{width}x{height}"] += 1
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for height, width in sizes)
        report.findings.append(
            Finding(f"{video.name}: images of {len(sizes)} sizes: {shown}", "resize them to one")
        )


def _check_frame(report: SplitReport, video: Video, frame: Frame) -> tuple[int, int]:
    image = read_rgb(frame.image)
    height, width = image.shape[:2]
    where = f"{video.name}/{frame.stem}"
    if frame.mask is not None:
        values = read_mask_values(frame.mask)
        report.truth[_kind_of_truth(values)] += 1
        report.findings += _check_mask(values, where, (height, width))
    if frame.flow is not None:
        flow_height, flow_width = read_flow_size(frame.flow)
        remake = "python tools/make_flow.py makes it anew"
        if abs(flow_width / flow_height / (width / height) - 1) > SHAPE_TOLERANCE:
            turned = (flow_width > flow_height) != (width > height)
            problem = (
                f"{where}: flow is {flow_width}x{flow_height} but its image {width}x{height}"
                f"{', turned on its side' if turned else ''}"
            )
            report.findings.append(Finding(problem, remake, only_flow=True))
        elif np.array_equal(flow := read_flow_rgb(frame.flow), image):
            report.findings.append(
                Finding(f"{where}: the flow map is the image itself", remake, only_flow=True)
            )
        elif np.ptp(flow, axis=2).max() < 8 and flow.min() < 200:
            problem = f"{where}: the flow map has no colour, so it is not a colour-wheel map"
            report.findings.append(Finding(problem, remake, only_flow=True))
    return height, width


def _check_mask(values: np.ndarray, where: str, size: tuple[int, int]) -> list[Finding]:
    findings = []
    if values.shape[:2] != size:
        problem = f"{where}: mask is {values.shape[1]}x{values.shape[0]} but its image {size[1]}x{size[0]}"
        fix = "masks and images come from different releases of the set; take both from one"
        findings.append(Finding(problem, fix))
    kind = _kind_of_truth(values)
    if kind == "soft grey":
        problem = f"{where}: grey levels between 0 and 255, each above 0 counts as foreground"
        findings.append(
            Finding(problem, "prepare the set with tools/prepare_data.py, which thresholds them", note=True)
        )
    if kind == "greyed palette":
        problem = (
            f"{where}: values {_few(np.unique(values))} come from a palette mask that was turned into grey"
        )
        findings.append(
            Finding(problem, "still read right (above 0); prepare the set again for clean ids", note=True)
        )
    return findings


def _kind_of_truth(values: np.ndarray) -> str:
    if values.ndim == 3:
        return "colour"
    found = set(np.unique(values).tolist())
    if found <= {0, 1}:
        return "{0,1}" if 1 in found else "empty"
    if found <= {0, 255}:
        return "{0,255}"
    if found <= {0, 38, 75, 113, 15, 53, 90, 128}:  # DAVIS's palette in grey
        return "greyed palette"
    return "object ids" if max(found) <= 64 else "soft grey"


def _few(items: Iterable[object], limit: int = 5) -> str:
    shown = [str(item) for item in items]
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {rest} more" if rest > 0 else "")
