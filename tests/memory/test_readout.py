import pytest
import torch

from hmhi.layers.position import rotary_table, rotate, sine_position
from hmhi.memory.readout import MemoryReadout


def dense_readout(layer: MemoryReadout, feature, tokens, grid):
    """The oracle: raw memory tokens, projected anew for every stored frame, explicit softmax over all keys.

    Args:
        layer: Where the weights are.
        feature: (B, C, h, w).
        tokens: One (B, h*w, C) for each stored frame.
        grid: (h, w).
    """
    c = feature.shape[1]
    position = sine_position(*grid, c, feature.device)
    table = rotary_table(*grid, c, feature.device)

    def attend(attention, q, k, v, topk=0):
        scores = q @ k.transpose(1, 2) / c**0.5
        if topk:
            keep = torch.zeros_like(scores, dtype=torch.bool)
            keep.scatter_(-1, scores.topk(min(topk, scores.shape[-1]), dim=-1).indices, True)
            scores = scores.masked_fill(~keep, float("-inf"))
        return attention.out_proj(scores.softmax(-1) @ v)

    x = feature.flatten(2).transpose(1, 2) + 0.1 * position
    own = layer.self_attention
    y = layer.norm1(x)
    qk = y + position if layer.self_position else y
    x = x + attend(own, rotate(own.q_proj(qk), table), rotate(own.k_proj(qk), table), own.v_proj(y))

    cross = layer.memory_attention
    q = cross.q_proj(layer.norm2(x))
    memory = torch.cat(tokens, dim=1)
    if layer.key_position == "rotary":
        q = rotate(q, table)
        k = rotate(cross.k_proj(memory), table.repeat(1, len(tokens), 1))
    elif layer.key_position == "sine":
        k = cross.k_proj(memory + position.repeat(1, len(tokens), 1))
    else:
        k = cross.k_proj(memory)
    x = x + attend(cross, q, k, cross.v_proj(memory), cross.topk)
    x = x + layer.ffn(layer.norm3(x))
    return layer.norm(x).transpose(1, 2).reshape(feature.shape)


@pytest.mark.parametrize("grid", [(6, 6), (4, 9)], ids=["square", "wide"])
@pytest.mark.parametrize(
    ("self_position", "key_position", "topk"),
    [(False, "rotary", 20), (False, "rotary", 0), (True, "sine", 0), (True, "none", 0)],
)
def test_stored_projections_equal_the_dense_form(self_position, key_position, topk, grid):
    torch.manual_seed(0)
    layer = MemoryReadout(
        16, ffn_channels=32, self_position=self_position, key_position=key_position, topk=topk
    ).eval()
    feature = torch.randn(2, 16, *grid)
    tokens = [torch.randn(2, grid[0] * grid[1], 16) for _ in range(3)]
    stored = [layer.keys_values(frame, grid) for frame in tokens]
    keys, values = (torch.cat(parts, dim=1) for parts in zip(*stored, strict=True))
    ours = layer(feature, keys, values)
    torch.testing.assert_close(ours, dense_readout(layer, feature, tokens, grid), atol=1e-5, rtol=1e-5)
