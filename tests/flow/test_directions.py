"""One rule for the neighbours of a frame, whoever computes or reads flow."""

from pathlib import Path

import numpy as np
import pytest

from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.compensate import join_directions
from hmhi.flow.directions import complete_maps, flow_picture, flow_start, still_picture


def test_the_last_frame_takes_the_flow_before_it():
    assert [flow_start(number, 4) for number in range(4)] == [0, 1, 2, 2]
    assert [flow_start(number, 4, step=-1) for number in range(4)] == [1, 1, 2, 3]
    assert [flow_start(number, 2) for number in range(2)] == [0, 0]


def test_only_the_last_stored_map_may_be_missing():
    maps = {stem: Path(f"{stem}.png") for stem in "ab"}
    assert complete_maps("abc", maps) == {**maps, "c": maps["b"]}
    assert complete_maps("ab", maps) == maps
    assert complete_maps("abcd", maps) == maps
    assert complete_maps("c", maps) == maps


@pytest.fixture
def both_ways():
    forward = np.zeros((24, 32, 2), np.float32)
    forward[..., 0] = 3  # the camera
    forward[8:16, 8:16] = -2, 4
    backward = -forward
    backward[8:16, 16:24] = 5, 5  # covered in the frame before
    return forward, backward


def test_what_each_frame_shows(both_ways):
    forward, backward = both_ways
    np.testing.assert_array_equal(flow_picture(forward, None, None), flow_to_rgb(forward))
    np.testing.assert_array_equal(flow_picture(forward, backward, None), flow_to_rgb(forward))
    assert flow_picture(None, None, None) is None
    assert flow_picture(None, backward, None) is None
    inner = flow_picture(forward, backward, "median")
    np.testing.assert_array_equal(inner, flow_to_rgb(join_directions(forward, backward, "median")))
    assert (inner[8:16, 16:24] == 255).all()
    np.testing.assert_array_equal(flow_picture(forward, None, "median"), flow_to_rgb(forward))
    last = flow_picture(None, backward, "median")
    np.testing.assert_array_equal(last, flow_to_rgb(join_directions(None, backward, "median")))
    assert flow_picture(None, None, "median") is None


def test_no_motion_is_white():
    still = still_picture(np.zeros((4, 6, 3), np.uint8))
    assert still.shape == (4, 6, 3) and (still == 255).all()
