import json
import subprocess
import sys

import pytest
import torch

from benchmarks.train import DenseClip
from hmhi.config import load_config
from hmhi.models.build import build_model


@pytest.mark.slow
def test_the_dense_form_has_the_same_gradients():
    torch.manual_seed(0)
    model = build_model(load_config(None, ["model.backbone=mit_b0", "model.ffn_channels=16"]).model).eval()
    clips = torch.rand(2, 1, 3, 3, 64, 64)
    gradients = []
    for form in (model, DenseClip(model)):
        model.zero_grad()
        form(*clips).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    scale = max(gradient.abs().max() for gradient in gradients[0])
    for ours, dense in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, dense, atol=float(1e-4 * scale), rtol=1e-3)


@pytest.mark.slow
def test_command(repository, tmp_path):
    command = [sys.executable, "tools/benchmark.py", "train", "--arms", "dense", "fp32", "bf16-recompute"]
    command += ["--rounds", "2", "--threads", "1", "--json", str(tmp_path / "figures.json")]
    command += [
        "data.image_size=[64,64]",
        "data.clip_frames=2",
        "train.batch_size=1",
        "model.backbone=mit_b0",
    ]
    done = subprocess.run([*command, "data.workers=1"], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[-3:]] == ["dense", "fp32", "bf16-recompute"]
    for row in json.loads((tmp_path / "figures.json").read_text())["results"]:
        assert row["clips_per_second"] > 0 and 0 < row["waiting"] < 1 and row["peak_mib"] > 0
