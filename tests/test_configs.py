"""Every shipped experiment loads and says what it is; the papers' rows are tested in tests/reproduction."""

from pathlib import Path

import pytest

from hmhi.config import load_config
from hmhi.data.catalog import get_spec

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
TRAINING = sorted([*CONFIGS.glob("pretrain_*.yaml"), *CONFIGS.glob("finetune_*.yaml")])


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_header_tells_what_a_reader_needs(path: Path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = "\n".join(head)
    assert path.read_text().startswith("# ")
    for word in ("bash scripts/", "Hardware", "Expected", "Obtained", "Release"):
        assert word in text, f"{path} does not say {word!r}"


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_runs_have_folders_of_their_own(path: Path):
    assert load_config(path).train.output == f"runs/{path.stem}"


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


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("svos/*.yaml")), ids=lambda path: path.stem)
def test_prompted_recipes(path: Path):
    config = load_config(path)
    assert path.read_text().startswith("# ")
    assert config.model.kind != "hmhi" and config.train.freeze_batchnorm
    assert config.train.output == f"runs/{path.stem}"
    if "small" in path.stem or "quickstart" in path.stem:
        assert config.data.train == config.data.val == ["synthetic"]
        return
    for word in ("bash scripts/", "Needs", "Hardware", "Expected", "Obtained", "Release", "Decided"):
        assert word in path.read_text(), f"{path} does not say {word!r}"
    assert [get_spec(name).name for name in config.data.train] == config.data.train


def test_hmmn_recipe():
    """Section 4.1 of the paper."""
    stages = [load_config(CONFIGS / f"svos/hmmn_{name}.yaml") for name in ("static", "davis", "ytvos")]
    for config in stages:
        assert config.data.image_size == [384, 384] and config.data.clip_frames == 3
        train = config.train
        assert (train.optimizer, train.lr, train.schedule, train.weight_decay) == (
            "adam",
            1e-5,
            "constant",
            0,
        )
        assert train.effective_batch == 4 and train.object_loss.dice == 0
    assert [config.model.hmmn.fine_dropout for config in stages] == [[1.0, 0.5], [0.5, 0.0], [0.5, 0.0]]
    assert [config.train.pretrained is None for config in stages] == [False, True, True]
    assert [skip for _, skip in stages[1].data.curriculum] == [0, 5, 10, 15, 20, 25]


def test_stma_recipe():
    """What the paper says of its training; and that it is a reading, which every config has to say."""
    for path in CONFIGS.glob("svos/stma_*.yaml"):
        text = path.read_text().replace("\n#", "")
        assert "our reading of a paper without code; nothing of it is reproduced" in text
    stages = [load_config(CONFIGS / f"svos/stma_{name}.yaml") for name in ("static", "main")]
    for config in stages:
        train = config.train
        assert (train.optimizer, train.lr, train.weight_decay) == ("adamw", 3e-5, 0.05)
        assert (train.schedule, train.lr_drops, train.effective_batch) == ("step", [100_000], 16)
        assert (train.object_loss.cross_entropy, train.object_loss.dice) == (0.5, 0.5)
        begin, end, share = train.object_loss.bootstrap
        assert [round(point * train.steps, -3) for point in (begin, end)] == [
            20_000,
            70_000,
        ] and share == 0.15
    assert [config.train.steps for config in stages] == [150_000, 160_000]
    assert [config.data.clip_frames for config in stages] == [3, 5]
    assert stages[0].train.pretrained is not None and stages[1].train.pretrained is None
