"""The data sets that the project knows by name: where each lies below the data root, and its rules."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from hmhi.config import ConfigError

SYNTHETIC = "synthetic"
"""Name of the built-in procedural videos, which need no folder."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One data set."""

    name: str
    """Name in configs and commands."""
    folder: str
    """Folder below the data root, as ``tools/prepare_data.py`` writes it."""
    aliases: tuple[str, ...] = ()
    """Other folder names that are understood; case does not matter."""
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "val": "val"})
    """Split in configs -> name of the split's folder or list file."""
    dense: bool = False
    """Whether every frame has a mask; otherwise frames without one are normal."""
    still: bool = False
    """Single images, ``Images/train/<stem>.*`` and ``Annotations/train/<stem>.png``, instead of videos; each
    one is a video of one frame without motion."""

    lists: tuple[str, ...] = ("480p", "2016")
    """Folders below ``ImageSets`` where DAVIS as published keeps the list files of this set."""
    step: int = 1
    """Frames of the source video from one annotated frame to the next; 5 in YouTube-VOS."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Every folder name that is understood, the usual one first."""
        return (self.folder, *self.aliases)


_SPECS = (
    DatasetSpec(name="sample", folder="Sample", dense=True),  # written by tools/make_synthetic.py
    DatasetSpec(
        name="davis16",
        folder="DAVIS-16",
        aliases=("davis16", "DAVIS-2016", "DAVIS2016", "DAVIS", "DAVIS2SEG_byvideo"),
        dense=True,
    ),
    DatasetSpec(
        name="ytvos",
        folder="Youtube-VOS",
        aliases=("ytvos", "YouTubeVOS", "YTBVOS2SEG_byvideo"),
        splits={"train": "train"},
        step=5,
    ),
    DatasetSpec(
        name="davis17",
        folder="DAVIS-17",
        aliases=("davis17", "DAVIS-2017", "DAVIS2017"),
        dense=True,
        lists=("2017",),
    ),
    DatasetSpec(
        name="davis17_testdev",
        folder="DAVIS-17",
        aliases=("davis17", "DAVIS-2017", "DAVIS2017"),
        splits={"val": "test-dev"},
        lists=("2017",),
    ),
    *(
        DatasetSpec(
            name=f"ytvos{year}",
            folder=f"YouTubeVOS-20{year}",
            aliases=(f"ytvos{year}", f"YouTubeVOS20{year}", f"Youtube-VOS-20{year}"),
            splits={"train": "train", "val": "valid"},
            step=5,
        )
        for year in (18, 19)
    ),
    DatasetSpec(name="fbms", folder="FBMS", aliases=("FBMS-59", "FBMS59", "FBMS2SEG_byvideo")),
    DatasetSpec(
        name="ytobj",
        folder="Youtube-Objects",
        aliases=("ytobj", "YouTubeObjects", "YTBOBJ2SEG_byvideo"),
        splits={"val": "val"},
    ),
    DatasetSpec(name="davsod", folder="DAVSOD", aliases=("DAVSOD2SEG_byvideo",)),
    DatasetSpec(name="davsod_validation", folder="DAVSOD", splits={"val": "validation"}),
    DatasetSpec(name="davsod_normal", folder="DAVSOD", splits={"val": "val_normal"}),
    DatasetSpec(name="davsod_difficult", folder="DAVSOD", splits={"val": "val_difficult"}),
    DatasetSpec(name="visal", folder="ViSal", aliases=("ViSal2SEG_byvideo",), splits={"val": "val"}),
    DatasetSpec(
        name="longvideos",
        folder="Long-Videos",
        aliases=("longvideos", "LongVideos", "long_videos"),
        splits={"val": "val"},
    ),
    DatasetSpec(name="duts", folder="DUTS", dense=True, still=True),
    *(
        DatasetSpec(
            name=folder.replace("-", "").lower(),
            folder=folder,
            splits={"train": "train"},
            dense=True,
            still=True,
        )
        for folder in ("ECSSD", "MSRA10K", "FSS-1000", "HRSOD", "BIG", "VOC")
    ),
)

DATASETS: Mapping[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}
"""Name -> data set, in the order of the documentation."""


def get_spec(name: str) -> DatasetSpec:
    """Look a data set up.

    Raises:
        ConfigError: No data set has this name; the message lists the known ones.
    """
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"unknown data set {name!r}; {hint}known: {SYNTHETIC}, {', '.join(DATASETS)}")
