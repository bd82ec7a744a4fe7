import pytest
import torch
import torch.nn.functional as F

from benchmarks.dense import decode
from hmhi.models.decoder import Decoder, convolve_upsampled, upsample


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (16, 12)])
def test_convolution_on_the_small_map_equals_convolution_of_the_enlarged_map(size):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, *size, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 6, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    ours = convolve_upsampled(x, weight)
    plain = F.conv2d(upsample(x, 2), weight, padding=1)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-6)
    pull = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    for got, expected in zip(
        torch.autograd.grad(ours, (x, weight), pull),
        torch.autograd.grad(plain, (x, weight), pull),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-6)


def test_the_decoder_equals_its_dense_form():
    torch.manual_seed(0)
    decoder = Decoder((4, 6, 8, 10), channels=16)
    features = [torch.randn(2, c, 32 >> i, 48 >> i) for i, c in enumerate((4, 6, 8, 10))]
    torch.testing.assert_close(decoder(features), decode(decoder, features), atol=1e-5, rtol=1e-5)
