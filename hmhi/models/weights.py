"""Weights from files: safe reading, backbones, and `load_model`.

Every loader here accounts for every key: what a file lacks or has too much is an error that lists the keys.
Nothing is ever unpickled beyond tensors and plain containers.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hmhi.config import Config, Kind, config_from_dict
from hmhi.models.backbones.base import Backbone, TokenBackbone, Trunk
from hmhi.models.backbones.mit import MixTransformer
from hmhi.models.build import build_model
from hmhi.models.foreign import read_foreign
from hmhi.models.hmhi_net import HMHINet
from hmhi.models.imagenet import package_weights
from hmhi.models.key_maps import (
    CheckpointError,
    few,
    infer_release_config,
    mae_to_stma,
    mit_to_hmhi,
    release_to_hmmn,
    swin_key,
)
from hmhi.models.prompted import PromptedNet
from hmhi.models.release import release_to_hmhi

FORMAT = "hmhi-1"
WRAPPERS = ("model", "network", "state_dict", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")
HMMN_KEY = "Encoder_M.conv1_m.weight"
"""Of the weights that the authors of HMMN released."""
DESCRIPTION = ("format", "config", "environment", "flow", "scores")
"""What a checkpoint says about its weights; JSON strings in the metadata of a .safetensors file."""
HUB_WEIGHTS, HUB_CONFIG = "model.safetensors", "config.json"
"""Files of a folder in the hub's layout: the tensors, and their `DESCRIPTION` as one JSON object."""


def load_model(
    checkpoint: str | Path, device: str | torch.device = "cpu", overrides: Sequence[str] = ()
) -> HMHINet | PromptedNet:
    """Build the model that a checkpoint holds, with its weights, in eval mode.

    Reads this project's checkpoints (their config is inside) and those of the authors' releases: HMHI-Net, whose
    backbone and switches are inferred from the keys, and HMMN, whose weights are under CC BY-NC-SA 4.0.

    Args:
        checkpoint: File written by training (.pt), by the release (.pth), a .safetensors file with the config in
            its metadata, or a folder in the hub's layout.
        device: Where the model goes.
        overrides: Config changes such as ``model.memory_frames=3``; those that need other weights fail.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The file is damaged or unsafe, or its keys do not match the model.
        ConfigError: An override is not valid.
    """
    model, _config = model_from(load_state(checkpoint), Path(checkpoint), device, overrides)
    return model


def checkpoint_kind(path: str | Path) -> Kind:
    """Which network a checkpoint holds; of a file that holds none, hmhi. Nothing is built.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The file is damaged or unsafe.
        ConfigError: Its config is not valid.
    """
    contents = load_state(path)
    if "config" in contents:
        return config_from_dict(contents["config"], source=str(path)).model.kind
    return "hmmn" if HMMN_KEY in strip_prefixes(unwrap(contents)) else "hmhi"


def model_from(
    contents: Mapping[str, Any], path: Path, device: str | torch.device = "cpu", overrides: Sequence[str] = ()
) -> tuple[HMHINet | PromptedNet, Config]:
    """`load_model` from the contents of a file that is read already, and the config that it used.

    For a file of the release the config has the defaults wherever its keys tell nothing.
    """
    if "config" in contents:
        config = config_from_dict(contents["config"], overrides, source=str(path))
        state = strip_prefixes(_model_state(contents, path))
    else:
        release = strip_prefixes(unwrap(contents))
        if HMMN_KEY in release:
            config = config_from_dict({"model": {"kind": "hmmn"}}, overrides, source=str(path))
            state = release_to_hmmn(release)
        elif any(key.startswith("decode_head.") for key in release):
            config = config_from_dict(infer_release_config(release), overrides, source=str(path))
            state = release_to_hmhi(release, config.model.backbone)
        else:
            raise CheckpointError(
                f"{path} holds neither a config nor the parts of an official checkpoint of HMHI-Net or HMMN; "
                f"backbone weights alone go to train.pretrained. Its keys begin with {few(release)}"
            )
    model = build_model(config.model)
    load_exactly(model, state, str(path))
    return model.eval().to(device), config


def load_state(path: str | Path, *, foreign: bool = False) -> dict[str, Any]:
    """Read a weights file without executing anything in it.

    Args:
        path: A torch file (.pt, .pth), a .safetensors file, or a folder with `HUB_WEIGHTS` and `HUB_CONFIG`. For the
            last two the result has the form of this project's checkpoints: ``{"config": ..., "model": tensors}``; a
            .safetensors file without a config gives bare tensors.
        foreign: Read past objects of other packages, such as mmengine's, whose places then hold nothing of use.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The file is empty, cut off, of another kind, or holds more than tensors and plain
            containers.
    """
    path = Path(path)
    if path.is_dir():
        return _load_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint not found: {path}")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(contents, dict) and "format" in contents:  # others may be written without sums
            _check_sums(path)
    except pickle.UnpicklingError:
        if foreign:
            return _load_foreign(path)
        raise CheckpointError(
            f"{path} is not a weights file, or holds Python objects beyond tensors and plain containers; it was "
            f"refused, because loading those can run any code. Ask its author for a file of tensors only"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # bytes that are no checkpoint make torch raise nearly anything
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) cannot be read: it is empty, cut off or damaged "
            f"({type(error).__name__}); copy or download it again"
        ) from None
    if not isinstance(contents, dict):
        raise CheckpointError(
            f"{path} holds a {type(contents).__name__} where a dictionary of tensors is due"
        )
    _check_format(contents, path)
    return contents


def _check_format(contents: Mapping[str, Any], path: Path) -> None:
    """Refuse a file of a version of this project that does not exist yet."""
    found = contents.get("format", FORMAT)
    if "config" in contents and found != FORMAT:
        raise CheckpointError(
            f"{path} has format {found!r}, and this version of hmhi reads {FORMAT!r}; update hmhi, or use a "
            f"checkpoint that this version wrote"
        )


def _load_foreign(path: Path) -> dict[str, Any]:
    try:
        contents = read_foreign(path)
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not a weights file, or a damaged one ({error}); copy or download it again"
        ) from None
    return contents if isinstance(contents, dict) else {}


def _check_sums(path: Path) -> None:
    """Compare the CRC-32 of every record, which torch writes and never reads."""
    with zipfile.ZipFile(path) as file:
        if (damaged := file.testzip()) is not None:
            raise zipfile.BadZipFile(f"checksum of {damaged}")


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors: dict[str, Any] = load_file(path)
        if "config" not in metadata:
            return tensors
        described = {key: json.loads(metadata[key]) for key in DESCRIPTION if key in metadata}
        _check_format(described, path)
        return {**described, "model": tensors}
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not a valid safetensors file: {error}") from None


def _load_folder(folder: Path) -> dict[str, Any]:
    """What `HUB_CONFIG` says of the weights stands above what their own file says."""
    for name in (HUB_WEIGHTS, HUB_CONFIG):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} is a folder without {name}; name a file of weights, or a folder with {HUB_WEIGHTS} and "
                f"{HUB_CONFIG}, as hmhi export weights --to hub writes it"
            )
    try:
        described = json.loads((folder / HUB_CONFIG).read_bytes())
    except (ValueError, RecursionError):
        described = None
    if not isinstance(described, dict) or "config" not in described:
        raise CheckpointError(
            f"{folder / HUB_CONFIG} is damaged, or not the config of a network of this project"
        )
    _check_format(described, folder / HUB_CONFIG)
    loaded = _load_safetensors(folder / HUB_WEIGHTS)
    return {
        **{key: described[key] for key in DESCRIPTION if key in described},
        "model": loaded.get("model", loaded),
    }


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict of which every key and shape must match.

    Raises:
        CheckpointError: Lists what is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    reshaped = [
        f"{key} ({tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model)"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unexpected or reshaped:
        raise CheckpointError(
            f"{source} does not fit the model: {len(missing)} missing [{few(missing)}], {len(unexpected)} "
            f"unexpected [{few(unexpected)}], {len(reshaped)} of another shape [{few(reshaped)}]"
        )
    module.load_state_dict(state)


def unwrap(contents: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict inside a checkpoint that wraps it (``network``, ``state_dict``, ``model`` ...)."""
    for name in WRAPPERS:
        if isinstance(contents.get(name), Mapping):
            return contents[name]
    return contents


def strip_prefixes(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a state dict, without what DDP and torch.compile put before their names."""
    stripped = {}
    for key, value in state.items():
        while key.startswith(PREFIXES):
            key = key.split(".", 1)[1]
        if isinstance(value, Tensor):
            stripped[key] = value
    return stripped


def _model_state(contents: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    if not isinstance(contents.get("model"), Mapping):
        raise CheckpointError(f"{path} has a config but no weights under 'model'")
    return contents["model"]


def load_backbone(backbone: Backbone | Trunk | TokenBackbone, path: str | Path) -> None:
    """Put ImageNet weights into a backbone; flow adapters, which no such file has, keep their initialisation.

    Reads MiT weights in NVIDIA's (``mit_b1.pth``), OpenMMLab's and Hugging Face's names, Swin weights of Microsoft
    (``swin_tiny_patch4_window7_224.pth``) and timm, ResNet weights of torchvision and timm, timm's own for its other
    models, what MAE and ConvMAE learned, and what ``tools/convert_weights.py --backbone`` writes.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The file is unsafe or damaged, or does not fill the backbone completely.
    """
    state = strip_prefixes(unwrap(load_state(path, foreign=True)))
    load_exactly(backbone, backbone_state(state, backbone), str(path))


def backbone_state(
    state: Mapping[str, Tensor], backbone: Backbone | Trunk | TokenBackbone
) -> dict[str, Tensor]:
    """Rename published weights as a backbone has them, and add what no published file has.

    Raises:
        CheckpointError: The file's names are of no known format.
    """
    if isinstance(backbone, TokenBackbone):
        return mae_to_stma(state, backbone.beyond)
    own = backbone.state_dict()
    extra = {key: value for key, value in own.items() if "adapter." in key}
    if isinstance(backbone, Trunk):
        state = {key: value for key, value in state.items() if not key.startswith(backbone.beyond)}
    if own.keys() - extra.keys() <= state.keys():
        return {**extra, **state}
    if isinstance(backbone, MixTransformer):
        return {**extra, **mit_to_hmhi(state)}
    if "layers.0.downsample.reduction.weight" in state:  # timm has it in the stage after, as layers.1
        renamed = {swin_key(key): value for key, value in state.items()}
        return {key: value for key, value in renamed.items() if key is not None}
    # Files from before 2018 do not count the batches that a norm has seen, and nothing reads the count.
    extra |= {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    return {**extra, **(state if isinstance(backbone, Trunk) else timm_to_hmhi(state, backbone))}


def load_backbone_from_package(backbone: Backbone | Trunk | TokenBackbone, name: str) -> None:
    """Put the ImageNet weights of an installed package into a backbone.

    Args:
        backbone: Network of `name`.
        name: ``lite0``, ``lite1`` or ``lite2``.

    Raises:
        CheckpointError: The package is missing or damaged.
    """
    load_exactly(backbone, backbone_state(package_weights(name), backbone), f"the package for {name}")


TIMM_HEADS = re.compile(
    r"(fc|head|head_dist|head_fc|norm_head|classifier|norm|fc_norm|conv_head|bn2|final_conv)\."
)
"""Beginnings of the names that timm gives to what follows a model's last stage."""


def timm_to_hmhi(state: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Rename the tensors of a timm model as `TimmBackbone` has them; its head is left out.

    As a feature extractor, timm writes ``stages_0`` where the whole model has ``stages.0``.
    """
    own = backbone.state_dict()
    renamed = {}
    for key, value in state.items():
        name = f"net.{key}" if f"net.{key}" in own else f"net.{key.replace('.', '_', 1)}"
        if name in own or not TIMM_HEADS.match(key):
            renamed[name] = value
    return renamed
