import itertools

import numpy as np

from hmhi.inference.scenes import is_cut
from hmhi.media.pictures import read_rgb


def test_another_picture_is_a_cut_and_motion_is_not():
    rng = np.random.default_rng(0)
    field = np.full((90, 160, 3), (60, 140, 50), dtype=np.uint8) + rng.integers(0, 20, (90, 160, 3), np.uint8)
    moved = np.roll(field, 9, axis=1)
    moved[20:50, 30:60] = 250
    street = np.full((90, 160, 3), (120, 110, 130), dtype=np.uint8)
    assert not is_cut(field, field)
    assert not is_cut(field, moved)
    assert is_cut(field, street)


def test_real_sequences(shared_data):
    """No cut between neighbours, one wherever a sequence meets another."""
    folders = sorted((shared_data / "davis16" / "JPEGImages" / "480p").iterdir())
    ends = []
    for folder in folders:
        clip = [read_rgb(path) for path in sorted(folder.iterdir())[:12]]
        assert not any(is_cut(a, b) for a, b in itertools.pairwise(clip)), folder.name
        ends.append((clip[0], clip[-1]))
    for (_, last), (first, _) in itertools.pairwise(ends):
        assert is_cut(last, first)
