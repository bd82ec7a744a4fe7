from pathlib import Path

import make_inputs
import numpy as np
import pytest
import torch

from hmhi.inference.results import to_levels
from hmhi.runtime.frames import to_arrays, to_probability


def test_stretch_equals_the_release():
    """Its writer on the stored cases: bilinear, sigmoid, min-max of each frame, rounded down to 8 bits."""
    with np.load(Path(make_inputs.__file__).parent / "postproc.npz") as stored:
        expected = {name: stored[name] for name in stored.files}
    compared = 0
    for name, logits, size in make_inputs.postproc_cases():
        ours = to_levels(to_probability(torch.from_numpy(logits), size, stretch=True)[0, 0].numpy())
        key = next(key for key in expected if name in key)
        assert np.abs(ours.astype(int) - expected[key].astype(int)).max() <= 1
        assert (ours != expected[key]).mean() < 1e-3
        compared += 1
    assert compared == 4


def test_without_stretch_a_frame_may_have_no_object():
    weak = torch.full((1, 1, 8, 8), -5.0)
    weak[..., 4, 4] = -3.5
    assert to_probability(weak, (8, 8)).max() < 0.05
    assert to_probability(weak, (8, 8), stretch=True).max() == pytest.approx(1.0)


def test_tensors_of_several_sizes_come_back_as_arrays():
    maps = [torch.rand(2, 3), torch.rand(1, 5, 4), torch.rand(1)]
    for array, expected in zip(to_arrays(maps), maps, strict=True):
        np.testing.assert_array_equal(array, expected.numpy())
