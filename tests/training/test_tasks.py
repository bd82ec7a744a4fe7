"""Training and validation of models that follow objects given by masks."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import assert_same_run, records, run_ranks, signal_at_step, tiny_objects
from torch import Tensor

from hmhi.config import ConfigError
from hmhi.data.objects import ObjectFrame
from hmhi.errors import UserError
from hmhi.evaluation.protocol import MASK_PROTOCOLS, OBJECT_PROTOCOLS
from hmhi.memory.objects import Group, ObjectState
from hmhi.models.base import Traits
from hmhi.models.prompted import PromptedNet
from hmhi.models.weights import load_state
from hmhi.runtime.distributed import Ranks
from hmhi.training.run import build_run
from hmhi.training.tasks import PromptedTask, hardest_share, ramp
from hmhi.training.train import fit, train_step

CPU = torch.device("cpu")
TASK = PromptedTask(tiny_objects(Path()))
ALL = MASK_PROTOCOLS["all-frames"]
SIZE = (64, 96)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever else runs on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


OPTIONS = (
    "train.steps=5",
    "data.synthetic.videos=6",
    "train.val_every=1",
)  # ends in the middle of its second epoch


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that validates, and was never stopped."""
    folder = tmp_path_factory.mktemp("straight")
    torch.set_num_threads(1)
    assert fit(tiny_objects(folder, *OPTIONS)) == 0
    return folder


def test_a_run_ends_after_its_steps_and_scores_objects(straight_run: Path):
    training = [r for r in records(straight_run) if "train/loss" in r]
    assert [(r["epoch"], r["step"]) for r in training] == [(0, 1), (0, 2), (0, 3), (1, 4), (1, 5)]
    assert all(0 < r["train/dice"] < 1 and r["train/ce"] > 0 for r in training)
    assert [r["step"] for r in records(straight_run) if "val/synthetic/JF" in r] == [3, 5]
    with pytest.raises(
        ConfigError, match=r"train\.steps: 5 in the checkpoint, 9 now"
    ):  # the ramps would differ
        fit(tiny_objects(straight_run, *OPTIONS, "train.steps=9"), resume="auto")


@pytest.mark.parametrize("stop_at", [pytest.param(2, marks=pytest.mark.slow), 5], ids=["middle", "last step"])
def test_a_stopped_run_continues_with_its_curriculum_and_its_dropout(
    tmp_path: Path, straight_run: Path, stop_at: int
):
    with pytest.MonkeyPatch.context() as patched:
        signal_at_step(patched, stop_at)
        assert fit(tiny_objects(tmp_path, *OPTIONS)) == signal.SIGTERM
    assert fit(tiny_objects(tmp_path, *OPTIONS), resume="auto") == 0
    assert_same_run(tmp_path, straight_run)


def test_a_batch_is_learned_by_heart(tmp_path: Path):
    config = tiny_objects(tmp_path, "train.lr=5e-3", "model.hmmn.fine_dropout=[0,0]")
    run = build_run(config, Ranks(0, 1, CPU), tmp_path, resume=None, force=False)
    batch = next(iter(run.loader))
    losses = [train_step(run, [batch])[0] for _ in range(8)]
    assert losses[0] is not None and losses[-1] is not None
    assert losses[-1][0] < 0.8 * losses[0][0]


def train(folder: Path, overrides: tuple[str, ...]) -> None:
    sys.exit(fit(tiny_objects(folder, *overrides), resume="auto"))


@pytest.mark.slow
def test_two_ranks_train_as_one_process_with_twice_the_batch(tmp_path: Path):
    """Also where their clips have different numbers of objects."""
    # SGD: Adam's first step is as long for the rounding of a gradient of 0 as for any other.
    still = (
        "train.epochs=1",
        "data.synthetic.videos=8",
        "model.hmmn.fine_dropout=[0,0]",
        "train.optimizer=sgd",
    )
    assert fit(tiny_objects(tmp_path / "one", *still, "train.batch_size=4")) == 0
    assert run_ranks(train, tmp_path / "two", (*still, "train.batch_size=2")) == [0, 0]
    one, two = (load_state(tmp_path / run / "ckpt" / "last.pt")["training"] for run in ("one", "two"))
    assert one["progress"] == two["progress"] and one["progress"]["step"] == 2
    for number, slot in one["optimizer"]["state"].items():  # sums of the gradients
        other = two["optimizer"]["state"][number]["momentum_buffer"]
        torch.testing.assert_close(slot["momentum_buffer"], other, atol=1e-5, rtol=1e-3)


class Copies(PromptedNet):
    """Finds every object where it was given."""

    traits = Traits(kind="hmmn", prompted=True, reads_flow=False, pad_to=16, short_side=480)

    def step(self, image, state, given=None, *, write=True) -> tuple[Tensor, ObjectState]:
        assert image.shape == (1, 3, *SIZE) and not self.training and not torch.is_grad_enabled()
        self.masks = {**getattr(self, "masks", {}), **(given or {})} if state.frame else dict(given or {})
        objects = torch.stack([mask.float() for mask in self.masks.values()])
        prob = torch.cat([1 - objects.sum(dim=0, keepdim=True), objects])
        return prob, ObjectState(state.frame + 1, groups=(Group(0, tuple(self.masks), {}),))


class Movers:
    """Objects as columns: id -> left edge in each frame, None where it is not there."""

    name = "v"

    def __init__(self, *frames: dict[int, int] | None) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[ObjectFrame]:
        for t, objects in enumerate(self.frames):
            labels = np.zeros(SIZE, np.uint8)
            for number, left in (objects or {}).items():
                labels[:, left : left + 20] = number
            yield ObjectFrame(f"{t}", np.zeros((*SIZE, 3), np.uint8), None if objects is None else labels)


def region(video: Movers, protocol=ALL) -> dict[str, float]:
    scored = TASK.score(Copies().eval(), video, CPU, protocol=protocol, draw=True)
    assert scored is not None and scored.picture is not None and scored.picture.shape == (3, 64, 3 * 96)
    return {name: pytest.approx(scores[0]) for name, scores in scored.entries.items()}


def test_objects_are_scored_after_the_frame_that_gives_them():
    assert region(Movers({7: 0}, {7: 0}, {7: 10})) == {"v/7": (1 + 1 / 3) / 2}
    late = Movers({2: 0}, None, {2: 0, 9: 50}, {2: 20, 9: 50}, {9: 50})
    assert region(late) == {"v/2": 1 / 3, "v/9": 1.0}


def test_validation_counts_the_frames_that_the_benchmark_counts():
    video = Movers({1: 0}, {1: 0}, {1: 40})
    assert region(video, OBJECT_PROTOCOLS["davis17"]) == {"v/1": 1.0}
    assert region(Movers({1: 0}, {1: 10}), OBJECT_PROTOCOLS["davis17"]) == {
        "v/1": 1 / 3
    }  # a short video counts whole


def test_a_video_that_cannot_be_scored_is_an_error():
    with pytest.raises(UserError, match="video v has no mask after that which gives its objects"):
        region(Movers({1: 0}, None))


def test_ramps():
    assert [ramp(1.0, 0.5, p) for p in (0, 0.5, 1, 2)] == [1.0, 0.75, 0.5, 0.5]
    assert [hardest_share([0.2, 0.7, 0.15], p) for p in (0.1, 0.45, 0.7, 1)] == pytest.approx(
        [1, 0.575, 0.15, 0.15]
    )
    assert hardest_share([], 0.5) == 1.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.loss.dice=2", r"train\.loss belongs to kind hmhi"),
        ("infer.image_size=[64,64]", r"infer\.image_size belongs to kind hmhi"),
        ("train.object_loss={cross_entropy: 0, dice: 0}", "nothing to learn from"),
        ("train.object_loss.bootstrap=[0.5,0.2,0.1]", "a point of the run, a later one"),
    ],
)
def test_settings_that_do_not_go_together(override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        tiny_objects(Path(), override)
