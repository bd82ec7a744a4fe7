"""Back to the form of the authors' checkpoints: the inverse of `hmhi.models.key_maps.release_to_hmhi`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from hmhi.config import ModelConfig
from hmhi.models.backbones.mit import DEPTHS
from hmhi.models.key_maps import RELEASE_STAGES, CheckpointError

BANKS = {stage: bank for bank, stage in RELEASE_STAGES.items()}
"""Encoder stage to the number in ``Mem0`` or ``Mem1``."""
WINDOW = 7  # of Swin-T

# (our name, the release's). {level} and {bank} stand for what the first group means there.
PARTS = [
    (r"decoder\.laterals\.(\d)\.0\.", "decode_head.conv{level}.conv."),
    (r"decoder\.blends\.(\d)\.0\.", "decode_head.blend{level}.conv."),
    (r"decoder\.attentions\.(\d)\.", "decode_head.cbam{level}."),
    (r"decoder\.predictor\.", "decode_head.predictor.conv."),
    (r"memory_encoders\.(\d)\.mask\.", "Mem{bank}.memory_encoder.mask_downsampler.encoder."),
    (r"memory_encoders\.(\d)\.feature\.", "Mem{bank}.memory_encoder.pix_feat_proj."),
    (
        r"memory_encoders\.(\d)\.fuse\.(\d)\.fc([12])\.",
        r"Mem{bank}.memory_encoder.fuser.layers.\2.pwconv\3.",
    ),
    (r"memory_encoders\.(\d)\.fuse\.", "Mem{bank}.memory_encoder.fuser.layers."),
    (r"readouts\.(\d)\.", "Mem{bank}.pixel_transformer."),
    (r"high_to_shallow\.project\.0\.", "obj_reduce.0."),
    (r"high_to_shallow\.integrate\.", "obj_to_pixel."),
    (r"shallow_to_high\.align\.(\d)\.0\.", r"pixel_down_sample.\1.conv."),
    (r"shallow_to_high\.attention\.", "pixel_to_obj_cbam."),
    (r"shallow_to_high\.reduce\.0\.", "p2o_down_linear.conv."),
]
READOUT = [
    (r"^self_attention\.", "layers.0.self_attn."),
    (r"^memory_attention\.", "layers.0.cross_attn_image."),
    (r"^ffn\.0\.", "layers.0.linear1."),
    (r"^ffn\.3\.", "layers.0.linear2."),
    (r"^norm([123])\.", r"layers.0.norm\1."),
]
CBAM = [
    (r"^conv\.", "conv1.conv."),
    (r"^channel\.0\.0\.", "conv2.0.conv."),
    (r"^channel\.1\.", "conv2.1.conv."),
    (r"^spatial\.0\.0\.", "conv3.0.conv."),
    (r"^spatial\.1\.", "conv3.1.conv."),
]
INSIDE = {"readouts": READOUT, "high_to_shallow.integrate": READOUT, "decoder.attentions": CBAM,
          "shallow_to_high.attention": CBAM}  # fmt: skip
MIT = [
    (r"\.dwconv\.", ".dwconv.dwconv."),
    (r"adapter\.norm\.", "adapter.adapter_layer_norm_before."),
    (r"adapter\.down\.", "adapter.down_proj."),
    (r"adapter\.up\.", "adapter.up_proj."),
]
MIT_PARTS = {"embed": "patch_embed", "blocks": "block", "norm": "norm"}


def hmhi_to_release(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Rename a model's tensors as the authors' code has them, its ``module.`` prefix not included.

    What their code stores and never uses is made: the copy of each memory's cross-attention, with the values of the
    one in use, and Swin's table of window offsets.

    Args:
        state: Of an `HMHINet`.
        config: What it was built from.

    Raises:
        CheckpointError: The authors' code of HMHI-Net has no such network.
    """
    _check(config)
    swin = config.backbone == "swin_tiny"
    out = {}
    for key, value in state.items():
        if key.startswith("encoder.backbone."):
            rest = key.removeprefix("encoder.backbone.")
            name = f"backbone.{_swin_name(rest) if swin else _mit_name(rest)}"
        else:
            name = _name(key)
        out[name] = value
        if ".layers.0.cross_attn_image." in name and name.startswith("Mem"):
            out[name.replace("pixel_transformer.layers.0.cross_attn_image", "cross_attention")] = value
        if name.endswith("relative_position_bias_table"):
            out[name.replace("bias_table", "index")] = _window_offsets(WINDOW)
    return out


def _check(config: ModelConfig) -> None:
    wrong = [
        f"model.{name}={getattr(config, name)}"
        for name, known in (
            ("kind", {"hmhi"}),
            ("backbone", {*DEPTHS, "swin_tiny"}),
            ("inputs", {"image+flow"}),
            ("high_to_shallow", {"sgim", "none"}),
            ("shallow_to_high", {"plam", "none"}),
        )
        if getattr(config, name) not in known
    ]
    if not set(config.memory_stages) <= set(BANKS):
        wrong.append(f"model.memory_stages={config.memory_stages}")
    if wrong:
        raise CheckpointError(f"the code of HMHI-Net's authors has no network with {', '.join(wrong)}")


def _name(key: str) -> str:
    for pattern, target in PARTS:
        match = re.match(pattern, key)
        if match is None:
            continue
        name = match.expand(target)
        if "{level}" in name:
            name = name.replace("{level}", str(4 - int(match[1])))
        if "{bank}" in name:
            name = name.replace("{bank}", BANKS[int(match[1])])
        inside = next((rules for part, rules in INSIDE.items() if key.startswith(part)), [])
        rest = key[match.end() :]
        for inner, replacement in inside:
            rest, found = re.subn(inner, replacement, rest)
            if found:
                break
        return name + rest
    raise CheckpointError(f"{key} is no part of HMHI-Net")


def _mit_name(key: str) -> str:
    match = re.match(r"stages\.(\d)\.(embed|blocks|norm)\.", key)
    assert match is not None, key
    rest = key[match.end() :]
    for inner, replacement in MIT:
        rest = re.sub(inner, replacement, rest)
    return f"{MIT_PARTS[match[2]]}{int(match[1]) + 1}.{rest}"


def _swin_name(key: str) -> str:
    key = re.sub(r"^net\.layers_(\d)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample.", key)
    return re.sub(r"^net\.(layers_)?", lambda m: "layers." if m[1] else "", key)


def _window_offsets(side: int) -> Tensor:
    """(side^2, side^2) int64: the row of the bias table for each pair of cells of a window."""
    cells = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    offset = cells[:, None] - cells[None, :] + side - 1  # (side^2, side^2, 2), rows and columns from 0
    return offset[..., 0] * (2 * side - 1) + offset[..., 1]
