"""Every shipped experiment loads, says what it is, and builds the network that its paper row describes."""

from pathlib import Path

import pytest
import torch

from hmhi.config import load_config
from hmhi.models.build import build_model

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
TRAINING = sorted(
    [*CONFIGS.glob("pretrain_*.yaml"), *CONFIGS.glob("finetune_*.yaml"), *CONFIGS.glob("ablation/*.yaml")]
)
TABLE_ROWS = 22

# Parameters in M of paper Tables 3 and 4. They are those of MiT-b2, and count for each memory the copy of its
# cross-attention that the release keeps and never uses: four linear layers of the stage's width.
PAPER_PARAMETERS = {
    "ablation/table3_baseline": 36.7,
    "ablation/table3_layer1": 37.1,
    "ablation/table3_layer2": 37.7,
    "ablation/table3_layer3": 41.1,
    "ablation/table3_layer4": 46.7,
    "ablation/table4_multi_mem": 47.7,
    "ablation/table4_plam": 60.0,
    "ablation/table4_sgim": 48.4,
    "pretrain_ytvos": 60.8,
}
WIDTHS = {1: 64, 2: 128, 3: 320, 4: 512}


def test_every_row_is_there():
    assert len(list(CONFIGS.glob("ablation/*.yaml"))) == TABLE_ROWS


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_header_tells_what_a_reader_needs(path: Path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = "\n".join(head)
    assert path.read_text().startswith("# ")
    for word in ("bash scripts/", "Hardware", "Expected", "Obtained", "Release"):
        assert word in text, f"{path} does not say {word!r}"


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_runs_have_folders_of_their_own(path: Path):
    folder = f"runs/ablation/{path.stem}" if path.parent.name == "ablation" else f"runs/{path.stem}"
    assert load_config(path).train.output == folder


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_paper_recipe(path: Path):
    config = load_config(path)
    assert config.data.image_size == [512, 512]
    assert config.data.clip_frames == config.model.memory_frames == 5
    assert config.train.loss.frames == "mean"
    if path.stem.startswith("finetune"):
        assert (config.train.lr, config.train.schedule, config.train.pretrained) == (1e-4, "cosine", None)
    else:
        assert (config.train.lr, config.train.schedule, config.train.epochs) == (6e-5, "constant", 150)
        assert config.data.train == ["ytvos"] and config.train.pretrained is not None
        assert config.model.backbone.split("_")[-1] in config.train.pretrained


@pytest.mark.parametrize("name", PAPER_PARAMETERS)
def test_parameter_counts_of_the_paper(name: str):
    config = load_config(CONFIGS / f"{name}.yaml", ["model.backbone=mit_b2"])
    with torch.device("meta"):
        model = build_model(config.model)
    count = sum(p.numel() for p in model.parameters())
    count += sum(4 * (WIDTHS[stage] ** 2 + WIDTHS[stage]) for stage in config.model.memory_stages)
    assert count / 1e6 == pytest.approx(PAPER_PARAMETERS[name], abs=0.05)


VARIANTS = sorted((CONFIGS / "ablation").glob("*.yaml"))


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_every_parameter_learns(path: Path):
    """Distributed training does not search for parameters without a gradient, so there must be none."""
    small = ["model.ffn_channels=8", "model.decoder_channels=8", "model.memory_topk=4"]
    config = load_config(path, small if "swin" in path.stem else [*small, "model.backbone=mit_b0"])
    torch.manual_seed(0)
    model = build_model(config.model)
    clip = torch.randn(1, 2, 3, 64, 64)
    model(clip, clip).square().mean().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []
