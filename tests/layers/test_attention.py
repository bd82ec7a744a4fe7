import pytest
import torch

import hmhi.layers.topk as search
from hmhi.layers.attention import Attention, topk_attention


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
@pytest.mark.parametrize("at_once", [1, 2000, 1 << 23], ids=["row by row", "slices", "one piece"])
def test_topk_equals_the_dense_form(tokens, topk, at_once, monkeypatch):
    monkeypatch.setattr(search, "AT_ONCE", at_once)
    torch.testing.assert_close(topk_attention(*tokens, topk), dense_topk(*tokens, topk))


@pytest.mark.parametrize("at_once", [2000, 1 << 23], ids=["slices", "one piece"])
def test_topk_gradients_equal_the_dense_form(tokens, at_once, monkeypatch):
    monkeypatch.setattr(search, "AT_ONCE", at_once)
    gradients = []
    for form in (topk_attention, dense_topk):
        leaves = [x.clone().requires_grad_() for x in tokens]
        form(*leaves, 9).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected)


def test_topk_of_all_keys_is_plain_attention(tokens):
    plain = torch.nn.functional.scaled_dot_product_attention(*tokens)
    torch.testing.assert_close(topk_attention(*tokens, 120), plain)


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
