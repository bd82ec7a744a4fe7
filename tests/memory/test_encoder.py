import pytest
import torch

from hmhi.memory.encoder import MemoryEncoder, _mask_channels


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_tokens_cover_the_grid_of_every_stage(stage, size):
    h, w = size[0] // 2 ** (stage + 1), size[1] // 2 ** (stage + 1)
    encoder = MemoryEncoder(32, stage)
    tokens = encoder(torch.randn(2, 32, h, w), torch.randn(2, 1, size[0] // 4, size[1] // 4))
    assert tokens.shape == (2, h * w, 32)


@pytest.mark.parametrize(
    ("channels", "hidden"), [(32, 4), (64, 27), (128, 27), (192, 27), (256, 256), (768, 256)]
)
def test_width_of_the_mask_branch(channels, hidden):
    assert _mask_channels(channels) == hidden


def test_the_mask_reaches_the_tokens():
    encoder = MemoryEncoder(32, 2).eval()
    feature = torch.randn(1, 32, 8, 8)
    on, off = (encoder(feature, torch.full((1, 1, 16, 16), value)) for value in (9.0, -9.0))
    assert (on - off).abs().max() > 1e-3
