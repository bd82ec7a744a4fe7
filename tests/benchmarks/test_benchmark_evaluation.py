import argparse

from benchmarks.evaluation import drawn_pairs, format_table, run
from benchmarks.reference_metrics import e_measure


def test_drawn_pairs_are_compared_and_agree():
    options = argparse.Namespace(gt=None, pred=None, maps=None, sequences=None, frames=1, jobs=None)
    comparisons, trees = run(options)
    assert trees == []
    assert [row.measure for row in comparisons[:2]] == ["J and F", "F and E curves"]
    for row in comparisons:
        assert row.largest_difference < 1e-9
    assert comparisons[0].speedup > 5
    assert comparisons[1].speedup > 10
    assert len(format_table(comparisons, trees).splitlines()) == 1 + len(comparisons)


def test_drawn_pairs_are_worth_comparing():
    (prob, truth), (other, _) = drawn_pairs(2)
    assert 0.02 < truth.mean() < 0.5
    assert len(set(prob.reshape(-1).tolist())) > 200
    assert (prob != other).any()
    assert e_measure(truth, truth) > 1
