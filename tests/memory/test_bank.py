import pytest
import torch

from hmhi.memory.bank import BankPolicy, Memory, MemoryBank, Slot


def slot(frame: int, grid: tuple[int, int] = (2, 2), rows: int = 1, **fields) -> Slot:
    value = torch.full((rows, grid[0] * grid[1], 2), float(frame))
    return Slot(frame, grid, {"key": value, "value": -value}, **fields)


def filled(policy: BankPolicy, frames: int) -> MemoryBank:
    bank = MemoryBank(policy)
    for frame in range(frames):
        bank = bank.append(slot(frame))
    return bank


EVERY_FIFTH_AND_THE_LAST = [[0], [0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [0, 5, 6], [0, 5, 7]]
EVERY_THIRD = [[0], [0], [0], [0, 3], [0, 3], [0, 3]]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (BankPolicy(), [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]),
        (BankPolicy(frames=3, interval=2), [[0], [0], [0, 2], [0, 2], [0, 2, 4], [0, 2, 4], [2, 4, 6]]),
        (BankPolicy(frames=64, interval=5, pin_first=True, previous=True), EVERY_FIFTH_AND_THE_LAST),
        (BankPolicy(pin_first=True, previous=True, persist=False), [[0], *([0, t] for t in range(1, 8))]),
        (BankPolicy(frames=2, interval=3, pin_first=True), [*EVERY_THIRD, [0, 6], [0, 6]]),
        (
            BankPolicy(frames=16, interval=3, pin_first=True, evict="least_used"),
            [*EVERY_THIRD, [0, 3, 6], [0, 3, 6]],
        ),
        (BankPolicy(frames=0, interval=2), [[0], [0], [0, 2], [0, 2], [0, 2, 4], [0, 2, 4], [0, 2, 4, 6]]),
        (BankPolicy(frames=1, pin_first=True), [[0], [0], [0]]),
    ],
    ids=["HMHI", "interval 2", "HMMN coarse", "HMMN fine", "STMA spatial", "STMA temporal", "no limit", "one"],
)  # fmt: skip
def test_frames_seen_after_each_frame(policy, expected):
    assert [list(filled(policy, t + 1).frames) for t in range(len(expected))] == expected


def test_a_frame_that_is_not_taken_need_not_be_made():
    policy = BankPolicy(interval=3)
    assert [t for t in range(7) if policy.writes(t)] == [0, 3, 6]
    assert all(BankPolicy(interval=3, previous=True).writes(t) for t in range(7))


def test_pinned_slots_stay_and_leave_room_for_the_newest():
    bank = filled(BankPolicy(frames=2, pin_first=True), 3).append(slot(3, pinned=True))
    assert bank.frames == (0, 2, 3)  # the bound has risen by one
    for frame in range(4, 8):
        bank = bank.append(slot(frame))
        assert bank.frames == (0, 3, frame)


def test_a_pinned_slot_stays_in_a_bank_that_keeps_nothing_else():
    bank = filled(BankPolicy(pin_first=True, previous=True, persist=False), 4)
    bank = bank.append(slot(4, pinned=True)).append(slot(5))
    assert bank.frames == (0, 4, 5)


def test_the_least_used_slot_goes_but_never_one_that_was_not_read():
    bank = filled(BankPolicy(frames=3, pin_first=True, evict="least_used"), 3)
    bank = bank.used([0.0, 3.0, 1.0])
    assert bank.append(slot(3)).frames == (0, 1, 3)
    bank = bank.append(slot(3)).used([0.0, 0.0, 2.0])  # use / life: 3 / 2 of frame 1, 2 / 1 of frame 3
    assert bank.append(slot(4)).frames == (0, 3, 4)
    unread = filled(BankPolicy(frames=3, pin_first=True, evict="least_used"), 3)
    assert unread.append(slot(3)).frames == (0, 2, 3)


def test_tensors_are_joined_oldest_first():
    bank = filled(BankPolicy(frames=3), 5)
    assert len(bank) == 3
    assert bank.joined("key")[0, ::4, 0].tolist() == [2, 3, 4]
    assert bank.joined("value")[0, ::4, 0].tolist() == [-2, -3, -4]


def test_a_bank_is_a_value():
    old = filled(BankPolicy(frames=2), 2)
    old.append(slot(2)), old.used([1.0, 1.0]), old.rows([])
    old.with_tensor("track", [torch.zeros(1, 4), torch.ones(1, 4)])
    assert old.frames == (0, 1)
    assert {name for held in old.slots for name in held.tensors} == {"key", "value"}
    assert [held.use for held in old.slots] == [0.0, 0.0]


def test_a_tensor_beside_the_others_goes_with_its_slot():
    bank = filled(BankPolicy(frames=2), 2).with_tensor("track", [torch.zeros(1, 4), torch.ones(1, 4)])
    assert bank.joined("track").tolist() == [[0.0] * 4 + [1.0] * 4]
    tracks = [held.tensors.get("track") for held in bank.append(slot(2)).slots]
    assert tracks[0].tolist() == [[1.0] * 4]
    assert tracks[1] is None


def test_rows_are_chosen_in_the_order_given():
    bank = MemoryBank(BankPolicy())
    key = torch.arange(3.0)[:, None, None].expand(3, 4, 2)
    bank = bank.append(Slot(0, (2, 2), {"key": key})).rows([2, 0])
    assert bank.joined("key")[:, 0, 0].tolist() == [2, 0]


def test_memories_whose_frames_are_of_the_same_ages_are_joined():
    """A batch at frame 7 of its videos takes in one that is at frame 5 of its own."""
    policy = BankPolicy(frames=2, interval=2)
    older, newer = (Memory(seen, {4: filled(policy, seen)}) for seen in (7, 5))
    assert older.ages == newer.ages == ((3, 1),)
    assert older.ages != Memory(6, {4: filled(policy, 6)}).ages
    joined = older.join([newer, newer])
    assert (joined.frame, joined.banks[4].frames) == (7, (4, 6))
    assert joined.banks[4].joined("key")[:, ::4, 0].tolist() == [[4, 6], [2, 4], [2, 4]]
    assert joined.rows([1]).banks[4].joined("key").equal(newer.banks[4].joined("key"))
    assert older.banks[4].slots[0].rows == 1  # as it was


@pytest.mark.parametrize("other", [slot(1, (2, 3)), slot(1, (1, 4)), slot(1, rows=2)], ids=str)
def test_a_frame_of_another_size_is_refused(other):
    """Also a transposed one, which has as many cells."""
    with pytest.raises(ValueError, match="start a new memory"):
        filled(BankPolicy(), 1).append(other)
