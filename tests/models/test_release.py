"""Back to the authors' form: every name and value of their checkpoints, from ours."""

import json

import pytest
import reference
import torch

from hmhi.commands.convert_weights import main
from hmhi.config import ModelConfig, config_from_dict, config_to_dict
from hmhi.models.build import build_model
from hmhi.models.key_maps import CheckpointError, infer_release_config
from hmhi.models.release import hmhi_to_release, release_to_hmhi
from hmhi.models.weights import load_model, load_state

VARIANTS = sorted(
    path.stem.removeprefix("state_keys_") for path in reference.FOLDER.glob("state_keys_*.json")
)


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_has_every_name_and_value(variant: str):
    """Names, shapes and types are those that the authors' code wrote; full size."""
    keys = json.loads((reference.FOLDER / f"state_keys_{variant}.json").read_text())
    release = {
        key: torch.randn(entry["shape"])
        if entry["dtype"] == "float32"
        else torch.zeros(entry["shape"], dtype=torch.int64)
        for key, entry in keys.items()
    }
    config = config_from_dict(infer_release_config(release)).model
    back = hmhi_to_release(release_to_hmhi(release, config.backbone), config)
    assert {k: (list(v.shape), str(v.dtype)) for k, v in back.items()} == {
        k: (entry["shape"], f"torch.{entry['dtype']}") for k, entry in keys.items()
    }
    for key, value in release.items():
        if ".cross_attention." in key:  # never used: a copy of the one that is
            key = key.replace("cross_attention", "pixel_transformer.layers.0.cross_attn_image")
            assert torch.equal(back[key], release[key])
        elif not key.endswith("relative_position_index"):
            assert torch.equal(back[key], value), key


def test_window_offsets_of_swin():
    from timm.models.swin_transformer import get_relative_position_index

    config = ModelConfig(backbone="swin_tiny")
    back = hmhi_to_release(build_model(config).state_dict(), config)
    table = back["backbone.layers.2.blocks.5.attn.relative_position_index"]
    assert torch.equal(table, get_relative_position_index(7, 7))


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "timm/resnet18"},
        {"inputs": "image"},
        {"shallow_to_high": "sgim"},
        {"memory_stages": [1, 4]},
    ],
)
def test_what_the_authors_do_not_have_is_named(changes):
    with pytest.raises(CheckpointError, match=f"model.{next(iter(changes))}="):
        hmhi_to_release({}, ModelConfig(**changes))


def test_command_there_and_back(tmp_path, capsys):
    config = config_from_dict({"model": {"backbone": "mit_b0", "decoder_channels": 16}})
    torch.manual_seed(1)
    model = build_model(config.model)
    contents = {"format": "hmhi-1", "config": config_to_dict(config), "model": model.state_dict()}
    torch.save(contents, tmp_path / "mine.pt")
    release, again = tmp_path / "mine.pth", tmp_path / "again.safetensors"
    assert main([str(tmp_path / "mine.pt"), str(release), "--to", "release"]) == 0
    assert "all " in capsys.readouterr().out
    assert load_state(release).keys() == {"epoch", "network", "optimizer"}
    assert main([str(release), str(again), "--to", "hmhi"]) == 0
    for path in (release, again):
        loaded = load_model(path).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())
    frame = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected, _ = model.eval().step(frame, frame)
        out, _ = load_model(release).step(frame, frame)
    assert torch.equal(out, expected)
    assert main([str(release), str(tmp_path / "x.pt"), "--to", "hmhi"]) == 2
    assert "must end in .safetensors" in capsys.readouterr().err
