"""The search for each query's best keys, as one operator with several backends.

B batch, N query tokens, M key tokens, C channels, K kept keys.
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hmhi.layers import topk_cpu

# Numbers that exist at one time on the CPU: 16 MiB of float32. Larger pieces are no faster, and from 32 MiB on glibc
# asks the system for fresh pages each time, which doubles the time of a product.
AT_ONCE = 1 << 22
GPU_SHARE = 64  # on a GPU they may take this part of its memory
BLOCK = 16  # keys whose maximum `best_keys` looks at first


@torch.library.custom_op("hmhi::topk_scores", mutates_args=())
def topk_scores(q: Tensor, k: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """Scaled scores of each query's best keys, and which keys they are. Differentiable.

    `torch.compile` and `torch.export` see one operator. Backends agree to rounding, and in which keys they keep where
    no two scores at the limit are equal; their order is not defined.

    Args:
        q: (B, N, C) queries.
        k: (B, M, C) keys.
        topk: K, at most M.

    Returns:
        q k^T / sqrt(C), (B, N, K) in float32 at least, and int64 (B, N, K).
    """
    # Fewer scores fit into one slice, and gain nothing.
    many = q.shape[0] * q.shape[1] * k.shape[1] > AT_ONCE
    if many and topk_cpu.can_search(q, k):
        return topk_cpu.search(q, k, topk)
    halves_or_single = q.dtype == k.dtype and q.dtype.itemsize <= 4
    if (
        q.is_cuda
        and halves_or_single
        and k.shape[1] > BLOCK * topk
        and os.environ.get("HMHI_KERNELS") == "triton"
    ):
        from hmhi.layers import topk_triton  # only where there is Triton

        return topk_triton.search(q, k, topk)
    return search(q, k, topk)


@topk_scores.register_fake
def _(q: Tensor, k: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    kept = (*q.shape[:2], topk)
    scores = q.new_empty(kept, dtype=torch.promote_types(q.dtype, torch.float32))
    return scores, q.new_empty(kept, dtype=torch.int64)


def search(q: Tensor, k: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """`topk_scores` in PyTorch, for a slice of the queries at a time: peak memory grows with M, not with N x M."""
    batch, m, channels = k.shape
    # Once: bfloat16 products would copy it for every slice.
    transposed = k.transpose(1, 2).contiguous()  # (B, C, M)
    shrink, scale = _scales(channels)
    scores, indices = [], []
    for part in q.split(max(1, at_once(q.device) // (batch * m)), dim=1):
        products = (part * shrink) @ transposed  # (B, n, M)
        index = best_keys(products, topk)  # (B, n, K)
        best = products.gather(-1, index)  # (B, n, K)
        scores.append(best.to(torch.promote_types(best.dtype, torch.float32)) * scale)
        indices.append(index)
    return torch.cat(scores, dim=1), torch.cat(indices, dim=1)


def at_once(device: torch.device) -> int:
    """Numbers that a piece of work on this device may hold at one time."""
    if device.type == "cuda":
        return max(AT_ONCE, torch.cuda.get_device_properties(device).total_memory // (4 * GPU_SHARE))
    return AT_ONCE


@torch.library.custom_op("hmhi::topk_scores_backward", mutates_args=())
def _topk_scores_backward(grad: Tensor, q: Tensor, k: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients by q and k, from that by the scores (B, N, K)."""
    batch, m, channels = k.shape
    kept = index.shape[-1]
    first = torch.arange(batch, device=q.device)[:, None, None] * m
    rows = (index + first).flatten(0, 1)  # (B * N, K), of one table for the whole batch
    grad = (grad * channels**-0.5).flatten(0, 1)  # (B * N, K)
    queries, keys = (
        q.to(grad.dtype).flatten(0, 1),
        k.to(grad.dtype).flatten(0, 1),
    )  # (B * N, C) and (B * M, C)
    grad_q = F.embedding_bag(rows, keys, mode="sum", per_sample_weights=grad)  # (B * N, C)
    grad_k = torch.zeros_like(keys)
    step = max(1, at_once(q.device) // (kept * channels))
    for row, weight, query in zip(rows.split(step), grad.split(step), queries.split(step), strict=True):
        shares = weight[:, :, None] * query[:, None]  # (n, K, C)
        grad_k.index_add_(0, row.flatten(), shares.flatten(0, 1))
    return grad_q.view_as(q).to(q.dtype), grad_k.view_as(k).to(k.dtype)


@_topk_scores_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k)


def _save_for_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, _ = inputs
    ctx.save_for_backward(q, k, output[1])


def _gradient(ctx: Any, grad: Tensor, _: object) -> tuple[Tensor | None, ...]:
    return *_topk_scores_backward(grad, *ctx.saved_tensors), None


topk_scores.register_autograd(_gradient, setup_context=_save_for_gradient)


def _scales(channels: int) -> tuple[float, float]:
    """Two factors of C^-0.5: a power of two for the queries, and what is left for the scores.

    Half precision holds no product of queries and keys of length 260. Scaling the query first avoids that, and by
    a power of two it rounds nothing.
    """
    shrink = 2.0 ** -math.ceil(math.log2(channels) / 2)
    return shrink, channels**-0.5 / shrink


@torch.no_grad()
def best_keys(scores: Tensor, topk: int) -> Tensor:
    """Indices of each row's `topk` largest scores, in any order; what `Tensor.topk` gives in a third of the time.

    No more than `topk` blocks of keys can hold one of the best, and those are the blocks with the largest
    maxima: all others are left out before the search. A block's keys lie M / `BLOCK` apart, so that its maximum
    is one vector instruction.

    Args:
        scores: (..., M).
        topk: At most M.

    Returns:
        int64 (..., K).
    """
    m = scores.shape[-1]
    blocks = m // BLOCK
    if m % BLOCK or blocks <= topk:
        return scores.topk(topk, dim=-1, sorted=False).indices
    maxima = scores.unflatten(-1, (BLOCK, blocks)).amax(dim=-2)  # (..., M / BLOCK)
    block = maxima.topk(topk, dim=-1, sorted=False).indices  # (..., K)
    member = torch.arange(0, m, blocks, device=scores.device)
    candidates = (block.unsqueeze(-1) + member).flatten(-2)  # (..., K * BLOCK)
    best = scores.gather(-1, candidates).topk(topk, dim=-1, sorted=False).indices
    return candidates.gather(-1, best)
