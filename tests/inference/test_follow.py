"""What is found and what is carried: the rule, with a small untrained HMMN that agrees with nobody for long."""

import numpy as np
import pytest
from small_hmmn import save_small_hmmn

from hmhi.inference.follow import LOST, STEADY, follow
from hmhi.inference.objects import ObjectSegmenter
from hmhi.inference.results import FrameResult

SIZE = (48, 70)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    checkpoint = save_small_hmmn(tmp_path_factory.mktemp("model") / "hmmn.pt")
    return ObjectSegmenter(checkpoint, "cpu", short_side=48)


def box(left):
    mask = np.zeros(SIZE, bool)
    mask[10:34, left : left + 24] = True
    return mask


def found(masks, cuts=()):
    """What a `VideoSegmenter` would say of a video, with these masks; closes as its streams do."""
    still = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    for index, mask in enumerate(masks):
        prob = np.where(mask, 0.9, 0.2).astype(np.float32)
        yield FrameResult(
            index=index, time=None, frame=np.roll(still, index, axis=1), labels=mask.astype(np.uint8), ids=(1,),
            probs=prob[None], flow=None, seconds={"network": 0.0}, scene_cut=index in cuts,
        )  # fmt: skip


def given_at(results):
    return [result.index for result in results if result.given]


def test_what_is_found_is_the_result_until_it_is_steady(segmenter):
    masks = [box(0), box(30), box(2), box(32), *[box(5)] * (STEADY + 2)]
    results = list(follow(found(masks), segmenter))
    handed = 4 + STEADY
    assert given_at(results) == [handed]
    for result, mask in zip(results[: handed + 1], masks, strict=False):
        assert np.array_equal(result.mask, mask)
    session = segmenter.session()
    session.step(results[handed].frame, {1: masks[handed]})
    carried = session.step(results[handed + 1].frame)
    agree = np.count_nonzero(carried.mask & box(5)) >= 0.5 * np.count_nonzero(carried.mask | box(5))
    expected = (carried.probs + np.where(box(5), 0.9, 0.2)) / 2 if agree else carried.probs
    assert np.allclose(results[handed + 1].probs, expected, atol=1e-6)


def test_what_was_lost_is_given_anew_once_what_is_found_is_steady(segmenter):
    wild = [box(46 * (t % 2)) for t in range(LOST + 3)]  # never like the frame before
    results = list(follow(found([*[box(0)] * (STEADY + 1), *wild]), segmenter))
    assert given_at(results) == [STEADY]
    empty = np.zeros(SIZE, bool)
    far = [*[box(0)] * (STEADY + 1), *[empty] * LOST, *[box(46)] * (STEADY + 1)]
    results = list(follow(found(far), segmenter))
    assert given_at(results)[0] == STEADY and given_at(results)[1:] in ([], [len(far) - 1])


def test_a_scene_cut_begins_anew(segmenter):
    results = list(follow(found([box(3)] * 3 * (STEADY + 1), cuts=[STEADY + 2]), segmenter))
    assert given_at(results)[:2] == [STEADY, 2 * STEADY + 2]
    after = results[STEADY + 2]
    assert np.array_equal(after.probs[0], np.where(box(3), 0.9, 0.2).astype(np.float32))


def test_nothing_is_carried_where_nothing_is_found(segmenter):
    results = list(follow(found([np.zeros(SIZE, bool)] * 6), segmenter))
    assert not given_at(results) and not any(result.mask.any() for result in results)


def test_closing_closes_what_finds(segmenter):
    source = found([box(0)] * 9)
    results = follow(source, segmenter)
    next(results)
    results.close()
    assert source.gi_frame is None
