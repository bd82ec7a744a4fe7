"""A thousand hostile command lines drawn from seeds; `python -m pytest -m slow tests/faults/test_long_table.py`."""

from pathlib import Path

import pytest
from long_table import draw
from sandbox import Warm, complaints

CASES, BATCH = 1000, 25


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, CASES, BATCH))
def test_a_thousand_lines(first: int, warm: Warm, tmp_path: Path) -> None:
    wrong = {
        (seed, " ".join(draw(seed).words)): found
        for seed in range(first, first + BATCH)
        if (found := complaints(draw(seed), warm, tmp_path / str(seed)))
    }
    assert wrong == {}
