import argparse
import itertools
import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import format_report, main, run_part, start_part
from benchmarks.gpu_parts import PARTS, Part

CPU = ["--device", "cpu", "--size", "small"]


def options(output: Path, minutes: float) -> argparse.Namespace:
    return argparse.Namespace(device="cpu", size="small", minutes=minutes, output=output)


def test_a_part_leaves_what_it_found_in_a_file(tmp_path, monkeypatch):
    def failing(setting, device, seconds):
        yield from itertools.islice(PARTS["deviation"].run(setting, device, seconds), 3)
        raise ValueError("out of luck\nand so on")

    monkeypatch.setitem(PARTS, "failing", Part(failing, 1))
    run_part("failing", options(tmp_path, 0.01))
    found = json.loads((tmp_path / "failing.json").read_text(encoding="utf-8"))
    assert found["error"] == "ValueError: out of luck"
    values = {figure["name"]: figure["value"] for figure in found["figures"]}
    assert 0.3 < values["fp32, J of the bundled weights"] < 1
    assert 0 < values["bf16, mean difference of probabilities from fp32"] < 0.01


def test_a_part_that_takes_too_long_is_told(tmp_path):
    part = start_part("parity", 0.1, options(tmp_path, 1))
    assert part["error"] == "took longer than the 0 s that were its share"
    assert part["figures"] == []
    report = {
        "machine": {"device": "a CPU", "torch": "2", "python": "3"},
        "settings": {"backbone": "mit_b0", "size": 64, "memory_frames": 2},
        "commit": "abc",
        "parts": {"parity": part},
    }
    assert "| parity | **failed**: took longer than" in format_report(report)


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "sees no CUDA device"), ([*CPU, "--minutes", "0"], "must be positive")]
)
def test_what_cannot_be_measured_is_refused(arguments, message, capsys):
    if not arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert main(arguments) != 0
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_part_runs_on_the_cpu(tmp_path):
    assert main([*CPU, "--minutes", "18", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert list(report["parts"]) == list(PARTS)
    for name, part in report["parts"].items():
        assert part["error"] is None, part
        assert part["figures"] or name in ("compiled", "triton")  # not on a CPU, or not when small
        assert all(figure["value"] >= 0 for figure in part["figures"])
    parity = {figure["name"]: figure["value"] for figure in report["parts"]["parity"]["figures"]}
    assert parity["fp32 at 256, difference of logits from the release, largest"] < 1e-4
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert table.startswith(f"# {report['machine']['device']}\n")
    assert "| deviation | bf16, J of the bundled weights |" in table
