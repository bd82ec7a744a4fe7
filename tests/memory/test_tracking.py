import pytest
import torch

from hmhi.memory.bank import BankPolicy, MemoryBank, Slot
from hmhi.memory.tracking import Kernel, best_places, log_kernel, motion_step, place_kernel

GRID = (6, 9)
CELLS = torch.arange(54).view(GRID)


def codes(grid=GRID) -> torch.Tensor:
    """(1, n, n) keys that match only themselves."""
    return torch.eye(grid[0] * grid[1])[None]


def moved(places: torch.Tensor) -> torch.Tensor:
    """Query whose cell i shows what memory cell places[i] held."""
    return codes()[:, places.flatten()]


def test_a_step_finds_what_moved_within_the_window():
    """The picture moves one row down and two columns to the right; what leaves it finds nothing of its own."""
    query = moved(CELLS.roll((1, 2), (0, 1)))
    step = motion_step(query, codes(), GRID, window=7).view(GRID)
    assert torch.equal(step[:-1, :-2], CELLS[1:, 2:])
    narrow = motion_step(query, codes(), GRID, window=3).view(GRID)
    assert not torch.equal(narrow[:-1, :-2], CELLS[1:, 2:])  # two columns are out of its reach


@pytest.mark.parametrize("window", [1, 3, 7, 99])
def test_a_step_is_the_best_score_among_cells_within_reach(window):
    generator = torch.Generator().manual_seed(0)
    query, keys = torch.randn(2, 2, 54, 5, generator=generator)
    scores = keys @ query.transpose(1, 2)  # (R, memory, query)
    y, x = CELLS.flatten() // 9, CELLS.flatten() % 9
    far = ((y[:, None] - y).abs() > window // 2) | ((x[:, None] - x).abs() > window // 2)
    expected = scores.masked_fill(far, float("-inf")).argmax(-1)
    assert torch.equal(motion_step(query, keys, GRID, window), expected)


def test_places_anywhere():
    query = moved(CELLS.roll((3, 5), (0, 1)))
    assert torch.equal(best_places(query, codes()).view(GRID), CELLS.roll((-3, -5), (0, 1)))


def test_the_kernel_is_a_gaussian():
    rows, columns = log_kernel(torch.tensor([[13]]), 2.0, GRID)  # centre (1, 4)
    kernel = (rows[0, :, None, 0] + columns[0, None, :, 0]).exp()
    for y, x in ((1, 4), (0, 4), (5, 8)):
        expected = torch.tensor(-((y - 1) ** 2 + (x - 4) ** 2) / 8.0).exp()
        torch.testing.assert_close(kernel[y, x], expected)


@pytest.mark.parametrize(("rule", "widths"), [("release", [3.0, 4.5, 6.0]), ("paper", [3.0, 3.5, 4.0])])
def test_older_slots_have_wider_kernels(rule, widths):
    assert [Kernel(rule=rule).width(d) for d in range(3)] == widths


def slot(frame: int) -> Slot:
    return Slot(frame, GRID, {"key": codes()})


@pytest.mark.parametrize("twice", [False, True])
def test_tracks_are_carried_by_their_slots(twice):
    """Each frame moves by one column: a slot that was read three times is three columns further on."""
    kernel = Kernel(track_twice=twice)
    bank = MemoryBank(BankPolicy(frames=0, interval=2, previous=True))
    right = moved(CELLS.roll(1, 1))
    for t in range(3):
        bank = bank.append(slot(t))
        (rows, columns), bank = place_kernel(right, bank, GRID, kernel)
    tracks = bank.slots[0].tensors["track"].view(GRID)
    assert torch.equal(tracks[:, :-3], CELLS[:, 3:])
    assert bank.frames == (0, 2)
    # the kernel of the first slot's cell (2, 1) is highest at its place, or one step beyond
    cell, beyond = 2 * 9 + 1, 1 if twice else 0
    assert rows[0, :, cell].argmax() == 2
    assert columns[0, :, cell].argmax() == 1 + 3 + beyond
    assert columns[0, :, 54 + cell].argmax() == 2  # the newest slot's: one step
    after = bank.append(slot(3))
    assert ["track" in held.tensors for held in after.slots] == [True, True, False]


def test_a_global_kernel_needs_no_tracks():
    bank = MemoryBank(BankPolicy()).append(slot(0)).append(slot(1))
    (rows, columns), after = place_kernel(
        moved(CELLS.roll((2, 4), (0, 1))), bank, GRID, Kernel(mode="global")
    )
    assert rows[0, :, 0].argmax() == rows[0, :, 54].argmax() == 2
    assert columns[0, :, 0].argmax() == columns[0, :, 54].argmax() == 4
    assert after is bank
