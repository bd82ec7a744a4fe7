"""A real, untrained HMMN that is small enough for tests."""

from collections.abc import Sequence
from pathlib import Path

import torch

from hmhi.config import config_to_dict, load_config
from hmhi.models.build import build_model
from hmhi.models.hmmn import HMMN

SETTINGS = [
    "model.kind=hmmn", "model.hmmn.trunk=resnet18", "model.hmmn.key_channels=[8,8,8]",
    "model.hmmn.value_channels=[8,12,16]", "model.hmmn.decoder_channels=16", "model.hmmn.topk=6",
]  # fmt: skip


def make_small_hmmn(changes: Sequence[str] = ()) -> HMMN:
    """In eval mode; its predictions are neither empty nor full."""
    torch.manual_seed(0)
    model = build_model(load_config(None, [*SETTINGS, *changes]).model).eval()
    assert isinstance(model, HMMN)
    torch.nn.init.normal_(model.decoder.predict.weight, std=0.1)
    return model


def save_small_hmmn(path: Path, changes: Sequence[str] = ()) -> Path:
    """As a checkpoint that training would write; `changes` are of settings outside the network."""
    config = config_to_dict(load_config(None, [*SETTINGS, *changes]))
    torch.save({"format": "hmhi-1", "config": config, "model": make_small_hmmn().state_dict()}, path)
    return path
