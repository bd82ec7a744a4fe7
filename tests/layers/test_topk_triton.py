"""The GPU search in Triton's interpreter, and where there is a GPU, on it."""

import importlib
import os
import subprocess
import sys

import pytest
import torch

import hmhi.layers.topk as topk

NAME = "hmhi.layers.topk_triton"


def check(module, q, k, kept):
    scores, index = module.search(q, k, kept)
    truth, keys = topk.search(q.double(), k.double(), kept)
    torch.testing.assert_close(scores.sort(-1).values, truth.sort(-1).values.float(), atol=2e-5, rtol=1e-5)
    assert torch.equal(index.sort(-1).values, keys.sort(-1).values)
    dense = q.double() @ k.double().transpose(1, 2) * q.shape[-1] ** -0.5
    torch.testing.assert_close(scores, dense.gather(-1, index).float(), atol=2e-5, rtol=1e-5)


def check_best_keys(module):
    """Where neither queries, keys nor channels fill a tile."""
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float16):
        for b, n, m, channels, kept in ((2, 3, 150, 40, 5), (1, 70, 200, 32, 9)):
            q, k = (torch.randn(b, size, channels, generator=generator).to(dtype) for size in (n, m))
            check(module, q, k, kept)


def check_nan(module):
    """From a query, and from a key to all queries, so that a bad training step is seen."""
    q, k = torch.randn(1, 2, 32), torch.randn(1, 200, 32)
    q[0, 1] = float("nan")
    assert module.search(q, k, 5)[0][0, 1].isnan().all()
    k[0, 77, 3] = float("nan")
    scores, index = module.search(q, k, 5)
    assert index[0, 0][scores[0, 0].isnan()].tolist() == [77]


def test_the_interpreter_finds_the_best_keys_and_lets_nan_through():
    """In a process of its own: Triton reads the variable when it is imported, which torch does here."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_it_finds_the_best_keys_on_a_gpu(dtype):
    module = importlib.import_module(NAME)
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, n, 128, generator=generator).to("cuda", dtype) for n in (1000, 5000))
    scores, index = module.search(q, k, 50)
    truth, _ = topk.search(q.double(), k.double(), 50)
    torch.testing.assert_close(scores.sort(-1).values, truth.sort(-1).values.float(), atol=1e-4, rtol=1e-4)
    assert (index.sort(-1).values.diff(dim=-1) > 0).all()  # none twice


if __name__ == "__main__":
    interpreted = importlib.import_module(NAME)
    check_best_keys(interpreted)
    check_nan(interpreted)
