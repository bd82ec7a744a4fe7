"""The search for each query's best keys on a GPU, without a matrix of scores; the method of `hmhi.layers.topk`.

The first kernel keeps of each block of keys only its best score; no more than K blocks can hold one of the K best
keys, and the second kernel scores the keys of those anew.

Note:
    Tested in Triton's interpreter, and not yet on a GPU: ``HMHI_KERNELS=triton`` in the environment turns it on.
"""

# mypy: allow-untyped-defs
# Triton has types of its own for the arguments of kernels.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 16
"""Keys to a block."""
_TILE = 64  # queries, and keys, of a program of the first kernel
_CHANNELS = 32  # of them at a time
_LISTED = 64  # candidates at a time in the second kernel


def search(q: Tensor, k: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """What `hmhi.layers.topk.search` gives; products are summed in float32.

    Args:
        q: (B, N, C), float32, bfloat16 or float16.
        k: (B, M, C) of the same type, more than K blocks.
        topk: K.

    Returns:
        Scaled scores, float32 (B, N, K), and keys, int64 (B, N, K).
    """
    (batch, n, channels), m = q.shape, k.shape[1]
    q, k = q.contiguous(), k.contiguous()
    blocks = triton.cdiv(m, BLOCK)
    maxima = q.new_empty((batch, n, blocks), dtype=torch.float32)
    exact = torch.get_float32_matmul_precision() == "highest"
    _block_maxima[(triton.cdiv(n, _TILE), triton.cdiv(m, _TILE), batch)](
        q, k, maxima, n, m, channels, blocks,
        TILE=_TILE, STEP=_CHANNELS, BLOCK=BLOCK, PRECISION="ieee" if exact else "tf32",
    )  # fmt: skip
    block = maxima.topk(topk, dim=-1, sorted=False).indices  # (B, N, K)
    scores = q.new_empty((batch, n, topk * BLOCK), dtype=torch.float32)
    _candidate_scores[(n, batch)](
        q, k, block, scores, n, m, channels, topk * BLOCK,
        STEP=_CHANNELS, BLOCK=BLOCK, LISTED=_LISTED,
    )  # fmt: skip
    best, at = scores.topk(topk, dim=-1, sorted=False)  # (B, N, K) each
    return best * channels**-0.5, block.gather(-1, at // BLOCK) * BLOCK + at % BLOCK


@triton.jit
def _block_maxima(
    q_pointer, k_pointer, maxima_pointer, n, m, channels, blocks,
    TILE: tl.constexpr, STEP: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Maxima (B, N, M / BLOCK) of the products of q (B, N, C) and k (B, M, C)."""
    batch = tl.program_id(2).to(tl.int64)
    query = tl.program_id(0) * TILE + tl.arange(0, TILE)
    key = tl.program_id(1) * TILE + tl.arange(0, TILE)
    scores = tl.zeros((TILE, TILE), tl.float32)
    for first in range(0, channels, STEP):
        channel = first + tl.arange(0, STEP)
        there = channel < channels
        q = tl.load(
            q_pointer + (batch * n + query[:, None]) * channels + channel[None, :],
            mask=(query[:, None] < n) & there[None, :],
            other=0.0,
        )
        k = tl.load(
            k_pointer + (batch * m + key[None, :]) * channels + channel[:, None],
            mask=(key[None, :] < m) & there[:, None],
            other=0.0,
        )
        scores = tl.dot(q, k, scores, input_precision=PRECISION)
    scores = tl.where(scores == scores, scores, float("inf"))  # NaN is the largest, as in torch
    scores = tl.where(key[None, :] < m, scores, float("-inf"))
    maxima = tl.max(tl.reshape(scores, (TILE, TILE // BLOCK, BLOCK)), axis=2)
    block = tl.program_id(1) * (TILE // BLOCK) + tl.arange(0, TILE // BLOCK)
    tl.store(
        maxima_pointer + (batch * n + query[:, None]) * blocks + block[None, :],
        maxima,
        mask=(query[:, None] < n) & (block[None, :] < blocks),
    )


@triton.jit
def _candidate_scores(
    q_pointer, k_pointer, block_pointer, scores_pointer, n, m, channels, count,
    STEP: tl.constexpr, BLOCK: tl.constexpr, LISTED: tl.constexpr,
):  # fmt: skip
    """Products (B, N, K * BLOCK) of each query and the keys of its blocks (B, N, K)."""
    query = tl.program_id(1).to(tl.int64) * n + tl.program_id(0)
    keys = tl.program_id(1).to(tl.int64) * m
    for first in range(0, count, LISTED):
        at = first + tl.arange(0, LISTED)
        block = tl.load(block_pointer + query * (count // BLOCK) + at // BLOCK, mask=at < count, other=0)
        key = block * BLOCK + at % BLOCK
        there = (at < count) & (key < m)
        scores = tl.zeros((LISTED,), tl.float32)
        for begin in range(0, channels, STEP):
            channel = begin + tl.arange(0, STEP)
            q = tl.load(q_pointer + query * channels + channel, mask=channel < channels, other=0.0)
            k = tl.load(
                k_pointer + (keys + key[:, None]) * channels + channel[None, :],
                mask=there[:, None] & (channel[None, :] < channels),
                other=0.0,
            )
            scores += tl.sum(k.to(tl.float32) * q.to(tl.float32)[None, :], axis=1)
        scores = tl.where(there, scores, float("-inf"))
        tl.store(scores_pointer + query * count + at, scores, mask=at < count)
