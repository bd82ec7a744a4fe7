"""The bundled weights: what their cards say is what the files hold and do."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml

import hmhi
from hmhi.config import config_from_dict
from hmhi.data.loader import build_val_videos
from hmhi.inference.base import EMBEDDED, EMBEDDED_OBJECTS
from hmhi.models.weights import load_state
from hmhi.runtime.distributed import Ranks
from hmhi.training.tasks import task_of
from hmhi.training.validate import protocol_of, validate


class Bundled(NamedTuple):
    path: Path
    recipe: str
    """Config of the last stage of its training."""
    before: str
    """Config of the stage before."""


UNPROMPTED = Bundled(EMBEDDED, "embedded2_finish", "embedded2_192")
PROMPTED = Bundled(EMBEDDED_OBJECTS, "svos/hmmn_small_240", "svos/hmmn_small_160")


@pytest.fixture(params=[UNPROMPTED, PROMPTED], ids=["hmhi", "hmmn"])
def bundled(request):
    return request.param


@pytest.fixture
def card(bundled, repository):
    """The facts at the head of the model card."""
    text = (repository / "checkpoint" / f"{bundled.path.stem}.md").read_text(encoding="utf-8")
    return yaml.safe_load(text.split("---\n", 2)[1])


@pytest.fixture
def contents(bundled):
    return load_state(bundled.path)


def test_the_file_is_the_one_of_the_card(bundled, card, contents):
    assert hashlib.sha256(bundled.path.read_bytes()).hexdigest() == card["sha256"]
    assert bundled.path.stat().st_size < 25e6
    kinds = {tensor.dtype for tensor in contents["model"].values()}
    assert kinds == {torch.float16, torch.int64}  # BatchNorm counts its batches
    assert sum(tensor.numel() for tensor in contents["model"].values()) == card["parameters"]
    assert contents["config"]["data"]["train"] == ["synthetic"]


def test_the_recipe_is_in_the_repository(bundled, contents, repository):
    start = f"train.load_from=runs/{bundled.before}/ckpt/best.pt"  # given on the command line
    recipe = hmhi.load_config(repository / "configs" / f"{bundled.recipe}.yaml", [start])
    assert config_from_dict(contents["config"], [start]) == recipe


@pytest.mark.parametrize(
    "bundled",
    [
        pytest.param(UNPROMPTED, id="hmhi"),
        pytest.param(PROMPTED, id="hmmn", marks=pytest.mark.slow),
    ],
)
def test_it_scores_what_the_card_says_on_the_synthetic_set(bundled, card, contents):
    """Scenes are rendered anew; .01 is left for other versions of OpenCV and for half precision."""
    config = config_from_dict(contents["config"])
    videos = build_val_videos(config.data, "synthetic")
    scores = validate(
        task_of(config), hmhi.load_model(bundled.path), videos,
        protocol=protocol_of("synthetic"), ranks=Ranks(0, 1, torch.device("cpu")),
    )  # fmt: skip
    assert scores is not None
    assert scores.mean["J"] == pytest.approx(card["synthetic"]["J"], abs=0.01)
    assert scores.mean["F"] == pytest.approx(card["synthetic"]["F"], abs=0.01)


def test_it_is_the_whole_network_and_the_default_and_reads_flow_as_in_training(caplog):
    segmenter = hmhi.VideoSegmenter(device="cpu")
    model = load_state(EMBEDDED)["config"]["model"]
    assert (model["backbone"], model["memory_stages"]) == ("lite0", [2, 4])
    assert (model["high_to_shallow"], model["shallow_to_high"]) == ("sgim", "plam")
    assert segmenter.trained_flow["synthetic"]["method"] == "mixed"
    assert segmenter.join == "homography"
    segmenter.warn_of_other_flow()
    assert not caplog.records


def test_objects_have_a_default_too():
    segmenter = hmhi.ObjectSegmenter(device="cpu")
    assert segmenter.traits.kind == "hmmn" and segmenter.input_size(480, 854) == (320, 569)
