"""Activations that the backward pass computes anew instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(model: nn.Module, part: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the results and gradients of `part`, which keeps its arguments and results alone.

    Dropout draws the same numbers in both passes.

    Args:
        model: Where the BatchNorm layers are that `part` runs through; the second pass leaves their running
            statistics alone.
        part: Any function of tensors, and of objects that hold some.
    """
    contexts = partial(_passes, model)
    return partial(checkpoint, part, use_reentrant=False, context_fn=contexts)


def _passes(model: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first pass, and what the second."""
    return nullcontext(), _frozen_statistics(model)


@contextmanager
def _frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm layers count the batch in copies of their statistics, which are then thrown away."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    kept = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
