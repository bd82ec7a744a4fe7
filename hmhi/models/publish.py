"""Checkpoints as they are published: one .safetensors file, or a folder in the layout of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save

from hmhi.config import Config, config_from_dict
from hmhi.models.base import NAMES
from hmhi.models.key_maps import CheckpointError, few
from hmhi.models.weights import DESCRIPTION, HUB_CONFIG, HUB_WEIGHTS, strip_prefixes


def to_safetensors(contents: Mapping[str, Any], dtype: torch.dtype = torch.float16) -> bytes:
    """A checkpoint's weights as a .safetensors file for release, which `load_state` reads back.

    Of absolute paths in its config and its record of the environment only the last part is kept.

    Args:
        contents: Of a checkpoint that training wrote: ``model`` and its `DESCRIPTION`.
        dtype: Of all floating-point tensors.

    Raises:
        CheckpointError: There is no config inside, or a weight is too large for the dtype.
    """
    if "config" not in contents or "model" not in contents:
        raise CheckpointError("only a checkpoint with a config and a model can be exported")
    tensors = {
        key: (value.to(dtype) if value.is_floating_point() else value).contiguous()
        for key, value in strip_prefixes(contents["model"]).items()
    }
    broken = [key for key, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"not finite as {dtype}: {few(broken)}")
    return save(tensors, {key: json.dumps(value) for key, value in _described(contents).items()})


def to_hub(
    contents: Mapping[str, Any], dtype: torch.dtype = torch.float16, license_name: str | None = None
) -> dict[str, bytes]:
    """A checkpoint's weights as the files of a folder for the hub, which `load_state` reads back.

    Args:
        contents: As for `to_safetensors`.
        dtype: Of all floating-point tensors.
        license_name: Of the weights, by the hub's short name such as ``apache-2.0``.

    Returns:
        Content of each file: the weights, their description, and the model card README.md.

    Raises:
        CheckpointError: As `to_safetensors`.
        ConfigError: The config inside is not valid.
    """
    weights = to_safetensors(contents, dtype)
    described = _described(contents)
    config = config_from_dict(described["config"], source="the checkpoint")
    card = _card(contents, config, hashlib.sha256(weights).hexdigest(), len(weights), license_name)
    return {
        HUB_WEIGHTS: weights,
        HUB_CONFIG: (json.dumps(described, indent=2) + "\n").encode(),
        "README.md": card.encode(),
    }


_CARD = """\
---
{license}library_name: hmhi
pipeline_tag: image-segmentation
tags: [video-object-segmentation]
---
# {name}

This network {does}.

| | |
| --- | --- |
{rows}

```python
import hmhi  # pip install 'hmhi[hub]'

segmenter = hmhi.from_pretrained("OWNER/NAME")  # or a folder with these files
for result in segmenter.stream({call}):
    print(result.index, result.ids, result.labels.shape)
```
"""


def _card(
    contents: Mapping[str, Any], config: Config, digest: str, size: int, license_name: str | None
) -> str:
    """The model card: what the checkpoint itself says, and nothing else."""
    model, prompted = config.model, config.model.kind != "hmhi"
    encoder = model.hmmn.trunk if model.kind == "hmmn" else model.backbone
    count = sum(value.numel() for value in strip_prefixes(contents["model"]).values())
    height, width = config.data.image_size
    rows = {
        "network": f"{NAMES[model.kind]}, {encoder}, {count / 1e6:.1f} M parameters and buffers",
        "weights": f"{HUB_WEIGHTS}, {size / 1e6:.1f} MB, SHA-256 {digest}",
        "learned from": f"{', '.join(config.data.train)}, at {height} x {width}",
        **{f"scores on {data}": _scores(scores) for data, scores in contents.get("scores", {}).items()},
    }
    return _CARD.format(
        license=f"license: {license_name}\n" if license_name else "",
        name=NAMES[model.kind],
        does="follows objects given by masks"
        if prompted
        else "finds the salient object of a video by itself",
        rows="\n".join(f"| {key} | {value} |" for key, value in rows.items()),
        call='"walk.mp4", masks="first.png"' if prompted else '"walk.mp4"',
    )


def _scores(scores: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value:.3f}" for key, value in scores.items())


def _described(contents: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _without_folders(contents[key]) for key in DESCRIPTION if key in contents}


def _without_folders(value: Any) -> Any:
    """Nested dicts, lists and texts, with absolute paths cut to the names of their files."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return re.sub(r"(?<![^\s=])/\S*/", "", value) if isinstance(value, str) else value
