"""What only a CUDA device can show; run with `python -m pytest -m gpu` where there is one."""

import pytest
import torch

from hmhi.config import ModelConfig
from hmhi.models.build import build_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone="mit_b0", decoder_channels=32, ffn_channels=64)).eval()
    torch.nn.init.normal_(model.decoder.predictor.weight, std=0.1)
    return model


@pytest.fixture(scope="module")
def clip():
    return torch.randn(2, 1, 3, 3, 128, 192, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def expected(model, clip):
    with torch.inference_mode():
        return model.cpu()(*clip)


def test_cuda_equals_cpu(model, clip, expected, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with torch.inference_mode():
        found = model.cuda()(*clip.cuda()).cpu()
    # a near tie of the top 50 may fall the other way
    assert ((found - expected).abs() > 1e-3).float().mean() < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_close(model, clip, expected, dtype):
    with torch.inference_mode(), torch.autocast("cuda", dtype):
        found = model.cuda()(*clip.cuda()).float().cpu()
    assert (found - expected).abs().mean() < 0.1 * expected.std()


def test_memory_on_the_device_does_not_grow_with_length(model, clip):
    model.cuda()
    image, flow = (x[:, 0] for x in clip.cuda())
    memory, held = None, []
    with torch.inference_mode():
        for _ in range(12):
            _, memory = model.step(image, flow, memory)
            torch.cuda.synchronize()
            held.append(torch.cuda.memory_allocated())
    assert len(set(held[6:])) == 1
