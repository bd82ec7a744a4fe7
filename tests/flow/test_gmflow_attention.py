"""Where cells look, against plain loops."""

import math

import torch

from hmhi.flow.gmflow_attention import gather, gather_local, places_like, warp, window_mask, window_order

CPU = torch.device("cpu")


def test_windows_hold_neighbours():
    numbers = torch.arange(24).view(4, 6)
    order = window_order(4, 6, 2, False, CPU).view(4, 6)
    assert order[0].tolist() == [0, 1, 2, 6, 7, 8]
    assert order[3].tolist() == [15, 16, 17, 21, 22, 23]
    shifted = window_order(4, 6, 2, True, CPU).view(4, 6)
    assert shifted[0].tolist() == numbers[1:3, 1:4].flatten().tolist()
    assert shifted[3].tolist() == numbers[[3, 0]][:, [4, 5, 0]].flatten().tolist()


def test_shifted_windows_see_no_other_edge():
    """Cells of a window may see each other where they were less than a window apart in the frame."""
    height, width, windows = 4, 6, 2
    order = window_order(height, width, windows, True, CPU).view(windows * windows, -1)
    mask = window_mask(height, width, windows, CPU)[0]
    y, x = order // width, order % width
    near = ((y[:, :, None] - y[:, None]).abs() < height // windows) & (
        (x[:, :, None] - x[:, None]).abs() < width // windows
    )
    assert torch.equal(mask == 0, near)
    assert (mask[~near] == -math.inf).all()


def test_gather_weighs_values_by_likeness():
    torch.manual_seed(0)
    query, key = torch.randn(2, 2, 3, 4, 8)
    values = torch.randn(2, 3, 4, 2)
    mixed = gather(query, key, values)
    scores = torch.einsum("bhwc,bijc->bhwij", query, key).flatten(3) / math.sqrt(8)
    expected = torch.einsum("bhwn,bnv->bhwv", scores.softmax(3), values.flatten(1, 2))
    torch.testing.assert_close(mixed, expected)


def test_gather_local_is_gather_among_neighbours():
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 4, 5, 8)
    values = torch.randn(1, 4, 5, 2)
    for beyond in (-math.inf, 0.0):
        mixed = gather_local(query, key, values, 1, beyond)
        for y in range(4):
            for x in range(5):
                scores, inside = [], []
                for i, j in ((i, j) for i in range(y - 1, y + 2) for j in range(x - 1, x + 2)):
                    within = 0 <= i < 4 and 0 <= j < 5
                    if within or beyond == 0:
                        scores.append(
                            query[0, y, x] @ key[0, i, j] / math.sqrt(8) if within else torch.tensor(0.0)
                        )
                        inside.append(values[0, i, j] if within else torch.zeros(2))
                expected = torch.stack(scores).softmax(0) @ torch.stack(inside)
                torch.testing.assert_close(mixed[0, y, x], expected)


def test_warp_reads_where_flow_leads():
    cells = torch.randn(1, 4, 5, 3)
    flow = torch.zeros(1, 4, 5, 2)
    flow[0, 1, 1] = torch.tensor([2.0, 1.0])
    flow[0, 2, 2] = torch.tensor([0.5, 0.0])
    flow[0, 3, 4] = torch.tensor([7.0, 0.0])
    warped = warp(cells, flow)
    torch.testing.assert_close(warped[0, 0], cells[0, 0])
    torch.testing.assert_close(warped[0, 1, 1], cells[0, 2, 3])
    torch.testing.assert_close(warped[0, 2, 2], (cells[0, 2, 2] + cells[0, 2, 3]) / 2)
    assert not warped[0, 3, 4].any()
    assert places_like(cells)[0, 3, 4].tolist() == [4, 3]
