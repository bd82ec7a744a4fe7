import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from small_hmmn import make_small_hmmn
from small_stma import make_small_stma

from hmhi.config import ModelConfig
from hmhi.layers.position import mae_position
from hmhi.models.key_maps import CheckpointError
from hmhi.models.pretrained import load_pretrained
from hmhi.models.weights import load_backbone


def test_both_trunks_of_hmmn_take_torchvision_weights(tmp_path):
    """Without the last stage and the classifier; the masks' convolutions stay as they were."""
    torch.manual_seed(0)
    whole = torchvision.models.resnet18(weights=None).eval()
    torch.save(whole.state_dict(), tmp_path / "resnet18.pth")
    model = make_small_hmmn()
    masks = model.memory_encoder.mask.weight.clone()
    load_pretrained(model, str(tmp_path / "resnet18.pth"), ModelConfig(kind="hmmn"))
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = whole.layer3(
            whole.layer2(whole.layer1(whole.maxpool(whole.relu(whole.bn1(whole.conv1(x))))))
        )
        for trunk in (model.query_encoder, model.memory_encoder.trunk):
            torch.testing.assert_close(trunk(trunk.stem(x))[2], expected)
    assert torch.equal(model.memory_encoder.mask.weight, masks)
    torch.save({**whole.state_dict(), "layer9.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"1 unexpected \[layer9"):
        load_backbone(model.query_encoder, tmp_path / "other.pth")


WIDTHS, DEPTHS = (8, 12, 24), (1, 1, 3)
OF_BLOCK = {
    "norm1": (1,), "attn.qkv": (3, 1), "attn.proj": (1, 1), "norm2": (1,), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4),
}  # fmt: skip
"""Layer of a transformer block to its shape in widths."""


def block_shapes(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    shapes = {f"{prefix}.{name}.weight": tuple(width * n for n in shape) for name, shape in OF_BLOCK.items()}
    return shapes | {key.replace(".weight", ".bias"): shape[:1] for key, shape in shapes.items()}


def filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: 0.2 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def convmae_file() -> dict[str, torch.Tensor]:
    """Names and shapes of ConvMAE's file of pre-training, decoder and all, at a small width."""
    a, b, c = WIDTHS
    shapes: dict[str, tuple[int, ...]] = {"mask_token": (1, 1, 16), "decoder_pos_embed": (1, 196, 16)}
    for i, (width, before, side) in enumerate(((a, 3, 4), (b, a, 2), (c, b, 2)), start=1):
        shapes[f"patch_embed{i}.proj.weight"] = (width, before, side, side)
        shapes |= {f"patch_embed{i}.{name}": (width,) for name in ("proj.bias", "norm.weight", "norm.bias")}
    for i, width in ((1, a), (2, b)):
        of_block = {
            "conv1": (width, width, 1, 1), "conv2": (width, width, 1, 1), "attn": (width, 1, 5, 5),
            "mlp.fc1": (4 * width, width, 1, 1), "mlp.fc2": (width, 4 * width, 1, 1), "norm1": (width,),
            "norm2": (width,),
        }  # fmt: skip
        for name, shape in of_block.items():
            shapes |= {f"blocks{i}.0.{name}.weight": shape, f"blocks{i}.0.{name}.bias": shape[:1]}
    for i in range(DEPTHS[2]):
        shapes |= block_shapes(f"blocks3.{i}", c)
    shapes |= block_shapes("decoder_blocks.0", 16)
    for name, out, into in (("patch_embed4", c, c), ("decoder_embed", 16, c), ("decoder_pred", 768, 16)):
        shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    for name, width in (("norm", c), ("decoder_norm", 16)):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for i, (width, side) in enumerate(((a, 4), (b, 2)), start=1):
        shapes |= {
            f"stage{i}_output_decode.weight": (c, width, side, side),
            f"stage{i}_output_decode.bias": (c,),
        }
    return {**filled(shapes), "pos_embed": mae_position(14, 14, c, torch.device("cpu"))}


def conv_stage(state, i: int, x: torch.Tensor, side: int) -> torch.Tensor:
    """A convolutional stage of ConvMAE, written down from its paper and names."""

    def norm(name, x):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, 1e-5).permute(0, 3, 1, 2)

    def conv(name, x, **options):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    x = F.gelu(norm(f"patch_embed{i}.norm", conv(f"patch_embed{i}.proj", x, stride=side)))
    if i == 3:
        return x
    block = f"blocks{i}.0"
    y = conv(f"{block}.conv1", norm(f"{block}.norm1", x))
    x = x + conv(f"{block}.conv2", conv(f"{block}.attn", y, padding=2, groups=y.shape[1]))
    return x + conv(f"{block}.mlp.fc2", F.gelu(conv(f"{block}.mlp.fc1", norm(f"{block}.norm2", x))))


def test_stma_takes_what_convmae_learned(tmp_path):
    """Every key is used or named as left out, and the stages compute what ConvMAE's do."""
    state = convmae_file()
    torch.save({"model": state, "epoch": 1600}, tmp_path / "convmae_base.pth")
    model = make_small_stma()
    load_pretrained(model, str(tmp_path / "convmae_base.pth"), ModelConfig(kind="stma"))
    own = model.backbone.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in own.items())
    left_out = {key.split(".")[0] for key in state.keys() - own.keys()}
    assert left_out == {
        "mask_token", "pos_embed", "decoder_pos_embed", "decoder_embed", "decoder_blocks", "decoder_norm",
        "decoder_pred", "stage1_output_decode", "stage2_output_decode",
    }  # fmt: skip
    image = torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        tokens, stages = model.backbone(image)
        quarter = conv_stage(state, 1, image, 4)
        eighth = conv_stage(state, 2, quarter, 2)
        cells = conv_stage(state, 3, eighth, 2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(stages, [quarter, eighth])
    expected = F.linear(cells, state["patch_embed4.weight"], state["patch_embed4.bias"])
    torch.testing.assert_close(tokens, expected + mae_position(2, 3, 24, torch.device("cpu")))


def test_stma_takes_what_mae_learned(tmp_path):
    """A frame alone goes through the blocks as through timm's ViT of the same weights."""
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_base_patch16_224",
        embed_dim=24,
        depth=3,
        num_heads=3,
        num_classes=0,
        class_token=False,
        global_pool="",
    ).eval()
    vit.pos_embed.data.copy_(mae_position(14, 14, 24, torch.device("cpu")))
    state = vit.state_dict()
    stored = torch.cat((torch.zeros(1, 1, 24), state["pos_embed"]), dim=1)
    beyond = {name: torch.zeros(1, 1, 24) for name in ("cls_token", "mask_token", "decoder_pos_embed")}
    torch.save({"model": {**state, **beyond, "pos_embed": stored}}, tmp_path / "mae.pth")
    model = make_small_stma(["model.stma.backbone=vit_b", "model.stma.depths=[3]"])
    load_pretrained(model, str(tmp_path / "mae.pth"), ModelConfig(kind="stma"))
    image = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        feature = model.encode(image, model.start()).feature
        expected = vit((image - model.mean) / model.std)  # (1, 196, 24)
    torch.testing.assert_close(feature.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)
    torch.save({"model": {**state, **beyond, "pos_embed": stored + 0.01}}, tmp_path / "finetuned.pth")
    with pytest.raises(CheckpointError, match="not the sine table of MAE"):
        load_backbone(model.backbone, tmp_path / "finetuned.pth")
