"""Weights from a folder or from the Hugging Face hub. Nothing else in this package downloads anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hmhi.errors import UserError
from hmhi.inference.objects import ObjectSegmenter, open_segmenter
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.models.weights import HUB_CONFIG, HUB_WEIGHTS


def from_pretrained(
    source: str | Path,
    device: str | torch.device = "auto",
    *,
    revision: str | None = None,
    **options: Any,
) -> VideoSegmenter | ObjectSegmenter:
    """The segmenter that published weights ask for.

    Args:
        source: A folder with ``model.safetensors`` and ``config.json``, or any other checkpoint. What does not exist
            here is the id of a model on the hub, ``owner/name``; it is downloaded once and kept in the hub's cache.
        device: Where the network runs.
        revision: Branch, tag or commit on the hub; default: its main branch.
        **options: Further arguments of `VideoSegmenter` or `ObjectSegmenter`.

    Raises:
        UserError: Neither here nor on the hub, the hub cannot be reached, the extra ``hub`` is not installed, or
            `revision` with something local.
        CheckpointError: The weights are damaged or do not fit.
        ConfigError: A setting is not valid.
    """
    if not Path(source).exists():
        return open_segmenter(_download(str(source), revision), device, **options)
    if revision is not None:
        raise UserError(f"{source} lies here and has no revision {revision}; leave revision out")
    return open_segmenter(source, device, **options)


def _download(name: str, revision: str | None) -> Path:
    """Folder of the hub's cache with a model's weights and config."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"{name} is not here; to look for it on the hub, install the extra: pip install 'hmhi[hub]'"
        ) from None
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[HUB_WEIGHTS, HUB_CONFIG]))
    except Exception as error:  # whatever the hub, its client or the network says
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise UserError(
            f"{name} is not here, and not to be had from the hub ({type(error).__name__}: {reason})"
        ) from None
