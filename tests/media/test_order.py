import random
from pathlib import Path

from hmhi.media.order import in_order


def test_numbers_count_by_value():
    stems = ["1", "9", "009b", "10", "a", "a2", "a2_gt", "a10", "b1_2", "b1_10", "bear_1", "bear_12"]
    for seed in range(20):
        assert in_order(random.Random(seed).sample(stems, len(stems))) == stems
    assert in_order(Path(f"x/{stem}.png") for stem in reversed(stems)) == [Path(f"x/{s}.png") for s in stems]


def test_stems_that_differ_in_zeros_only_keep_one_order():
    assert in_order(["7", "007", "07"]) == in_order(["07", "7", "007"]) == ["007", "07", "7"]


def test_numbers_of_any_length():
    assert in_order(["1" * 9000, "2" * 8999]) == ["2" * 8999, "1" * 9000]
