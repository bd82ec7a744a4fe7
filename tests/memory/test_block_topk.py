import pytest
import torch

import hmhi.memory.block_topk as block_topk
from hmhi.memory.block_topk import from_blocks, read_blocks, to_blocks

GRID = (3, 4)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_blocks_and_back(factor):
    x = torch.randn(2, 5, GRID[0] * factor, GRID[1] * factor)
    blocks = to_blocks(x, factor)
    assert blocks.shape == (2, 12, factor**2, 5)
    assert torch.equal(blocks[1, 5, 0], x[1, :, factor, factor])  # cell (1, 1), its upper left position
    assert torch.equal(blocks[1, 5, -1], x[1, :, 2 * factor - 1, 2 * factor - 1])
    assert torch.equal(from_blocks(blocks, factor, GRID), x)


@pytest.mark.parametrize("at_once", [1, 500, 1 << 22])
@pytest.mark.parametrize("factor", [2, 4])
def test_equals_dense_attention_with_all_other_blocks_masked_out(factor, at_once, monkeypatch):
    monkeypatch.setattr(block_topk, "GATHERED_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    n, m, block = 12, 24, factor**2

    def draw(cells, channels):
        x = torch.randn(2, cells, block, channels, generator=generator, dtype=torch.float64)
        return x.requires_grad_()

    query, keys, values = draw(n, 6), draw(m, 6), draw(m, 5)
    chosen = torch.rand(2, n, m, generator=generator).topk(3).indices

    scores = query.flatten(1, 2) @ keys.flatten(1, 2).transpose(1, 2) / 6**0.5  # (R, N f f, M f f)
    allowed = torch.zeros(2, n, m, dtype=torch.bool).scatter_(-1, chosen, True)
    allowed = allowed.repeat_interleave(block, 1).repeat_interleave(block, 2)
    expected = scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ values.flatten(1, 2)

    ours = read_blocks(query, keys, values, chosen)
    torch.testing.assert_close(ours.flatten(1, 2), expected)
    pull = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    leaves = (query, keys, values)
    for got, wanted in zip(
        torch.autograd.grad(ours, leaves, pull),
        torch.autograd.grad(expected, leaves, pull.flatten(1, 2)),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)
