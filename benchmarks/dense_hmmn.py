"""HMMN with its reads computed without any thought for memory: the yardstick of `benchmark.py prompted`, its oracle.

The same weights and the same numbers as `HMMN`: all scores of all memory cells at once, the kernel as a factor of
their softmax, and all blocks of the fine reads gathered at once, as the authors' release goes about it.

K objects, T slots, n cells at 1/16, D channels of keys, C of values, f x f positions of a fine level in a cell.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from hmhi.layers.tokens import from_tokens
from hmhi.memory.bank import MemoryBank
from hmhi.memory.block_topk import from_blocks
from hmhi.memory.objects import Group
from hmhi.models.hmmn import HMMN, Seen
from hmhi.models.hmmn_decoder import FACTORS


class DenseHMMN(HMMN):
    """The dense form of a model, on that model's own weights."""

    @staticmethod
    def of(model: HMMN) -> DenseHMMN:
        """The dense form of `model`; its kernel must be ``local``."""
        assert model.kernel.mode == "local"
        dense = copy.copy(model)
        dense.__class__ = DenseHMMN  # same weights and fields, other reads
        return dense  # type: ignore[return-value]

    def read(
        self,
        features: Seen,
        owner: Tensor,
        group: Group,
        frame: int,
        *,
        learning: bool = False,
        dropout: float = 0.0,
    ) -> tuple[Tensor, Group]:
        """As `HMMN.read` in use."""
        query, coarse, fine = features.query, group.banks["coarse"], group.banks["fine"]
        assert query is not None
        grid, key = (query.joined.shape[2], query.joined.shape[3]), query.key[owner]  # (K, n, D)
        scores = coarse.joined("key") @ key.transpose(1, 2) * key.shape[2] ** -0.5  # (K, T*n, n)
        weights = scores.softmax(dim=1)
        factor, coarse = self._kernel(scores, coarse, grid)
        weights = weights * factor
        weights = weights / weights.sum(dim=1, keepdim=True)
        read4 = weights.transpose(1, 2) @ coarse.joined("value")  # (K, n, C)
        guides, best = self._guides(coarse, fine)
        guide = weights if guides is None else weights[:, guides]  # (K, G, n)
        chosen = guide.topk(best, dim=1).indices.transpose(1, 2)  # (K, n, best)
        reads = {}
        for level in self.fine_levels:
            count = best if level == 3 else max(1, best // 4)
            own = [_gather(fine.joined(f"{name}{level}"), chosen[..., :count]) for name in ("key", "value")]
            fine_query = query.fine_keys[level][owner]  # (K, n, f*f, D)
            fine_scores = fine_query @ own[0].transpose(2, 3) * fine_query.shape[3] ** -0.5
            blocks = fine_scores.softmax(dim=3) @ own[1]  # (K, n, f*f, C)
            reads[level] = from_blocks(blocks, FACTORS[level], grid)
        skips = {level: skip[owner] for level, skip in query.skips.items()}
        logits = self.decoder(from_tokens(read4, grid), query.joined[owner], skips, reads)  # (K, 2, Hp, Wp)
        return logits.softmax(dim=1)[:, 1], Group(group.start, group.ids, {"coarse": coarse, "fine": fine})

    def _kernel(self, scores: Tensor, bank: MemoryBank, grid: tuple[int, int]) -> tuple[Tensor, MemoryBank]:
        """Gaussians (K, T*n, n), and the bank with its places."""
        w, kernel, n = grid[1], self.kernel, grid[0] * grid[1]
        cell = torch.arange(n, device=scores.device)
        dy, dx = cell[:, None] // w - cell // w, cell[:, None] % w - cell % w  # (n, n)
        far = (dy.abs() > kernel.window // 2) | (dx.abs() > kernel.window // 2)
        step = scores[:, -n:].masked_fill(far, float("-inf")).argmax(dim=2)  # (K, n)
        tracks = [step.gather(1, slot.tensors["track"]) for slot in bank.slots[:-1]]
        centres = [*(step.gather(1, track) if kernel.track_twice else track for track in tracks), step]
        widths = [kernel.width(len(bank) - 1 - i) for i in range(len(bank))]
        distance = (dy.square() + dx.square()).float()
        factors = [(-distance / (2 * s**2)).exp()[centre] for centre, s in zip(centres, widths, strict=True)]
        return torch.cat(factors, dim=1), bank.with_tensor("track", [*tracks, step])


def _gather(table: Tensor, chosen: Tensor) -> Tensor:
    """(K, M, f*f, C) of chosen cells (K, n, S), as (K, n, S*f*f, C)."""
    rows = torch.arange(len(table), device=table.device)[:, None, None]
    return table[rows, chosen].flatten(2, 3)
