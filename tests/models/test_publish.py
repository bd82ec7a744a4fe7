import json
import re
import subprocess
import sys

import pytest
import torch
from small_model import save_small_checkpoint

from hmhi.commands.export_weights import main as export
from hmhi.models.key_maps import CheckpointError
from hmhi.models.publish import to_safetensors
from hmhi.models.weights import load_model, load_state


@pytest.fixture
def checkpoint(tmp_path):
    return save_small_checkpoint(tmp_path / "best.pt")


def test_export_keeps_config_flow_and_half_precision_weights(checkpoint, tmp_path, repository):
    path, model = checkpoint, load_model(checkpoint)
    contents = torch.load(path, weights_only=True)
    contents["flow"] = {"synthetic": {"method": "mixed"}}
    contents["environment"] = {
        "command": "tools/train.py --config /home/me/a.yaml data.root=/sets/mine x=1/2"
    }
    contents["config"]["train"]["load_from"] = "/home/me/runs/first/best.pt"
    contents["training"] = {"progress": 3}  # stays behind
    torch.save(contents, path)
    released = tmp_path / "weights" / "small.safetensors"
    tool = [sys.executable, repository / "tools" / "export_weights.py", "--checkpoint", path]
    command = [*tool, "--output", released, "infer.image_size=[64,96]"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.endswith("MB, fp16\n")
    loaded = load_state(released)
    assert loaded.keys() == {"format", "config", "environment", "flow", "model"}
    assert loaded["config"]["train"]["load_from"] == "best.pt"
    assert loaded["environment"]["command"] == "tools/train.py --config a.yaml data.root=mine x=1/2"
    assert loaded["config"]["infer"]["image_size"] == [64, 96]
    assert loaded["flow"] == contents["flow"]
    assert all(v.dtype == torch.float16 for v in loaded["model"].values())
    ours, theirs = model.state_dict(), load_model(released).state_dict()
    assert all(torch.equal(theirs[key], value.half().float()) for key, value in ours.items())


def test_weights_that_overflow_half_precision_are_refused(checkpoint):
    contents = load_state(checkpoint)
    contents["model"]["decoder.predictor.bias"][:] = 1e6
    with pytest.raises(CheckpointError, match=r"float16: decoder\.predictor\.bias"):
        to_safetensors(contents)
    with pytest.raises(CheckpointError, match="config"):
        to_safetensors({"model": contents["model"]})


def test_a_folder_for_the_hub_is_a_checkpoint(checkpoint, tmp_path, capsys):
    words = ["--checkpoint", str(checkpoint), "--to", "hub", "--output", str(tmp_path / "hub")]
    assert export([*words, "--precision", "fp32", "--license", "apache-2.0"]) == 0
    folder = tmp_path / "hub"
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    ours, theirs = load_model(checkpoint).state_dict(), load_model(folder).state_dict()
    assert all(torch.equal(theirs[key], value) for key, value in ours.items())
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n") and "| HMHI-Net, mit_b0," in card

    described = json.loads((folder / "config.json").read_text())
    described["config"]["model"]["memory_frames"] = 3
    (folder / "config.json").write_text(json.dumps(described))
    assert load_model(folder).policy.frames == 3, "config.json stands above the metadata of the weights"

    for content, message in [
        ("{", "damaged"),
        ("[" * 9999, "damaged"),
        ("{}", "damaged"),
        (None, "without config.json"),
    ]:
        (folder / "config.json").unlink()
        if content is not None:
            (folder / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=re.escape(message)):
            load_model(folder)
    assert export([*words, "--license", "x\nevil: 1"]) == 2
    assert "short name" in capsys.readouterr().err
