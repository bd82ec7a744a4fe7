"""A real, untrained network small enough for tests, as a checkpoint file."""

from pathlib import Path

import torch

from hmhi.config import config_to_dict, load_config
from hmhi.models.build import build_model

SETTINGS = [
    "model.backbone=mit_b0", "model.decoder_channels=16", "model.ffn_channels=32", "data.image_size=[64,64]",
]  # fmt: skip


def save_small_checkpoint(path: Path, overrides: list[str] = ()) -> Path:
    config = load_config(None, [*SETTINGS, *overrides])
    torch.manual_seed(0)
    model = build_model(config.model)
    torch.nn.init.normal_(model.decoder.predictor.weight, std=1.0)  # so that masks are neither empty nor full
    torch.save({"format": "hmhi-1", "config": config_to_dict(config), "model": model.state_dict()}, path)
    return path
