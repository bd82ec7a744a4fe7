import subprocess
import sys

import pytest
import torch
from small_hmmn import make_small_hmmn

from benchmarks.dense_hmmn import DenseHMMN
from benchmarks.prompted import full_memory


def test_the_dense_form_gives_the_same_numbers():
    model = make_small_hmmn(["model.hmmn.memory_interval=2"])
    dense = DenseHMMN.of(model)
    frames = torch.rand(7, 1, 3, 64, 83, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(64, 83, dtype=torch.bool)
    mask[10:40, 10:40] = True
    states = [model.start(), dense.start()]
    with torch.inference_mode():
        for t, frame in enumerate(frames):
            probs = []
            for i, form in enumerate((model, dense)):
                prob, states[i] = form.step(frame, states[i], {1: mask, 2: ~mask} if t == 0 else None)
                probs.append(prob)
            torch.testing.assert_close(*probs, atol=1e-4, rtol=0)
    ours, theirs = (state.groups[0].banks["coarse"] for state in states)
    assert ours.frames == (0, 2, 4, 6)
    assert torch.equal(*(bank.slots[1].tensors["track"] for bank in (ours, theirs)))


def test_the_memory_is_as_full_as_asked_for():
    model = make_small_hmmn()
    with torch.inference_mode():
        state = full_memory(model, torch.rand(1, 3, 64, 96), 3, 6)
        assert len(state.groups[0].banks["coarse"]) == 6
        prob, _ = model.step(torch.rand(1, 3, 64, 96), state)
    assert prob.shape == (4, 64, 96)


@pytest.mark.slow
def test_command(repository):
    options = ["--size", "48", "64", "--objects", "2", "--slots", "3", "--rounds", "1"]
    options += ["--precision", "fp32", "bf16"]
    command = [sys.executable, "tools/benchmark.py", "prompted", *options]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = [line.split()[:3] for line in done.stdout.splitlines()[-3:]]
    assert table == [["2", "3", form] for form in ("dense", "fp32", "bf16")]
