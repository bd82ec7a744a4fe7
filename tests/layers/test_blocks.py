import pytest
import torch

from hmhi.layers.blocks import CBAM, ChannelNorm, ConvNeXtBlock, ConvReLU, DropPath


def test_channel_norm_is_a_layer_norm_of_each_cell():
    x = torch.randn(2, 6, 3, 5)
    norm = ChannelNorm(6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    expected = (x - mean) / (variance + 1e-6).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)


def test_layer_scale_starts_the_block_as_the_identity():
    x = torch.randn(1, 4, 5, 7)
    torch.testing.assert_close(ConvNeXtBlock(4)(x), x, atol=1e-4, rtol=0)
    assert not torch.allclose(ConvNeXtBlock(4, layer_scale=1.0)(x), x, atol=1e-2)


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_conv_relu_keeps_the_size(kernel):
    out = ConvReLU(3, 5, kernel)(torch.randn(1, 3, 9, 11))
    assert out.shape == (1, 5, 9, 11)
    assert out.min() == 0


def test_cbam_only_weakens_its_convolution():
    block = CBAM(4)
    x = torch.randn(2, 4, 6, 6)
    inner, out = block.conv(x), block(x)
    assert out.shape == x.shape
    assert (out.abs() <= inner.abs()).all()
    assert torch.equal(out.sign(), inner.sign())


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(4000, 2, 3)
    out = layer(x)
    kept = out[:, 0, 0] > 0
    assert torch.equal(out[kept], torch.full((int(kept.sum()), 2, 3), 1 / 0.75))
    assert (out[~kept] == 0).all()
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(layer.eval()(x), x)


def test_cbam_starts_as_its_convolution():
    block = CBAM(16)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(block(x), block.conv(x), atol=0.3, rtol=0.2)
