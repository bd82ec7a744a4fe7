"""A real, untrained STMA that is small enough for tests."""

from collections.abc import Sequence
from pathlib import Path

import torch

from hmhi.config import config_to_dict, load_config
from hmhi.models.build import build_model
from hmhi.models.stma import STMA

SETTINGS = [
    "model.kind=stma", "model.stma.channels=[8,12,24]", "model.stma.depths=[1,1,3]", "model.stma.heads=3",
    "model.stma.drop_path=0", "model.stma.key_channels=8", "model.stma.value_channels=16",
    "model.stma.decoder_channels=16", "model.stma.topk=6", "model.stma.memory_interval=2",
]  # fmt: skip


def make_small_stma(changes: Sequence[str] = ()) -> STMA:
    """In eval mode; its predictions are neither empty nor full."""
    torch.manual_seed(0)
    model = build_model(load_config(None, [*SETTINGS, *changes]).model).eval()
    assert isinstance(model, STMA)
    torch.nn.init.normal_(model.decoder.predict.weight, std=0.1)
    return model


def save_small_stma(path: Path) -> Path:
    """As a checkpoint that training would write."""
    config = config_to_dict(load_config(None, SETTINGS))
    torch.save({"format": "hmhi-1", "config": config, "model": make_small_stma().state_dict()}, path)
    return path
