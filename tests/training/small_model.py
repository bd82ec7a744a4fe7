"""A real, untrained network small enough for tests, in memory or as a checkpoint file."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from hmhi.config import ModelConfig, config_to_dict, load_config
from hmhi.models.build import build_model
from hmhi.models.hmhi_net import HMHINet

SMALL = ModelConfig(backbone="mit_b0", decoder_channels=16, ffn_channels=32, memory_topk=10)

SETTINGS = [
    "model.backbone=mit_b0", "model.decoder_channels=16", "model.ffn_channels=32", "data.image_size=[64,64]",
]  # fmt: skip


def make_small_model(**changes: Any) -> HMHINet:
    """`SMALL` with changes, in eval mode, without parts that do nothing before training."""
    torch.manual_seed(0)
    model = build_model(dataclasses.replace(SMALL, **changes)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(".gamma"):
            torch.nn.init.ones_(parameter)  # so that the memory encoder is no identity
        if name.endswith("adapter.up.weight"):
            torch.nn.init.normal_(parameter, std=0.1)  # so that adapters act
    return model


def save_small_checkpoint(path: Path, overrides: list[str] = ()) -> Path:
    config = load_config(None, [*SETTINGS, *overrides])
    torch.manual_seed(0)
    model = build_model(config.model)
    torch.nn.init.normal_(model.decoder.predictor.weight, std=1.0)  # so that masks are neither empty nor full
    torch.save({"format": "hmhi-1", "config": config_to_dict(config), "model": model.state_dict()}, path)
    return path
