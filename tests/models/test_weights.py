import json
import re
from pathlib import Path

import make_inputs
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models.feature_extraction import create_feature_extractor

import hmhi
from hmhi.commands.convert_weights import main as convert
from hmhi.config import ModelConfig, config_to_dict, load_config
from hmhi.models.build import build_backbone, build_model
from hmhi.models.key_maps import CheckpointError
from hmhi.models.weights import backbone_state, load_backbone, load_model, load_state, unwrap

SMALL = ["model.backbone=mit_b0", "model.decoder_channels=16", "model.ffn_channels=32"]


@pytest.fixture
def checkpoint(tmp_path):
    """A file such as training writes it, and the model in it."""
    config = load_config(None, SMALL)
    model = build_model(config.model)
    path = tmp_path / "best.pt"
    torch.save({"format": "hmhi-1", "config": config_to_dict(config), "model": model.state_dict()}, path)
    return path, model


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_own_checkpoint(checkpoint):
    path, model = checkpoint
    loaded = hmhi.load_model(path)
    assert not loaded.training
    assert same(loaded, model)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_ddp_and_compile_are_taken_off(checkpoint, prefix):
    path, model = checkpoint
    contents = torch.load(path, weights_only=True)
    contents["model"] = {prefix + key: value for key, value in contents["model"].items()}
    torch.save(contents, path)
    assert same(load_model(path), model)


def test_safetensors_with_the_config_in_its_metadata(checkpoint, tmp_path):
    path, model = checkpoint
    config = torch.load(path, weights_only=True)["config"]
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"config": json.dumps(config)})
    assert same(load_model(tmp_path / "model.safetensors"), model)


def test_overrides(checkpoint):
    assert load_model(checkpoint[0], overrides=["model.memory_frames=3"]).policy.frames == 3
    with pytest.raises(hmhi.ConfigError, match="memory_frames"):
        load_model(checkpoint[0], overrides=["model.memory_frames=0"])
    with pytest.raises(CheckpointError, match=r"missing|another shape"):
        load_model(checkpoint[0], overrides=["model.backbone=mit_b1"])


def test_missing_and_unexpected_keys_are_listed(checkpoint):
    path, _ = checkpoint
    contents = torch.load(path, weights_only=True)
    contents["model"]["surprise"] = contents["model"].pop("decoder.predictor.bias")
    torch.save(contents, path)
    with pytest.raises(
        CheckpointError, match=r"1 missing \[decoder.predictor.bias\], 1 unexpected \[surprise\]"
    ):
        load_model(path)


class Attack:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


def test_a_pickle_attack_is_not_executed(tmp_path):
    canary = tmp_path / "executed"
    torch.save({"model": Attack(canary)}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="refused") as caught:
        load_state(tmp_path / "evil.pt")
    assert "weights_only" not in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off", bytes(1000)])
def test_damaged_files_are_one_named_error(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="broken"):
        load_state(path)


def test_a_file_of_the_first_format_loads_for_ever(repository):
    """Written at commit a00276f. If this fails, mend the code, not the file."""
    model = load_model(repository / "tests" / "formats" / "hmhi-1.pt")
    images, flows = (torch.from_numpy(x)[None] for x in make_inputs.clip(3, 64, 64))
    with torch.inference_mode():
        logits = model(images, flows)
    torch.testing.assert_close(
        logits[0, :, 0, 20, 33], torch.tensor([-1.863, -2.3473, -2.1901]), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_format_of_the_future_is_refused_by_name(checkpoint, tmp_path, suffix):
    contents = torch.load(checkpoint[0], weights_only=True)
    contents["format"] = "hmhi-99"
    path = tmp_path / f"later{suffix}"
    if suffix == ".pt":
        torch.save(contents, path)
    else:
        described = {key: json.dumps(contents[key]) for key in ("format", "config")}
        save_file(contents["model"], path, metadata=described)
    with pytest.raises(CheckpointError, match=r"later.* has format 'hmhi-99'.* reads 'hmhi-1'; update hmhi"):
        load_model(path)


def test_half_a_file(checkpoint):
    path, _ = checkpoint
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="cut off"):
        load_state(path)


def test_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        load_state(tmp_path / "nowhere.pt")


def test_backbone_weights_are_no_checkpoint(tmp_path):
    torch.save(nvidia_names(build_backbone(ModelConfig(backbone="mit_b0"))), tmp_path / "mit_b0.pth")
    with pytest.raises(CheckpointError, match=r"train\.pretrained"):
        load_model(tmp_path / "mit_b0.pth")


# ---------------------------------------------------------------- backbone weights in their published names


def nvidia_names(backbone) -> dict[str, torch.Tensor]:
    """The state dict of NVIDIA's release: no adapters, a classification head beside it."""
    state = {}
    for key, value in backbone.state_dict().items():
        if "adapter" in key:
            continue
        key = re.sub(r"stages\.(\d)\.embed\.", lambda m: f"patch_embed{int(m[1]) + 1}.", key)
        key = re.sub(r"stages\.(\d)\.blocks\.", lambda m: f"block{int(m[1]) + 1}.", key)
        key = re.sub(r"stages\.(\d)\.norm\.", lambda m: f"norm{int(m[1]) + 1}.", key)
        state[key.replace(".dwconv.", ".dwconv.dwconv.")] = value
    return {**state, "head.weight": torch.zeros(10, 4), "head.bias": torch.zeros(10)}


def openmmlab_names(backbone) -> dict[str, torch.Tensor]:
    """What mmsegmentation's converter makes of it, inside a segmentor's checkpoint."""
    state = {}
    nvidia = nvidia_names(backbone)
    for key, value in nvidia.items():
        match = re.match(r"(patch_embed|block|norm)(\d)\.(.*)", key)
        if match is None:
            continue
        part, stage, rest = match[1], int(match[2]) - 1, match[3]
        if part == "patch_embed":
            state[f"layers.{stage}.0." + rest.replace("proj.", "projection.")] = value
        elif part == "norm":
            state[f"layers.{stage}.2.{rest}"] = value
        elif ".attn.kv." in key:
            continue
        elif ".attn.q." in key:
            joined = torch.cat((value, nvidia[key.replace(".q.", ".kv.")]))
            state[f"layers.{stage}.1." + rest.replace("attn.q.", "attn.attn.in_proj_")] = joined
        else:
            if re.search(r"mlp\.fc[12]\.weight", rest):
                value = value[:, :, None, None]
            for old, new in (
                ("attn.proj.", "attn.attn.out_proj."),
                ("mlp.fc1.", "ffn.layers.0."),
                ("mlp.dwconv.dwconv.", "ffn.layers.1."),
                ("mlp.fc2.", "ffn.layers.4."),
            ):
                rest = rest.replace(old, new)
            state[f"layers.{stage}.1.{rest}"] = value
    state = {f"backbone.{key}": value for key, value in state.items()}
    return {"state_dict": {**state, "decode_head.conv_seg.weight": torch.zeros(3, 4)}, "meta": {}}


def huggingface_names(backbone) -> dict[str, torch.Tensor]:
    state = {}
    for key, value in nvidia_names(backbone).items():
        match = re.match(r"(patch_embed|block|norm)(\d)\.(.*)", key)
        if match is None:
            continue
        part, stage, rest = match[1], int(match[2]) - 1, match[3]
        if part == "patch_embed":
            state[f"encoder.patch_embeddings.{stage}." + rest.replace("norm.", "layer_norm.")] = value
        elif part == "norm":
            state[f"encoder.layer_norm.{stage}.{rest}"] = value
        elif ".attn.kv." in key:
            for name, half in zip(("key", "value"), value.chunk(2), strict=True):
                state[f"encoder.block.{stage}." + rest.replace("attn.kv.", f"attention.self.{name}.")] = half
        else:
            for old, new in (
                ("attn.q.", "attention.self.query."),
                ("attn.sr.", "attention.self.sr."),
                ("attn.norm.", "attention.self.layer_norm."),
                ("attn.proj.", "attention.output.dense."),
                ("mlp.fc", "mlp.dense"),
            ):
                rest = rest.replace(old, new)
            rest = re.sub(r"^(\d+)\.norm([12])\.", r"\1.layer_norm_\2.", rest)
            state[f"encoder.block.{stage}.{rest}"] = value
    return {f"segformer.{key}": value for key, value in state.items()}


@pytest.mark.parametrize("names", [nvidia_names, openmmlab_names, huggingface_names])
def test_mit_weights_in_three_formats(tmp_path, names):
    config = ModelConfig(backbone="mit_b0")
    source, target = build_backbone(config), build_backbone(config)
    adapters = {key: value.clone() for key, value in target.state_dict().items() if "adapter" in key}
    torch.save(names(source), tmp_path / "mit_b0.pth")
    load_backbone(target, tmp_path / "mit_b0.pth")
    for key, value in target.state_dict().items():
        expected = adapters[key] if "adapter" in key else source.state_dict()[key]
        assert torch.equal(value, expected), key


def test_swin_weights_of_microsoft(tmp_path):
    config = ModelConfig(backbone="swin_tiny")
    source, target = build_backbone(config), build_backbone(config)
    state = {}
    for key, value in source.state_dict().items():
        key = key.removeprefix("net.")
        key = re.sub(r"^layers_(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)
        state[re.sub(r"^layers_(\d)", r"layers.\1", key)] = value
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    state |= {"norm.weight": torch.zeros(768), "head.weight": torch.zeros(1000, 768)}
    torch.save({"model": state}, tmp_path / "swin.pth")
    load_backbone(target, tmp_path / "swin.pth")
    assert same(source, target)


@pytest.mark.parametrize("name", ["resnet18", "test_convnext", "test_efficientnet"])
def test_timm_weights(tmp_path, name):
    """Whole models of timm, heads included, under the names that their files have."""
    torch.manual_seed(0)
    source = timm.create_model(name, pretrained=False)
    torch.save(source.state_dict(), tmp_path / "whole.pth")
    target = build_backbone(ModelConfig(backbone=f"timm/{name}")).eval()
    load_backbone(target, tmp_path / "whole.pth")
    x = torch.randn(1, 3, 64, 64)
    features = source.eval().forward_intermediates(x, intermediates_only=True)
    with torch.inference_mode():
        torch.testing.assert_close(target(x, flow_from=1)[-1], features[-1])


def test_tensors_that_no_part_of_a_timm_model_has_are_listed(tmp_path):
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    torch.save({**state, "layer5.0.conv1.weight": torch.zeros(3)}, tmp_path / "more.pth")
    target = build_backbone(ModelConfig(backbone="timm/resnet18"))
    with pytest.raises(CheckpointError, match=r"1 unexpected \[net\.layer5"):
        load_backbone(target, tmp_path / "more.pth")


@pytest.mark.parametrize("name", ["mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5"])
def test_every_tensor_of_every_mit_is_matched(name):
    with torch.device("meta"):
        backbone = build_backbone(ModelConfig(backbone=name, flow_adapters=False))
        for names in (nvidia_names, openmmlab_names, huggingface_names):
            state = backbone_state(unwrap(names(backbone)), backbone)
            shapes = {key: value.shape for key, value in backbone.state_dict().items()}
            assert {key: value.shape for key, value in state.items()} == shapes


@pytest.mark.parametrize("counted", [True, False], ids=["today", "before 2018"])
def test_resnet_of_torchvision(tmp_path, counted):
    """The same features as torchvision's network, from its file."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    state = {key: value for key, value in theirs.state_dict().items() if counted or "num_batches" not in key}
    torch.save(state, tmp_path / "resnet50-0676ba61.pth")
    ours = build_backbone(ModelConfig(backbone="timm/resnet50")).eval()
    load_backbone(ours, tmp_path / "resnet50-0676ba61.pth")
    extractor = create_feature_extractor(theirs, ["layer1", "layer2", "layer3", "layer4"])
    assert_same_features(ours, list(extractor(x := torch.randn(1, 3, 64, 96)).values()), x)

    torch.save(torchvision.models.resnet101(weights=None).state_dict(), tmp_path / "resnet101.pth")
    with pytest.raises(CheckpointError, match=r"resnet101\.pth does not fit .* 0 missing .* 306 unexpected"):
        load_backbone(ours, tmp_path / "resnet101.pth")


def test_swin_of_timm(tmp_path):
    """From a file in timm's names, the features of timm's network, at a size where both shift the same windows."""
    torch.manual_seed(0)
    name = "swin_tiny_patch4_window7_224"
    theirs = timm.create_model(name, pretrained=False, img_size=448).eval()
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")
    ours = build_backbone(ModelConfig(backbone="swin_tiny")).eval()
    load_backbone(ours, tmp_path / "timm.safetensors")
    x = torch.randn(1, 3, 448, 448)
    stages = theirs.forward_intermediates(x, indices=4, norm=False, intermediates_only=True)
    assert_same_features(ours, stages, x)


def assert_same_features(ours, expected, x):
    with torch.inference_mode():
        for mine, their in zip(ours(x, flow_from=1), expected, strict=True):
            torch.testing.assert_close(mine, their, atol=1e-4, rtol=1e-4)


def test_converted_backbone_is_read_back(tmp_path, capsys):
    source = build_backbone(ModelConfig(backbone="mit_b0"))
    torch.save(openmmlab_names(source), tmp_path / "segformer.pth")
    converted = str(tmp_path / "mit_b0.safetensors")
    assert convert([str(tmp_path / "segformer.pth"), converted, "--backbone", "mit_b0"]) == 0
    assert "all 176 tensors" in capsys.readouterr().out
    target = build_backbone(ModelConfig(backbone="mit_b0"))
    load_backbone(target, converted)
    for key, value in source.state_dict().items():
        assert "adapter" in key or torch.equal(target.state_dict()[key], value)
    assert convert([str(tmp_path / "segformer.pth"), converted, "--backbone", "mit_b1"]) == 2
    assert "176 of another shape" in capsys.readouterr().err


def test_wrong_backbone_weights_are_refused(tmp_path):
    """The release loads such a file without a word and trains from noise."""
    torch.save({"layer1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    target = build_backbone(ModelConfig(backbone="mit_b0"))
    with pytest.raises(CheckpointError, match=r"no MiT weights .* layer1\.weight"):
        load_backbone(target, tmp_path / "other.pth")
    torch.save(nvidia_names(build_backbone(ModelConfig(backbone="mit_b1"))), tmp_path / "b1.pth")
    with pytest.raises(CheckpointError, match=r"b1\.pth does not fit .* of another shape"):
        load_backbone(target, tmp_path / "b1.pth")


def test_features_equal_those_of_transformers(tmp_path):
    """An independent implementation of the encoder gives the same features, once all norms use its eps."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.SegformerConfig(
        hidden_sizes=[32, 64, 160, 256], depths=[2, 2, 2, 2], num_attention_heads=[1, 2, 5, 8]
    )
    theirs = transformers.SegformerModel(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = build_backbone(ModelConfig(backbone="mit_b0", flow_adapters=False)).eval()
    load_backbone(ours, tmp_path / "model.safetensors")
    for module in ours.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = theirs(x, output_hidden_states=True).hidden_states
    assert_same_features(ours, expected, x)
