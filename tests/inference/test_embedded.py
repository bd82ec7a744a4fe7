"""The bundled weights: what their card says is what the file holds and does."""

import hashlib
from pathlib import Path

import pytest
import torch
import yaml

import hmhi
from hmhi.config import config_from_dict
from hmhi.data.loader import build_val_videos
from hmhi.inference.base import EMBEDDED
from hmhi.models.weights import load_state
from hmhi.runtime.distributed import Ranks
from hmhi.training.tasks import task_of
from hmhi.training.validate import protocol_of, validate

CARD = Path(__file__).resolve().parents[2] / "checkpoint" / "hmhi_embedded.md"


@pytest.fixture(scope="module")
def card():
    """The facts at the head of the model card."""
    _, head, _ = (
        (Path(__file__).resolve().parents[2] / "checkpoint" / "hmhi_embedded.md")
        .read_text(encoding="utf-8")
        .split("---\n", 2)
    )
    return yaml.safe_load(head)


@pytest.fixture(scope="module")
def contents():
    return load_state(EMBEDDED)


def test_the_file_is_the_one_of_the_card(card):
    assert hashlib.sha256(EMBEDDED.read_bytes()).hexdigest() == card["sha256"]
    assert EMBEDDED.stat().st_size < 25e6


def test_it_is_the_whole_network(card, contents):
    model = contents["config"]["model"]
    assert (model["backbone"], model["memory_stages"]) == ("mit_b0", [2, 4])
    assert (model["high_to_shallow"], model["shallow_to_high"]) == ("sgim", "plam")
    assert {tensor.dtype for tensor in contents["model"].values()} == {torch.float16}
    assert sum(tensor.numel() for tensor in contents["model"].values()) == card["parameters"]
    assert contents["config"]["data"]["train"] == ["synthetic"]


def test_its_recipe_is_in_the_repository(contents, repository):
    start = "train.load_from=runs/embedded_clips/ckpt/best.pt"  # given on the command line
    recipe = hmhi.load_config(repository / "configs" / "embedded_finish.yaml", [start])
    assert config_from_dict(contents["config"], [start]) == recipe


def test_it_scores_what_the_card_says_on_the_synthetic_set(card, contents):
    """Scenes are rendered anew; .01 is left for other versions of OpenCV and for half precision."""
    config = config_from_dict(contents["config"])
    videos = build_val_videos(config.data, "synthetic")
    scores = validate(
        task_of(config), hmhi.load_model(EMBEDDED), videos,
        protocol=protocol_of("synthetic"), ranks=Ranks(0, 1, torch.device("cpu")),
    )  # fmt: skip
    assert scores is not None
    assert scores.mean["J"] == pytest.approx(card["synthetic"]["J"], abs=0.01)
    assert scores.mean["F"] == pytest.approx(card["synthetic"]["F"], abs=0.01)


def test_it_is_the_default_and_reads_flow_as_in_training(caplog):
    segmenter = hmhi.VideoSegmenter(device="cpu")
    assert segmenter.trained_flow["synthetic"]["method"] == "mixed"
    assert segmenter.join == "homography"
    segmenter.warn_of_other_flow()
    assert not caplog.records
