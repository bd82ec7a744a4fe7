import pytest
import torch

import hmhi.memory.affinity as affinity
from hmhi.memory.affinity import read_memory, read_nearest

GRID = (5, 7)


def inputs(rows=3, slots=2):
    generator = torch.Generator().manual_seed(0)
    n, m = GRID[0] * GRID[1], slots * GRID[0] * GRID[1]
    query, keys, values = (
        torch.randn(rows, size, c, generator=generator, dtype=torch.float64)
        for size, c in ((n, 8), (m, 8), (m, 6))
    )
    bias = tuple(torch.randn(rows, side, m, generator=generator, dtype=torch.float64) for side in GRID)
    return query, keys, values, bias


def dense(query, keys, values, bias, guides, best):
    """The oracle: the whole matrix at once."""
    scores = query @ keys.transpose(1, 2) / query.shape[-1] ** 0.5
    if bias is not None:
        scores = scores + (bias[0][:, :, None] + bias[1][:, None]).flatten(1, 2)
    weights = scores.softmax(-1)
    guide = weights if guides is None else weights[..., guides]
    return weights @ values, guide.topk(best, dim=-1).indices


@pytest.mark.parametrize("at_once", [1, 1000, 6000, 1 << 22], ids=["line", "lines", "object", "all"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("guides", [None, torch.arange(35, 70)], ids=["all cells", "one slot"])
def test_pieces_equal_the_whole_matrix(at_once, biased, guides, monkeypatch):
    monkeypatch.setattr(affinity, "SCORES_AT_ONCE", at_once)
    query, keys, values, bias = inputs()
    bias = bias if biased else None
    found = read_memory(query, keys, values, GRID, bias=bias, guides=guides, best=4)
    for ours, expected in zip(found, dense(query, keys, values, bias, guides, 4), strict=True):
        torch.testing.assert_close(ours, expected)


def test_one_query_serves_all_objects():
    query, keys, values, _ = inputs()
    shared, chosen = read_memory(query[:1], keys, values, GRID)
    assert chosen is None
    torch.testing.assert_close(shared, read_memory(query[:1].expand(3, -1, -1), keys, values, GRID)[0])


def test_long_keys_stay_finite_in_half_precision():
    query = torch.full((1, 35, 128), 23.0, dtype=torch.float16)  # of length 260
    read, _ = read_memory(query, query, query, GRID)
    assert read.isfinite().all()


def nearest(query, keys, values, topk):
    """The oracle: the whole matrix of distances at once, and all but the nearest cells left out."""
    distances = (query[:, :, None] - keys[:, None]).square().sum(-1)
    scores = -distances / query.shape[-1] ** 0.5  # q.q more than in the paper, which softmax does not see
    if topk:
        beyond = scores < scores.topk(topk, dim=-1).values[..., -1:]
        scores = scores.masked_fill(beyond, float("-inf"))
    weights = scores.softmax(-1)
    return weights @ values, weights.sum(1)


@pytest.mark.parametrize("at_once", [1, 1000, 1 << 22], ids=["line", "lines", "all"])
@pytest.mark.parametrize("shared", [False, True], ids=["rows", "shared"])
@pytest.mark.parametrize("topk", [0, 4])
def test_nearest_cells_equal_the_whole_matrix(at_once, shared, topk, monkeypatch):
    monkeypatch.setattr(affinity, "SCORES_AT_ONCE", at_once)
    query, keys, values, _ = inputs()
    if shared:
        query, keys = query[:1], keys[:1]
    found = read_nearest(query, keys, values, topk=topk)
    for ours, expected in zip(found, nearest(query, keys, values, topk), strict=True):
        torch.testing.assert_close(ours, expected)
    given = torch.full((len(query),), float(query.shape[1]), dtype=torch.float64)
    torch.testing.assert_close(found[1].sum(1), given)  # each query hands out 1


def test_as_many_cells_as_there_are_is_all_of_them():
    query, keys, values, _ = inputs()
    whole = read_nearest(query, keys, values)
    for topk in (keys.shape[1], 1000):
        assert all(
            torch.equal(a, b)
            for a, b in zip(read_nearest(query, keys, values, topk=topk), whole, strict=True)
        )


def test_distances_are_exact_inside_autocast():
    query, keys, values, _ = (x.float() if isinstance(x, torch.Tensor) else x for x in inputs())
    with torch.autocast("cpu", torch.bfloat16):
        found = read_nearest(query, keys, values, topk=4)
    torch.testing.assert_close(found[0], read_nearest(query, keys, values, topk=4)[0], atol=1e-5, rtol=1e-5)
