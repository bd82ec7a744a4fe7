import numpy as np
import pytest

from hmhi.evaluation.summary import mean_recall_decay


def test_by_hand():
    values = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    # borders of the quarters, 1-based: round(1, 2.75, 4.5, 6.25, 8) = 1, 3, 5, 6, 8; 4.5 goes up
    mean, recall, decay = mean_recall_decay(values)
    assert mean == pytest.approx(0.55)
    assert recall == 4 / 8
    assert decay == pytest.approx(np.mean(values[0:3]) - np.mean(values[5:8]))


def test_long_sequences_keep_their_last_quarter():
    """Indices kept in 8 bits, as in the DAVIS toolkit, would point at the wrong frames beyond frame 256."""
    values = np.r_[np.ones(300), np.zeros(100)]
    assert mean_recall_decay(values)[2] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("values", [[0.3], [0.3, 0.7], [0.1, 0.2, 0.3]])
def test_short_sequences(values):
    mean, recall, decay = mean_recall_decay(values)
    assert mean == pytest.approx(np.mean(values))
    assert 0 <= recall <= 1
    assert np.isfinite(decay)
