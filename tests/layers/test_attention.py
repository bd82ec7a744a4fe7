import pytest
import torch

import hmhi.layers.attention as attention
from hmhi.layers.attention import Attention, best_keys, topk_attention


def dense_topk(q, k, v, topk):
    """The oracle: all scores at once, everything below the top k masked out."""
    scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5  # (B, N, M)
    threshold = scores.topk(topk, dim=-1).values[..., -1:]
    return scores.masked_fill(scores < threshold, float("-inf")).softmax(-1) @ v


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, n, 16, generator=generator, dtype=torch.float64) for n in (37, 120, 120)]


@pytest.mark.parametrize("topk", [1, 7, 50, 120])
@pytest.mark.parametrize("scores_at_once", [1, 2000, 1 << 23], ids=["row by row", "slices", "one piece"])
def test_topk_equals_the_dense_form(tokens, topk, scores_at_once, monkeypatch):
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", scores_at_once)
    torch.testing.assert_close(topk_attention(*tokens, topk), dense_topk(*tokens, topk))


def test_topk_gradients_equal_the_dense_form(tokens):
    gradients = []
    for form in (topk_attention, dense_topk):
        leaves = [x.clone().requires_grad_() for x in tokens]
        form(*leaves, 9).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(("m", "topk"), [(400, 7), (400, 24), (400, 25), (403, 7), (16, 1), (50, 50)])
def test_best_keys_are_the_best(m, topk):
    """Through blocks and without them: M no multiple of the block, or too few blocks to leave any out."""
    scores = torch.randn(3, 11, m, generator=torch.Generator().manual_seed(2))
    found = scores.gather(-1, best_keys(scores, topk)).sort(descending=True).values
    assert torch.equal(found, scores.sort(descending=True).values[..., :topk])


def test_best_keys_may_share_a_block():
    scores = torch.zeros(1, 16 * 20)
    scores[0, 3::20] = 1.0  # the sixteen members of the fourth block
    assert best_keys(scores, 10).flatten().remainder(20).eq(3).all()


def test_topk_of_all_keys_is_plain_attention(tokens):
    plain = torch.nn.functional.scaled_dot_product_attention(*tokens)
    torch.testing.assert_close(topk_attention(*tokens, 120), plain)


def test_topk_never_holds_the_dense_scores(tokens, monkeypatch):
    """Scores exist for a slice of the queries at a time, whatever their number."""
    q, k, v = (x.float() for x in tokens)
    q = q.repeat(1, 8, 1)  # 296 queries
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 4000)
    sizes = []

    def watch(scores, topk):
        sizes.append(scores.numel())
        return best_keys(scores, topk)

    monkeypatch.setattr(attention, "best_keys", watch)
    topk_attention(q, k, v, 10)
    assert sum(sizes) == len(q) * q.shape[1] * k.shape[1]
    assert max(sizes) <= 4000


@pytest.mark.parametrize("length", [260.0, 900.0])
def test_long_queries_and_keys_stay_finite_in_half_precision(length):
    """Their product is beyond 65,504, the largest number of half precision; the scaled score is not."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(1, 1, 128, generator=generator), dim=-1)
    k = direction * length * torch.linspace(0.5, 1.0, 80)[None, :, None]
    v = torch.randn(1, 80, 128, generator=generator)
    q = direction * length
    halves = [x.half() for x in (q, k, v)]
    out = topk_attention(*halves, 7)
    assert out.dtype == torch.float16
    torch.testing.assert_close(
        out.float(), dense_topk(*(x.double() for x in halves), 7).float(), atol=0.02, rtol=0
    )


def test_the_search_is_one_operator_in_an_exported_program():
    layer, x = Attention(8, topk=4).eval(), torch.randn(1, 20, 8)
    program = torch.export.export(layer, (x, *layer.keys_values(x, x)))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("hmhi.topk_scores" in name for name in called) == 1
    assert not any(name.startswith("aten.topk") for name in called)


def test_the_search_passes_the_checks_of_an_operator(tokens):
    """Its shapes without data, its gradient, and that it changes no input."""
    q, k, _ = (x[:, :8, :4].clone().requires_grad_() for x in tokens)
    torch.library.opcheck(torch.ops.hmhi.topk_scores.default, (q, k, 5))


def test_fewer_keys_than_topk_uses_them_all():
    layer = Attention(8, topk=50).eval()
    x = torch.randn(1, 5, 8)
    plain = Attention(8).eval()
    plain.load_state_dict(layer.state_dict())
    keys_values = layer.keys_values(x, x)
    torch.testing.assert_close(layer(x, *keys_values), plain(x, *keys_values))


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    layer = Attention(8, dropout=0.5, topk=4)
    x = torch.randn(1, 20, 8)
    keys_values = layer.keys_values(x, x)
    assert not torch.equal(layer(x, *keys_values), layer(x, *keys_values))
    layer.eval()
    assert torch.equal(layer(x, *keys_values), layer(x, *keys_values))
