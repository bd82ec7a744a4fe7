"""The checkpoints of HMHI-Net's authors: their names to ours and back, by one table."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from hmhi.config import ModelConfig
from hmhi.models.backbones.mit import DEPTHS
from hmhi.models.key_maps import (
    RELEASE_DEAD,
    RELEASE_STAGES,
    CheckpointError,
    few,
    nvidia_key,
    swin_key,
)

WINDOW = 7  # of Swin-T

READOUT = (
    ("layers.0.self_attn.", "self_attention."),
    ("layers.0.cross_attn_image.", "memory_attention."),
    ("layers.0.linear1.", "ffn.0."),
    ("layers.0.linear2.", "ffn.3."),
    ("layers.0.norm{number}.", "norm{number}."),
)
CBAM = (
    ("conv1.conv.", "conv."),
    ("conv2.0.conv.", "channel.0.0."),
    ("conv2.1.conv.", "channel.1."),
    ("conv3.0.conv.", "spatial.0.0."),
    ("conv3.1.conv.", "spatial.1."),
)
# Beginning of a name there, beginning of it here, and the names inside such a part.
PARTS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("decode_head.conv{level}.conv.", "decoder.laterals.{level}.0.", ()),
    ("decode_head.blend{level}.conv.", "decoder.blends.{level}.0.", ()),
    ("decode_head.cbam{level}.", "decoder.attentions.{level}.", CBAM),
    ("decode_head.predictor.conv.", "decoder.predictor.", ()),
    ("Mem{bank}.memory_encoder.mask_downsampler.encoder.", "memory_encoders.{bank}.mask.", ()),
    ("Mem{bank}.memory_encoder.pix_feat_proj.", "memory_encoders.{bank}.feature.", ()),
    (
        "Mem{bank}.memory_encoder.fuser.layers.{block}.pwconv{number}.",
        "memory_encoders.{bank}.fuse.{block}.fc{number}.",
        (),
    ),
    ("Mem{bank}.memory_encoder.fuser.layers.", "memory_encoders.{bank}.fuse.", ()),
    ("Mem{bank}.pixel_transformer.", "readouts.{bank}.", READOUT),
    ("obj_reduce.0.", "high_to_shallow.project.0.", ()),
    ("obj_to_pixel.", "high_to_shallow.integrate.", READOUT),
    ("pixel_down_sample.{block}.conv.", "shallow_to_high.align.{block}.0.", ()),
    ("pixel_to_obj_cbam.", "shallow_to_high.attention.", CBAM),
    ("p2o_down_linear.conv.", "shallow_to_high.reduce.0.", ()),
)
# Placeholder to (number there, number here); what is not listed is the same.
NUMBERS = {
    "level": [("1", "3"), ("2", "2"), ("3", "1"), ("4", "0")],
    "bank": [(bank, str(stage)) for bank, stage in RELEASE_STAGES.items()],
}
MIT = [
    (r"\.dwconv\.", ".dwconv.dwconv."),
    (r"adapter\.norm\.", "adapter.adapter_layer_norm_before."),
    (r"adapter\.down\.", "adapter.down_proj."),
    (r"adapter\.up\.", "adapter.up_proj."),
]
MIT_PARTS = {"embed": "patch_embed", "blocks": "block", "norm": "norm"}


def release_to_hmhi(state: Mapping[str, Tensor], backbone: str) -> dict[str, Tensor]:
    """Rename an official checkpoint's keys to ours; its dead attention copies are left out.

    Raises:
        CheckpointError: Lists keys that no rule knows.
    """
    renamed, unknown = {}, []
    for key, value in state.items():
        if RELEASE_DEAD.match(key):
            continue
        if key.startswith("backbone."):
            rest = key.removeprefix("backbone.")
            name = swin_key(rest) if backbone == "swin_tiny" else nvidia_key(rest)
            if name is not None:
                renamed[f"encoder.backbone.{name}"] = value
            continue
        name = _translate(key, here=False)
        if name is None:
            unknown.append(key)
        else:
            renamed[name] = value
    if unknown:
        raise CheckpointError(f"official checkpoint has {len(unknown)} unknown keys: {few(unknown)}")
    return renamed


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
            translated = _translate(key, here=True)
            assert translated is not None, key
            name = translated
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
    if not set(config.memory_stages) <= set(RELEASE_STAGES.values()):
        wrong.append(f"model.memory_stages={config.memory_stages}")
    if wrong:
        raise CheckpointError(f"the code of HMHI-Net's authors has no network with {', '.join(wrong)}")


def _translate(key: str, *, here: bool) -> str | None:
    """The other name of a key of ours (`here`) or of theirs; None where no part begins like it."""
    for theirs, ours, inner in PARTS:
        source, target = (ours, theirs) if here else (theirs, ours)
        name = _replace(key, source, target, here=here)
        if name is None:
            continue
        begin, rest = name
        for inner_theirs, inner_ours in inner:
            source, target = (inner_ours, inner_theirs) if here else (inner_theirs, inner_ours)
            inside = _replace(rest, source, target, here=here)
            if inside is not None:
                return begin + "".join(inside)
        return begin + rest
    return None


def _replace(key: str, source: str, target: str, *, here: bool) -> tuple[str, str] | None:
    """The filled target and the rest of a key that begins like the source, or None."""
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d)", re.escape(source))
    match = re.match(pattern, key)
    if match is None:
        return None
    numbers = {}
    for name, value in match.groupdict().items():
        pairs = NUMBERS.get(name, [(value, value)])
        known = {b: a for a, b in pairs} if here else dict(pairs)
        if value not in known:
            return None
        numbers[name] = known[value]
    return target.format(**numbers), key[match.end() :]


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
