"""HMHI-Net: unsupervised video object segmentation with hierarchical memory.

Names are loaded on first use, so that reading a config or evaluating masks never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hmhi.config import ConfigError, load_config
from hmhi.version import __version__

if TYPE_CHECKING:
    from hmhi.evaluation.runner import evaluate
    from hmhi.inference.segmenter import VideoSegmenter
    from hmhi.models.build import build_model
    from hmhi.models.weights import CheckpointError, load_model

__all__ = [
    "CheckpointError",
    "ConfigError",
    "VideoSegmenter",
    "__version__",
    "build_model",
    "evaluate",
    "load_config",
    "load_model",
]

_LAZY = {
    "VideoSegmenter": "hmhi.inference.segmenter",
    "build_model": "hmhi.models.build",
    "evaluate": "hmhi.evaluation.runner",
    "load_model": "hmhi.models.weights",
    "CheckpointError": "hmhi.models.weights",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hmhi' has no attribute {name!r}")
