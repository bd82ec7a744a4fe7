import pytest
import torch

from hmhi.memory.bank import BankPolicy, MemoryBank


def frame(number: float, cells: int = 4) -> torch.Tensor:
    return torch.full((1, cells, 2), number)


def test_first_in_first_out():
    bank = MemoryBank(limit=3)
    for number in range(5):
        bank = bank.append(frame(number), frame(-number))
    assert len(bank) == 3
    assert bank.keys[0, ::4, 0].tolist() == [2, 3, 4]
    assert bank.values[0, ::4, 0].tolist() == [-2, -3, -4]


def test_appending_leaves_the_old_bank_as_it_was():
    old = MemoryBank(limit=2).append(frame(0), frame(0))
    old.append(frame(1), frame(1))
    assert len(old) == 1


def test_a_frame_of_another_size_is_refused():
    bank = MemoryBank(limit=2).append(frame(0), frame(0))
    with pytest.raises(ValueError, match="start a new memory"):
        bank.append(frame(1, cells=6), frame(1, cells=6))


@pytest.mark.parametrize(
    ("interval", "written"), [(1, [0, 1, 2, 3, 4, 5, 6]), (2, [0, 2, 4, 6]), (3, [0, 3, 6])]
)
def test_interval(interval, written):
    policy = BankPolicy(interval=interval)
    assert [t for t in range(7) if policy.writes(t)] == written
