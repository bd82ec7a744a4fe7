"""What --dry-run says of memory."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_config

from hmhi.config import Config
from hmhi.models.build import build_model
from hmhi.training.plan import MIB, MemoryEstimate, estimate_memory
from hmhi.training.run import build_data


def estimate(config: Config, processes: int = 1) -> MemoryEstimate:
    loader, _ = build_data(config)
    torch.manual_seed(0)
    model = build_model(config.model).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = estimate_memory(model, config, next(iter(loader)), processes)
    assert found is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    return found


def test_estimate_counts_what_is_held_and_what_a_step_adds(tmp_path: Path):
    config = tiny_config(tmp_path, "data.image_size=[128,128]", "train.ema=0.9")
    weights = 4 * sum(value.numel() for value in build_model(config.model).state_dict().values()) / MIB
    kept = estimate(config, processes=2)
    assert kept.weights == pytest.approx(2 * weights, rel=0.01)  # and their average
    assert kept.gradients == pytest.approx(weights, rel=0.01)
    assert kept.optimizer == pytest.approx(2 * weights, rel=0.01)  # two averages of AdamW

    anew = estimate(tiny_config(tmp_path, "data.image_size=[128,128]", "train.checkpoint_activations=true"))
    assert (anew.weights, anew.gradients) == pytest.approx((weights, weights), rel=0.01)
    activations = [found.peak - found.weights - found.gradients - found.optimizer for found in (kept, anew)]
    assert 0 < activations[1] < 0.75 * activations[0]
