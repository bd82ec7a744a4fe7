import math

import pytest
import torch

from hmhi.layers.aggregate import soft_aggregate


def test_by_hand():
    prob = torch.tensor([0.8, 0.5])[:, None, None]
    odds = [0.1 / 0.9, 0.8 / 0.2, 1.0]  # background (1 - .8)(1 - .5), then the objects
    logits = soft_aggregate(prob).flatten()
    torch.testing.assert_close(logits, torch.tensor([math.log(x) for x in odds]))
    torch.testing.assert_close(logits.softmax(0), torch.tensor(odds) / sum(odds))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_certain_pixels_stay_finite(dtype):
    logits = soft_aggregate(torch.tensor([0.0, 1.0], dtype=dtype)[:, None, None]).flatten()
    torch.testing.assert_close(logits, torch.tensor([-16.118, -16.118, 15.942]), atol=1e-3, rtol=0)


def test_rows_belong_to_the_objects_that_exist():
    prob = torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None].requires_grad_()
    valid = torch.tensor([[True, False, True], [False, False, False], [True, True, False]])
    logits = soft_aggregate(prob, valid)[..., 0, 0]
    assert logits.isinf().tolist() == [
        [False, False, True, False],
        [False, True, True, True],
        [False, False, False, True],
    ]
    for video, rows in ((0, [0, 1]), (2, [2, 3])):
        alone = soft_aggregate(prob[rows])[0, :, 0, 0]
        torch.testing.assert_close(logits[video][logits[video].isfinite()], alone)
    logits.softmax(1)[:, 0].sum().backward()
    assert prob.grad.isfinite().all()
    assert prob.grad.ne(0).all()
