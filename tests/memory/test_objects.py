import pytest
import torch

from hmhi.errors import UserError
from hmhi.memory.bank import BankPolicy, MemoryBank, Slot
from hmhi.memory.objects import Group, ObjectState


def group(start: int, *ids: int) -> Group:
    key = torch.tensor(ids, dtype=torch.float32)[:, None, None].expand(-1, 4, 2)
    return Group(start, ids, {"coarse": MemoryBank(BankPolicy()).append(Slot(start, (2, 2), {"key": key}))})


@pytest.fixture
def state():
    return ObjectState(frame=9, size=(32, 32), groups=(group(0, 7, 2, 9), group(5, 3)))


def test_ids_come_in_the_order_of_the_groups(state):
    assert state.ids == (7, 2, 9, 3)
    assert ObjectState().ids == ()


def test_a_removed_object_takes_its_rows_and_an_empty_group_goes(state):
    left = state.without([2])
    assert left.ids == (7, 9, 3)
    assert left.groups[0].banks["coarse"].joined("key")[:, 0, 0].tolist() == [7, 9]
    assert [g.start for g in state.without([3]).groups] == [0]
    assert state.without(state.ids).groups == ()
    assert state.ids == (7, 2, 9, 3)  # the state is a value


def test_removing_a_stranger_names_it(state):
    with pytest.raises(UserError, match="number 4"):
        state.without([7, 4])
