import pytest
import torch

from hmhi.models.decoder import upsample, upsample_wide


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (16, 12)])
def test_wide_upsampling_equals_plain_upsampling(size, factor):
    x = torch.randn(2, 6, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(upsample_wide(x, factor), upsample(x, factor), atol=1e-6, rtol=1e-6)


def test_weights_are_exact_in_bfloat16():
    """A doubled bfloat16 map is off by the rounding of its two products alone."""
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 4] = 1.0
    rows = upsample_wide(x.expand(1, 1, 8, 8).to(torch.bfloat16), 2).float()
    # each value is a product of two multiples of 1/256, rounded once
    torch.testing.assert_close(rows, upsample(x, 2), atol=0, rtol=2**-8)
