"""Every shipped experiment loads and says what it is; the papers' rows are tested in tests/reproduction."""

from pathlib import Path

import pytest

from hmhi.config import load_config

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
