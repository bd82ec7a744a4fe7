"""What the server allows, and what a job may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hmhi.errors import UserError

SIZES = (128, 192, 256, 384, 512)
"""Inputs of the network that a job may choose."""
SAMPLES = {"sample-1": 60007, "sample-2": 60003, "sample-3": 60006}
"""Name of a synthetic video -> its seed; three of ten, on which the bundled network does well (docs/SERVE.md)."""


@dataclass(frozen=True)
class Limits:
    """Limits of every job; beyond them it is refused, with a message that names the limit."""

    upload_bytes: int = 500_000_000
    pixels: int = 4096 * 2304
    """Of a frame: 4K passes."""
    frames: int = 3000
    mask_bytes: int = 4_000_000
    """Of a painted mask, a PNG."""
    objects: int = 10
    """In a painted mask, and the largest id there."""
    seconds: float = 3600.0
    """Of work on a job, waiting left out."""
    waiting: int = 20
    """Jobs in the queue."""
    keep_seconds: float = 24 * 3600.0
    """After which a finished job is deleted."""
    disk_bytes: int = 10_000_000_000
    """Of all jobs; beyond it the oldest finished ones are deleted."""
    silence_seconds: float = 60.0
    """Longest pause within an upload."""


@dataclass(frozen=True)
class JobOptions:
    """What a job may ask for."""

    image_size: int | None = None
    """Of `SIZES`; None is the checkpoint's own."""
    alpha: bool = False
    """Whether to write the video with transparency."""
    refine: bool = True
    """Whether masks follow the edges of the frame where that helps (`hmhi.inference.refine`)."""

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size not in SIZES:
            raise UserError(f"size must be one of {', '.join(map(str, SIZES))}, got {self.image_size}")


@dataclass(frozen=True)
class ServerSettings:
    """How the server runs."""

    folder: Path
    """Holds a folder for each job; nothing is written elsewhere."""
    host: str = "127.0.0.1"
    token: str | None = None
    """Asked of every request; None asks for nothing."""
    checkpoint: Path | None = None
    """None is the bundled network."""
    objects_checkpoint: Path | None = None
    """Of the network that follows painted objects; None where there is none."""
    device: str = "auto"
    limits: Limits = Limits()


@dataclass(frozen=True)
class Task:
    """A job, as the process takes it."""

    folder: Path
    options: JobOptions
    limits: Limits
    sample: str | None = None
    """Of `SAMPLES`; None takes the upload."""
    follows: bool = False
    """Whether objects that were painted are followed; otherwise the salient one is found."""


@dataclass(frozen=True)
class Network:
    """Which networks segment."""

    checkpoint: Path | None
    device: str
    objects_checkpoint: Path | None = None
    """Of the network that follows painted objects; None where there is none."""
