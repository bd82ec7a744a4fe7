import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmhi.data.sampling import sample_clip, sample_gaps, sample_reach, skip_at


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


@pytest.mark.parametrize("sample", [sample_gaps, sample_reach])
@given(
    st.integers(1, 60),
    st.integers(1, 6),
    st.integers(0, 2**32 - 1),
    st.integers(0, 25),
    st.sampled_from([1, 5]),
)
def test_object_clips_are_valid(sample, n_frames, clip_frames, seed, max_skip, step):
    clip = sample(n_frames, clip_frames, np.random.default_rng(seed), max_skip, step)
    assert len(clip) == clip_frames and clip == sorted(clip) and clip[0] >= 0 and clip[-1] < n_frames
    assert len(set(clip)) == min(n_frames, clip_frames)
    if n_frames > clip_frames > 1 and sample is sample_gaps:
        assert max(np.diff(clip)) <= max(max_skip // step, 0) + 1
    if n_frames > clip_frames > 1 and sample is sample_reach:
        assert max(np.diff(clip)) <= max(max_skip // step, 1)
    assert clip == sample(n_frames, clip_frames, np.random.default_rng(seed), max_skip, step)


def test_gaps_by_hand():
    rng = np.random.default_rng(0)
    clips = [sample_gaps(40, 3, rng, 2) for _ in range(4000)]
    gaps = np.diff(clips, axis=1)
    assert set(map(tuple, gaps.tolist())) == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3)}
    assert np.bincount(gaps.ravel())[1:].min() > 2400  # each of the three about equally often
    assert {tuple(np.diff(sample_gaps(40, 3, rng, 4, step=5))) for _ in range(50)} == {(1, 1)}
    assert sample_gaps(4, 3, rng, 25) in ([0, 1, 2], [1, 2, 3])


def test_reach_goes_both_ways_from_any_pick():
    rng = np.random.default_rng(0)
    spans = [np.ptp(sample_reach(100, 3, rng, 5)) for _ in range(500)]
    assert max(spans) == 10 and min(spans) == 2


def test_curriculum():
    stages = [[0.0, 0], [0.5, 10], [0.75, 25]]
    assert [skip_at(stages, progress, 7) for progress in (0, 0.49, 0.5, 0.8, 1)] == [0, 0, 10, 25, 25]
    assert skip_at([], 0.3, 7) == 7
