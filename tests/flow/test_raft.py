from functools import partial

import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_large, raft_small

from hmhi.flow.estimate import build_estimator
from hmhi.flow.raft import RAFTEstimator


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory):
    """A raft-small of random weights on disk."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random_small.pth"
    torch.save(raft_small(weights=None).state_dict(), path)
    return path


def frames(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.integers(0, 255, (height, width, 3), dtype=np.uint8) for _ in range(2))


def test_padded_and_cropped_back(small_weights):
    estimator = RAFTEstimator("raft-small", weights=small_weights, updates=2)
    for size in ((61, 90), (130, 137)):
        flow = estimator(*frames(*size))
        assert flow.shape == (*size, 2)
        assert flow.dtype == np.float32
        assert np.isfinite(flow).all()
        assert flow.std() > 0


def test_unpadded_sizes_equal_the_bare_network(small_weights):
    network = raft_small(weights=None).eval()
    network.load_state_dict(torch.load(small_weights, weights_only=True))
    pair = frames(128, 136)
    inputs = [torch.from_numpy(f).permute(2, 0, 1)[None].float() / 255 * 2 - 1 for f in pair]
    with torch.no_grad():
        expected = network(*inputs, num_flow_updates=2)[-1][0].permute(1, 2, 0).numpy()
    flow = RAFTEstimator("raft-small", weights=small_weights, updates=2)(*pair)
    np.testing.assert_allclose(flow, expected, atol=1e-4)


@pytest.mark.parametrize("size", [(61, 90), (128, 136)])
def test_a_batch_equals_its_pairs_one_by_one(small_weights, size):
    estimator = RAFTEstimator("raft-small", weights=small_weights, updates=2)
    rng = np.random.default_rng(1)
    frames_a, frames_b = rng.integers(0, 255, (2, 3, *size, 3), dtype=np.uint8)
    together = estimator.batch(frames_a, frames_b)
    assert together.shape == (3, *size, 2)
    alone = np.stack([estimator(*pair) for pair in zip(frames_a, frames_b, strict=True)])
    assert np.abs(alone[0] - alone[1]).max() > 0.1
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_out_of_memory_says_what_to_do(small_weights, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    estimator = RAFTEstimator("raft-small", weights=small_weights)
    monkeypatch.setattr(estimator, "_network", full)
    with pytest.raises(ValueError, match=r"1 pairs of 90 x 61 do not fit .* smaller batch"):
        estimator(*frames(61, 90))


def test_large_network_by_name(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "large.pth"
    torch.save(raft_large(weights=None).state_dict(), path)
    assert isinstance(build_estimator("raft", weights=path), RAFTEstimator)


def test_absent_weights_say_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        build_estimator("raft")
    message = str(caught.value)
    assert "https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth" in message
    assert "SHA-256 begins with ff5fadd5" in message
    assert str(tmp_path) in message
    with pytest.raises(FileNotFoundError, match=r"raft_small_C_T_V2-01064c6d\.pth"):
        build_estimator("raft-small")


def test_a_file_in_torchvisions_cache_is_found(tmp_path, monkeypatch, small_weights):
    cached = tmp_path / "hub" / "checkpoints" / "raft_small_C_T_V2-01064c6d.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(small_weights.read_bytes())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert build_estimator("raft-small").weights == cached


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.pth"):
        build_estimator("raft", weights=path)


def test_weights_of_the_other_network_are_refused(small_weights):
    with pytest.raises(ValueError, match="torchvision's raft network"):
        build_estimator("raft", weights=small_weights)


def test_dis_takes_no_weights(small_weights):
    with pytest.raises(ValueError, match="DIS has no weights"):
        build_estimator("dis", weights=small_weights)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision_is_the_callers(small_weights, precision):
    build = partial(build_estimator, "raft-small", weights=small_weights)
    pair = frames(128, 136)
    full, half = build()(*pair), build(precision=precision)(*pair)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).mean() < 0.1 * np.abs(full).mean()
