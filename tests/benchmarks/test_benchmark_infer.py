import json
import sys

import pytest
import torch
from small_model import make_small_model

from benchmarks.dense import DenseHMHINet
from benchmarks.infer import main


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"memory_stages": [1, 3], "memory_interval": 2},
        {"shallow_to_high": "sgim", "high_to_shallow": "plam", "flow_adapters": False},
        {"memory_stages": [], "shallow_to_high": "none", "high_to_shallow": "none"},
    ],
    ids=str,
)
def test_the_dense_form_gives_the_same_numbers(changes):
    model = make_small_model(memory_frames=2, **changes)
    dense = DenseHMHINet(model)
    memory = dense_memory = None
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        for _ in range(4):
            image, flow = torch.randn(2, 2, 3, 64, 96, generator=generator)
            ours, memory = model.step(image, flow, memory)
            theirs, dense_memory = dense.step(image, flow, dense_memory)
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert ours.std() > 1e-3


def test_the_dense_form_is_for_one_backbone():
    with pytest.raises(ValueError, match="Mix Transformer"):
        DenseHMHINet(make_small_model(inputs="image"))


@pytest.mark.slow
def test_the_command_measures_all_that_it_was_asked(tmp_path, capsys):
    report = tmp_path / "report.json"
    arguments = [
        "--backbone",
        "mit_b0",
        "--size",
        "64",
        "64",
        "--memory-frames",
        "2",
        "--rounds",
        "1",
        "--flow",
    ]
    arguments += ["--batch-size", "2", "--look-ahead", "1", "2", "--threads", "1", "--json", str(report)]
    threads = torch.get_num_threads()
    try:
        assert main(arguments) == 0
    finally:
        torch.set_num_threads(threads)
    values = json.loads(report.read_text(encoding="utf-8"))
    dense, plain, ahead = values["results"]
    assert (dense["arm"], plain["arm"], ahead["arm"]) == ("dense fp32", "fp32", "fp32 look-ahead 2")
    assert dense["speedup"] is None
    for row in (plain, ahead):
        assert row["batch"] == 2
        assert 0 < row["ms_low"] <= row["ms_per_frame"] <= row["ms_high"]
        assert row["speedup"] == pytest.approx(dense["ms_per_frame"] / row["ms_per_frame"])  # one round
        assert row["compile_s"] is None
    assert list(plain["parts_ms"]) == [
        *("encoder", "read-out 2", "read-out 4", "high to shallow", "shallow to high", "decoder"),
        *("memory encoder 2", "memory encoder 4"),
    ]
    assert min(plain["parts_ms"].values()) > 0
    assert dense["parts_ms"] == ahead["parts_ms"] == {}
    if sys.platform == "linux":
        assert dense["peak_mib"] is not None
        assert plain["peak_mib"] is not None
    # keys of two stored frames of 8x8 and 2x2 cells in 64 and 256 channels, and as many values
    assert values["work"]["bank_mib"] * 2**20 == 2 * 2 * 4 * (64 * 64 + 4 * 256)
    assert 0 < values["work"]["gflop"] < values["work"]["dense_gflop"]
    assert values["flow_ms"] > 0
    table = capsys.readouterr().out
    assert "dense fp32" in table
    assert "parts of fp32, batch 2" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "100", "100"], "multiples of 32"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--batch-size", "4", "0"], "--batch-size must be at least 1"),
        (["--device", "cuda"], "sees no CUDA device"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match=message):
        main(arguments)
