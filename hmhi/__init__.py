"""HMHI-Net: unsupervised video object segmentation with hierarchical memory.

Names are loaded on first use, so that neither the list of commands nor the evaluation of masks imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hmhi.version import __version__

if TYPE_CHECKING:
    from hmhi.config import ConfigError, load_config
    from hmhi.errors import UserError
    from hmhi.evaluation.runner import evaluate
    from hmhi.inference.follow import follow
    from hmhi.inference.hub import from_pretrained
    from hmhi.inference.objects import ObjectSegmenter, open_segmenter
    from hmhi.inference.segmenter import VideoSegmenter
    from hmhi.models.build import build_model
    from hmhi.models.weights import CheckpointError, load_model

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ObjectSegmenter",
    "UserError",
    "VideoSegmenter",
    "__version__",
    "build_model",
    "evaluate",
    "follow",
    "from_pretrained",
    "load_config",
    "load_model",
    "open_segmenter",
]

_LAZY = {
    "CheckpointError": "hmhi.models.weights",
    "ConfigError": "hmhi.config",
    "ObjectSegmenter": "hmhi.inference.objects",
    "UserError": "hmhi.errors",
    "VideoSegmenter": "hmhi.inference.segmenter",
    "build_model": "hmhi.models.build",
    "evaluate": "hmhi.evaluation.runner",
    "follow": "hmhi.inference.follow",
    "from_pretrained": "hmhi.inference.hub",
    "load_config": "hmhi.config",
    "load_model": "hmhi.models.weights",
    "open_segmenter": "hmhi.inference.objects",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hmhi' has no attribute {name!r}")
