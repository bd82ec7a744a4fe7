import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmhi.data.sampling import sample_clip


@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_every_clip_is_valid(n_frames, clip_frames, seed, max_gap):
    clip = sample_clip(n_frames, clip_frames, np.random.default_rng(seed), max_gap)
    assert len(clip) == clip_frames
    assert clip == sorted(clip) and clip[0] >= 0 and clip[-1] < n_frames
    assert len(set(clip)) == min(n_frames, clip_frames)
    assert clip == sample_clip(n_frames, clip_frames, np.random.default_rng(seed), max_gap)


@given(st.integers(12, 200), st.integers(0, 2**32 - 1))
def test_neighbours_lie_within_the_window(n_frames, seed):
    clip = sample_clip(n_frames, 5, np.random.default_rng(seed))
    # Forward reach: 7 - 1 frames, plus one for each of the 4 frames already taken out of the list.
    assert max(np.diff(clip)) <= 7 - 1 + 4


def test_short_videos_repeat_their_last_frame():
    assert sample_clip(3, 5, np.random.default_rng(0)) == [0, 1, 2, 2, 2]
    assert sample_clip(1, 3, np.random.default_rng(0)) == [0, 0, 0]
    assert sample_clip(5, 5, np.random.default_rng(0)) == [0, 1, 2, 3, 4]


def test_second_pick_follows_the_rule_by_hand():
    # First pick f: the list without f is cut to positions f-7 ... min(f+7, 29-1)-1.
    rng = np.random.default_rng(1)
    seen: dict[int, set[int]] = {}
    for _ in range(20000):
        pair = sample_clip(30, 2, rng)
        for first, second in (pair, pair[::-1]):
            seen.setdefault(first, set()).add(second)
    possible = {}
    for first in range(30):
        rest = [i for i in range(30) if i != first]
        for second in rest[max(0, first - 7) : min(first + 7, 28)]:
            possible.setdefault(first, set()).add(second)
            possible.setdefault(second, set()).add(first)
    assert seen == possible


def test_first_pick_is_uniform_and_both_directions_occur():
    rng = np.random.default_rng(0)
    starts = np.bincount([sample_clip(10, 1, rng)[0] for _ in range(5000)], minlength=10)
    assert starts.min() > 400


@pytest.mark.parametrize("numbers", [(0, 5), (5, 0)])
def test_nothing_to_draw(numbers):
    with pytest.raises(ValueError, match="cannot draw"):
        sample_clip(*numbers, np.random.default_rng(0))
