"""The streams of STML, beside one attention over all tokens with a mask."""

import pytest
import torch

from hmhi.models.stml import STMLBlock, make_context, see, see_jointly

K, M, N, C = 2, 3, 5, 12


@pytest.fixture(scope="module")
def blocks():
    torch.manual_seed(0)
    return [STMLBlock(C, 3).double() for _ in range(3)]


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, *shape, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masked_joint(blocks, objects, references, test):
    """Of [o | r1 .. rm | t], objects see o, a reference itself and o, the test frame itself and all r (or o)."""
    parts = [objects, *references.unbind(1), test]
    of = torch.cat([torch.full((part.shape[1],), i) for i, part in enumerate(parts)])
    query, key, last = of[:, None], of[None], len(parts) - 1
    seen = (query == key) | ((key == 0) & (query < last))
    seen |= (query == last) & (key > 0 if references.shape[1] else key >= 0)
    x = torch.cat(parts, dim=1)
    for block in blocks:
        q, k, v = (
            block.attn.qkv(block.norm1(x)).unflatten(-1, (3, block.attn.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        scores = (q @ k.transpose(-1, -2) / (C / block.attn.heads) ** 0.5).masked_fill(~seen, float("-inf"))
        x = x + block.attn.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    return x[:, -test.shape[1] :]


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-13), (torch.float32, 5e-6)])
@pytest.mark.parametrize(("objects", "references"), [(K, M), (0, M), (K, 0), (0, 0)])
def test_three_streams_equal_one_attention_with_a_mask(blocks, objects, references, dtype, within):
    o, r, t = (x.to(dtype) for x in (tokens(objects), tokens(references, N, seed=2), tokens(N, seed=3)))
    for block in blocks:
        block.to(dtype)
    expected = masked_joint(blocks, o, r, t)
    context = make_context(blocks, o if objects else None, r if references else None)
    torch.testing.assert_close(see(blocks, t, context), expected, atol=within, rtol=0)
    for block in blocks:
        block.double()


@torch.no_grad()
def test_references_never_see_each_other_and_objects_see_no_frame(blocks):
    """Bit for bit. What the test frame is, the context cannot know: it is made without it."""
    seen = []

    def keep(block, inputs, outputs):
        if inputs[0].shape[1] == K:
            seen.append(outputs[0])

    hooks = [block.register_forward_hook(keep) for block in blocks]
    references, other = tokens(M, N), tokens(M, N)
    other[:, 1:] = tokens(M - 1, N, seed=5)
    first, second = (make_context(blocks, tokens(K), r) for r in (references, other))
    for hook in hooks:
        hook.remove()
    for (k, v), (other_k, other_v) in zip(first.keys_values, second.keys_values, strict=True):
        assert k[:, :, :N].equal(other_k[:, :, :N])
        assert v[:, :, :N].equal(other_v[:, :, :N])
        assert not k[:, :, N:].equal(other_k[:, :, N:])
    half = len(seen) // 2
    assert half == 2
    assert all(a.equal(b) for a, b in zip(seen[:half], seen[half:], strict=True))


@torch.no_grad()
def test_objects_reach_the_test_frame_through_the_references_in_two_blocks(blocks):
    objects, references, test = tokens(K), tokens(M, N), tokens(N, seed=3)

    def after(depth, objects, references):
        part = blocks[:depth]
        return see(part, test, make_context(part, objects, references))

    for depth in (1, 2, 3):
        plain = after(depth, objects, references)
        assert not after(depth, objects, tokens(M, N, seed=5)).allclose(plain)
        assert after(depth, tokens(K, seed=5), references).equal(plain) == (depth == 1)


@torch.no_grad()
def test_references_and_objects_have_no_order(blocks):
    objects, references, test = tokens(K), tokens(M, N), tokens(N, seed=3)
    plain = see(blocks, test, make_context(blocks, objects, references))
    turned = see(blocks, test, make_context(blocks, objects.flip(1), references.flip(1)))
    torch.testing.assert_close(turned, plain, atol=1e-12, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("references", [0, M])
@pytest.mark.parametrize("joint", [False, True])
def test_objects_that_do_not_exist_change_nothing(blocks, references, joint):
    """K of them, padded to four; and a video without any."""
    objects, frames, test = (
        tokens(K),
        tokens(references, N, seed=2) if references else None,
        tokens(N, seed=3),
    )
    padded = torch.cat((objects, tokens(4 - K, seed=4)), dim=1)

    def run(objects, present=None):
        if joint:
            return see_jointly(blocks, test, objects, frames, present)
        return see(blocks, test, make_context(blocks, objects, frames, present))

    present = torch.tensor([[True] * K + [False] * (4 - K)])
    torch.testing.assert_close(run(padded, present), run(objects), atol=1e-12, rtol=0)
    torch.testing.assert_close(run(padded, torch.zeros_like(present)), run(None), atol=1e-12, rtol=0)
