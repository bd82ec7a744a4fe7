import pytest
import torch

import hmhi.layers.topk as topk
from hmhi.layers.topk import best_keys


@pytest.mark.parametrize(("m", "kept"), [(400, 7), (400, 24), (400, 25), (403, 7), (16, 1), (50, 50)])
def test_best_keys_are_the_best(m, kept):
    """Through blocks and without them: M no multiple of the block, or too few blocks to leave any out."""
    scores = torch.randn(3, 11, m, generator=torch.Generator().manual_seed(2))
    found = scores.gather(-1, best_keys(scores, kept)).sort(descending=True).values
    assert torch.equal(found, scores.sort(descending=True).values[..., :kept])


def test_best_keys_may_share_a_block():
    scores = torch.zeros(1, 16 * 20)
    scores[0, 3::20] = 1.0  # the sixteen members of the fourth block
    assert best_keys(scores, 10).flatten().remainder(20).eq(3).all()


def test_the_search_never_holds_the_dense_scores(monkeypatch):
    """Scores exist for a slice of the queries at a time, whatever their number."""
    q, k = torch.randn(2, 296, 16), torch.randn(2, 120, 16)
    monkeypatch.setattr(topk, "AT_ONCE", 4000)
    sizes = []

    def watch(scores, kept):
        sizes.append(scores.numel())
        return best_keys(scores, kept)

    monkeypatch.setattr(topk, "best_keys", watch)
    topk.search(q, k, 10)
    assert sum(sizes) == len(q) * q.shape[1] * k.shape[1]
    assert max(sizes) <= 4000


def test_the_search_passes_the_checks_of_an_operator():
    """Its shapes without data, its gradient, and that it changes no input."""
    q, k = (torch.randn(2, 8, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    torch.library.opcheck(torch.ops.hmhi.topk_scores.default, (q, k, 5))
