import dataclasses

import pytest
import torch

from hmhi.benchmarks.dense import DenseHMHINet
from hmhi.config import ModelConfig
from hmhi.models.build import build_model

SMALL = ModelConfig(backbone="mit_b0", decoder_channels=16, ffn_channels=32, memory_topk=10, memory_frames=2)


def make(**changes):
    torch.manual_seed(0)
    model = build_model(dataclasses.replace(SMALL, **changes)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(".gamma"):
            torch.nn.init.ones_(parameter)  # so that the memory encoder is no identity
        if name.endswith("adapter.up.weight"):
            torch.nn.init.normal_(parameter, std=0.1)  # so that adapters act
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"memory_stages": [1, 3], "memory_interval": 2},
        {"shallow_to_high": "sgim", "high_to_shallow": "plam", "flow_adapters": False},
        {"memory_stages": [], "shallow_to_high": "none", "high_to_shallow": "none"},
    ],
    ids=str,
)
def test_the_dense_form_gives_the_same_numbers(changes):
    model = make(**changes)
    dense = DenseHMHINet(model)
    memory = dense_memory = None
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        for _ in range(4):
            image, flow = torch.randn(2, 2, 3, 64, 96, generator=generator)
            ours, memory = model.step(image, flow, memory)
            theirs, dense_memory = dense.step(image, flow, dense_memory)
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert ours.std() > 1e-3


def test_the_dense_form_is_for_one_backbone():
    with pytest.raises(ValueError, match="Mix Transformer"):
        DenseHMHINet(make(inputs="image"))
