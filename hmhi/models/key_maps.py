"""Key maps: the names that published weights use, and what they are called here.

Sources of the names: NVIDIA's SegFormer release (``patch_embed1``, ``block1.0`` ...), OpenMMLab's converted files
(mmsegmentation, tools/model_converters/mit2mmseg.py), Hugging Face transformers' SegformerModel, Microsoft's
Swin release, MAE, ConvMAE, HMMN's checkpoint, and those of HMHI-Net's authors (the rest of whose names
`hmhi.models.release` has).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from hmhi.errors import UserError
from hmhi.layers.normalize import IMAGENET_MEAN, IMAGENET_STD
from hmhi.layers.position import MAE_GRID, mae_position
from hmhi.models.backbones.mit import DEPTHS


class CheckpointError(UserError):
    """A weights file cannot be read safely, or does not fit the model."""


RELEASE_STAGES = {"0": 2, "1": 4}  # Mem0 is the shallow bank, Mem1 the high one
RELEASE_DEAD = re.compile(r"Mem[01]\.cross_attention\.")  # copies that the release stores but never uses


def infer_release_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read backbone and switches of an official checkpoint off its keys.

    Args:
        state: The release's names, without prefixes.

    Returns:
        Nested config values, as for `hmhi.config.config_from_dict`.

    Raises:
        CheckpointError: The backbone is none that the release knows.
    """

    def has(part: str) -> bool:
        return any(key.startswith(part) for key in state)

    if has("backbone.layers.0.blocks.0.attn.relative_position_bias_table"):
        backbone = "swin_tiny"
    elif has("backbone.patch_embed1."):
        width = len(state["backbone.patch_embed1.proj.bias"])
        depths = [_depth(state, rf"backbone\.block{i}\.(\d+)\.") for i in (1, 2, 3, 4)]
        backbone = _mit_name(width, depths)
    else:
        raise CheckpointError(f"no known backbone in the checkpoint; its keys begin with {few(state)}")
    return {
        "model": {
            "backbone": backbone,
            "flow_adapters": has("backbone.block1.0.adapter."),
            "memory_stages": [stage for i, stage in RELEASE_STAGES.items() if has(f"Mem{i}.")],
            "high_to_shallow": "sgim" if has("obj_to_pixel.") else "none",
            "shallow_to_high": "plam" if has("pixel_to_obj_cbam.") else "none",
            "decoder_channels": len(state["decode_head.predictor.conv.weight"][0]),
        }
    }


HMMN_RULES = [
    (r"Encoder_M\.conv1_m\.", "memory_encoder.mask."),
    (r"Encoder_M\.conv1_o\.", "memory_encoder.others."),
    (r"Encoder_M\.res([234])\.", "memory_encoder.trunk.layer{layer}."),
    (r"Encoder_M\.(conv1|bn1)\.", r"memory_encoder.trunk.\1."),
    (r"Encoder_Q\.res([234])\.", "query_encoder.layer{layer}."),
    (r"Encoder_Q\.(conv1|bn1)\.", r"query_encoder.\1."),
    (r"KV_M_r([234])\.Key\.", r"memory_keys.\1."),
    (r"KV_M_r([234])\.Value\.", r"memory_values.\1."),
    (r"KV_Q_r([234])\.Key\.", r"query_keys.\1."),
    (r"KV_Q_r(4)\.Value\.", r"query_values.\1."),
    (r"Decoder\.convFM\.", "decoder.join."),
    (r"Decoder\.ResMM\.", "decoder.refine."),
    (r"Decoder\.RF([23])\.convFS\.", r"decoder.levels.\1.skip."),
    (r"Decoder\.RF([23])\.convMemory\.", r"decoder.levels.\1.memory."),
    (r"Decoder\.RF([23])\.ResFS\.", r"decoder.levels.\1.refine_skip."),
    (r"Decoder\.RF([23])\.ResMM\.", r"decoder.levels.\1.refine."),
    (r"Decoder\.pred2\.", "decoder.predict."),
]
HMMN_CONSTANTS = {
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
}  # stored in both encoders of the release, not here


def release_to_hmmn(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of HMMN's official checkpoint to ours.

    Raises:
        CheckpointError: Lists keys that no rule knows; or the file normalises images in another way.
    """
    renamed, unknown = {}, []
    for key, value in state.items():
        constant = HMMN_CONSTANTS.get(key.rpartition(".")[2]) if key.startswith("Encoder_") else None
        if constant is not None:
            if not torch.allclose(value.flatten().float(), torch.tensor(constant)):
                raise CheckpointError(
                    f"{key} of the official checkpoint is not ImageNet's: {value.flatten().tolist()}"
                )
            continue
        name = _rename(key, HMMN_RULES, layer=lambda group: int(group) - 1)
        if name is None:
            unknown.append(key)
        else:
            renamed[name] = value
    if unknown:
        raise CheckpointError(f"official checkpoint of HMMN has {len(unknown)} unknown keys: {few(unknown)}")
    return renamed


def _rename(key: str, rules: list[tuple[str, str]], **meanings: Callable[[str], int]) -> str | None:
    """Replace the start of a key by the first rule that matches, or return None."""
    for pattern, target in rules:
        match = re.match(pattern, key)
        if match:
            name = match.expand(target)
            for placeholder, meaning in meanings.items():
                if f"{{{placeholder}}}" in name:
                    name = name.replace(f"{{{placeholder}}}", str(meaning(match[1])))
            return name + key[match.end() :]
    return None


def _mit_name(width: int, depths: list[int]) -> str:
    """Name of the MiT with this first-stage width and these depths; b0 and b1 differ in width only."""
    for name, known in DEPTHS.items():
        if tuple(depths) == known and (width == 32) == (name == "mit_b0"):
            return name
    raise CheckpointError(f"no MiT has stage depths {depths} at width {width}")


NVIDIA_RULES = [
    (r"patch_embed(\d)\.", "stages.{i}.embed."),
    (r"block(\d)\.", "stages.{i}.blocks."),
    (r"norm(\d)\.", "stages.{i}.norm."),
]
NVIDIA_INNER = [
    (".dwconv.dwconv.", ".dwconv."),
    (".adapter_layer_norm_before.", ".norm."),
    (".down_proj.", ".down."),
    (".up_proj.", ".up."),
]


def nvidia_key(key: str) -> str | None:
    """Our name of a MiT tensor under NVIDIA's name (adapters under the release's), or None for a head's."""
    name = _rename(key, NVIDIA_RULES, i=lambda group: int(group) - 1)
    if name is not None:
        for inner, replacement in NVIDIA_INNER:
            name = name.replace(inner, replacement)
    return name


def swin_key(key: str) -> str | None:
    """Our (timm's) name of a Swin tensor under Microsoft's name, or None for a head's or a derived buffer."""
    if key.endswith(("relative_position_index", "attn_mask")):
        return None
    match = re.match(r"layers\.(\d)\.(downsample\.)?", key)
    if match:
        # timm merges patches at the start of the next stage, Microsoft at the end of this one
        stage = int(match[1]) + (1 if match[2] else 0)
        return f"net.layers_{stage}.{match[2] or ''}{key[match.end() :]}"
    return f"net.{key}" if key.startswith("patch_embed.") else None


def mit_to_hmhi(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename MiT weights in NVIDIA's, OpenMMLab's or Hugging Face's format; heads are left out.

    Args:
        state: Tensors without wrappers or DDP prefixes; a ``backbone.`` or ``segformer.`` prefix is allowed.

    Raises:
        CheckpointError: The format is none of the three.
    """
    for prefix in ("backbone.", "segformer."):
        if any(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}
    if "layers.0.0.projection.weight" in state:
        state = _openmmlab_to_nvidia(state)
    elif "encoder.patch_embeddings.0.proj.weight" in state:
        state = _huggingface_to_nvidia(state)
    elif "patch_embed1.proj.weight" not in state:
        raise CheckpointError(
            f"no MiT weights in NVIDIA's, OpenMMLab's or Hugging Face's names: {few(state)}"
        )
    renamed = {nvidia_key(key): tensor for key, tensor in state.items()}
    return {key: tensor for key, tensor in renamed.items() if key is not None}


def mae_to_stma(state: Mapping[str, Tensor], beyond: tuple[str, ...]) -> dict[str, Tensor]:
    """The encoder's share of the weights that MAE or ConvMAE learned; the table of positions is made, not stored.

    Args:
        state: The release's names.
        beyond: Beginnings of the names of what is left out.

    Raises:
        CheckpointError: The positions are not MAE's table, but learned.
    """
    stored = state.get("pos_embed")
    if stored is not None:
        table = mae_position(MAE_GRID, MAE_GRID, stored.shape[-1], stored.device)
        cells = stored[:, -table.shape[1] :].float()  # MAE has its class token before them
        if cells.shape != table.shape or not torch.allclose(cells, table, atol=1e-4):
            raise CheckpointError(
                f"pos_embed of shape {tuple(stored.shape)} is not the sine table of MAE for 14 x 14 patches; use a "
                f"file of pre-training, not of fine-tuning"
            )
    return {key: value for key, value in state.items() if key != "pos_embed" and not key.startswith(beyond)}


OPENMMLAB_RULES = [
    (r"layers\.(\d)\.0\.projection\.", "patch_embed{i}.proj."),
    (r"layers\.(\d)\.0\.norm\.", "patch_embed{i}.norm."),
    (r"layers\.(\d)\.1\.(\d+)\.attn\.attn\.out_proj\.", r"block{i}.\2.attn.proj."),
    (r"layers\.(\d)\.1\.(\d+)\.ffn\.layers\.0\.", r"block{i}.\2.mlp.fc1."),
    (r"layers\.(\d)\.1\.(\d+)\.ffn\.layers\.1\.", r"block{i}.\2.mlp.dwconv.dwconv."),
    (r"layers\.(\d)\.1\.(\d+)\.ffn\.layers\.4\.", r"block{i}.\2.mlp.fc2."),
    (r"layers\.(\d)\.1\.(\d+)\.", r"block{i}.\2."),
    (r"layers\.(\d)\.2\.", "norm{i}."),
]
HUGGINGFACE_RULES = [
    (r"encoder\.patch_embeddings\.(\d)\.proj\.", "patch_embed{i}.proj."),
    (r"encoder\.patch_embeddings\.(\d)\.layer_norm\.", "patch_embed{i}.norm."),
    (r"encoder\.block\.(\d)\.(\d+)\.layer_norm_([12])\.", r"block{i}.\2.norm\3."),
    (r"encoder\.block\.(\d)\.(\d+)\.attention\.self\.query\.", r"block{i}.\2.attn.q."),
    (r"encoder\.block\.(\d)\.(\d+)\.attention\.self\.sr\.", r"block{i}.\2.attn.sr."),
    (r"encoder\.block\.(\d)\.(\d+)\.attention\.self\.layer_norm\.", r"block{i}.\2.attn.norm."),
    (r"encoder\.block\.(\d)\.(\d+)\.attention\.output\.dense\.", r"block{i}.\2.attn.proj."),
    (r"encoder\.block\.(\d)\.(\d+)\.mlp\.dense([12])\.", r"block{i}.\2.mlp.fc\3."),
    (r"encoder\.block\.(\d)\.(\d+)\.mlp\.dwconv\.", r"block{i}.\2.mlp.dwconv."),
    (r"encoder\.layer_norm\.(\d)\.", "norm{i}."),
]


def _to_nvidia(key: str, rules: list[tuple[str, str]]) -> str:
    return _rename(key, rules, i=lambda group: int(group) + 1) or key


def _openmmlab_to_nvidia(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split the joint query-key-value projection; turn 1x1 convolutions into linear layers."""
    out = {}
    for key, tensor in state.items():
        name = _to_nvidia(key, OPENMMLAB_RULES)
        if ".attn.attn.in_proj_" in name:
            base, kind = name.split("attn.attn.in_proj_")
            channels = len(tensor) // 3
            out[f"{base}attn.q.{kind}"] = tensor[:channels]
            out[f"{base}attn.kv.{kind}"] = tensor[channels:]
        elif re.search(r"\.mlp\.fc[12]\.weight$", name):
            out[name] = tensor.flatten(1)
        else:
            out[name] = tensor
    return out


def _huggingface_to_nvidia(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join keys and values."""
    out = {}
    for key, tensor in state.items():
        if ".attention.self.value." in key:
            continue
        if ".attention.self.key." in key:
            value = state[key.replace(".self.key.", ".self.value.")]
            name = _to_nvidia(key.replace(".self.key.", ".self.query."), HUGGINGFACE_RULES)
            out[name.replace(".attn.q.", ".attn.kv.")] = torch.cat((tensor, value))
        else:
            out[_to_nvidia(key, HUGGINGFACE_RULES)] = tensor
    return out


def _depth(state: Iterable[str], pattern: str) -> int:
    found = [int(match[1]) for match in (re.match(pattern, key) for key in state) if match]
    return max(found, default=-1) + 1


def few(items: Iterable[str], limit: int = 12) -> str:
    """The first items of a list, for an error message."""
    items = list(items)
    return ", ".join(items[:limit]) + (f", and {len(items) - limit} more" if len(items) > limit else "")
