import math

import pytest
import torch

from hmhi.layers.position import mae_position, rotary_table, rotate, sine_position

CPU = torch.device("cpu")


def test_sine_position_by_hand():
    table = sine_position(2, 3, 8, CPU).reshape(2, 3, 8)
    # row 1 of 2 (position 1): angle pi; half width 4: wavelengths 1, 1, 100, 100
    row, column = math.pi, 2 * math.pi * 2 / 3  # cell (0, 1): row position 1 of 2, column position 2 of 3
    expected = [
        math.sin(row), math.cos(row), math.sin(row / 100), math.cos(row / 100),
        math.sin(column), math.cos(column), math.sin(column / 100), math.cos(column / 100),
    ]  # fmt: skip
    torch.testing.assert_close(table[0, 1], torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", [(4, 4), (3, 7), (1, 9)])
def test_sine_position_of_any_grid(grid):
    table = sine_position(*grid, 128, CPU)
    assert table.shape == (1, grid[0] * grid[1], 128)
    assert table.abs().max() <= 1


def mae_table(channels: int) -> torch.Tensor:
    """What MAE stores for its 14 x 14 patches, (196, C): columns first, sines before cosines."""
    frequency = 1 / 10000 ** (torch.arange(channels // 4, dtype=torch.float64) / (channels / 4))
    rows, columns = torch.meshgrid(*(torch.arange(14, dtype=torch.float64),) * 2, indexing="ij")
    angles = [torch.outer(place.flatten(), frequency) for place in (columns, rows)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1).float()


def test_mae_position_on_its_own_grid_is_the_stored_table():
    torch.testing.assert_close(mae_position(14, 14, 768, CPU)[0], mae_table(768), atol=1e-6, rtol=0)


def test_mae_position_is_stretched_over_other_grids():
    """Row 0 of 28 lies a quarter above that of 14, column 0 of 7 between columns 0 and 1."""
    table = mae_position(28, 7, 16, CPU)[0].unflatten(0, (28, 7))
    assert table[0, 0, 8].item() == pytest.approx(math.sin(-0.25))
    assert table[0, 0, 0].item() == pytest.approx(math.sin(0.5))


def test_rotation_keeps_lengths_and_depends_on_offsets_only():
    h, w, c = 4, 6, 16
    table = rotary_table(h, w, c, CPU)
    q, k = torch.randn(2, 1, 1, c).expand(2, 1, h * w, c)
    turned_q, turned_k = rotate(q, table), rotate(k, table)
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm(dim=-1))
    scores = (turned_q @ turned_k.transpose(1, 2)).reshape(h, w, h, w)
    # moving both tokens by one row and two columns changes nothing
    torch.testing.assert_close(scores[1, 2, 2, 3], scores[2, 4, 3, 5], atol=1e-4, rtol=0)
    assert (scores[1, 2, 2, 3] - scores[1, 2, 3, 2]).abs() > 1e-3


def test_rotation_grid_follows_rows_and_columns_of_any_shape():
    wide, tall = rotary_table(2, 8, 8, CPU), rotary_table(8, 2, 8, CPU)
    # pair 0 turns with the column, pair 2 with the row, both at frequency 1
    assert torch.equal(wide[0, :, 0], torch.arange(8.0).repeat(2).cos())
    assert torch.equal(tall[0, :, 2], torch.arange(8.0).repeat_interleave(2).cos())


def test_rotation_keeps_the_type_of_its_input():
    x = torch.randn(1, 6, 8, dtype=torch.bfloat16)
    assert rotate(x, rotary_table(2, 3, 8, CPU)).dtype == torch.bfloat16
