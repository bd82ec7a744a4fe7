"""Validation: which frames count, what is averaged, and that videos stream."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import run_ranks
from torch import Tensor, nn

from hmhi.config import TrainConfig
from hmhi.data.dataset import FrameSample
from hmhi.evaluation.protocol import MASK_PROTOCOLS, Protocol
from hmhi.runtime.distributed import Ranks, process_group
from hmhi.training.tasks import AHEAD, UnpromptedTask
from hmhi.training.validate import Validation, protocol_of, validate

CPU = torch.device("cpu")
TASK = UnpromptedTask(TrainConfig())
DAVIS = MASK_PROTOCOLS["davis16"]
ALONE = Ranks(0, 1, CPU)
SIZE = (60, 100)  # of the source; the network sees 32 x 64


class LeftHalf(nn.Module):
    """Says "left half", and counts frames in its memory."""

    def encode(self, image: Tensor, flow: Tensor) -> dict[int, Tensor]:
        assert image.shape == flow.shape == (1, 3, 32, 64) and image.dtype == torch.float32
        assert not self.training and not torch.is_grad_enabled()
        return {1: image}

    def advance(
        self, features: dict[int, Tensor], size: tuple[int, int], memory: int | None
    ) -> tuple[Tensor, int]:
        assert size == (32, 64)
        logits = torch.full((1, 1, 32, 64), -9.0)
        logits[..., :32] = 9.0
        return logits, (memory or 0) + 1


class FakeVideo:
    """Frames whose truth is the left part of the given width (None: no mask)."""

    def __init__(self, name: str, widths: list[int | None]):
        self.name = name
        self.widths = widths
        self.yielded = 0

    def __iter__(self) -> Iterator[FrameSample]:
        for t, width in enumerate(self.widths):
            mask = None
            if width is not None:
                mask = np.zeros(SIZE, np.uint8)
                mask[:, :width] = 1
            self.yielded += 1
            picture = torch.full((3, 32, 64), t, dtype=torch.uint8)
            yield FrameSample(f"{t:05d}", picture, picture, mask, SIZE)


def region_of(widths: list[int | None], protocol: Protocol) -> float:
    scored = TASK.score(LeftHalf().eval(), FakeVideo("v", widths), CPU, protocol=protocol)
    assert scored is not None and list(scored.entries) == ["v"]
    return scored.entries["v"][0]


def test_scores_are_those_of_the_source_resolution():
    scored = TASK.score(LeftHalf().eval(), FakeVideo("v", [50, 50, 50]), CPU, protocol=DAVIS)
    assert scored is not None
    assert (dict(scored.entries), scored.picture) == ({"v": (1.0, 1.0)}, None)


@pytest.mark.parametrize(
    ("widths", "dataset", "expected"),
    [
        ([0, 25, 50, 100, 0], "davis16", (25 / 50 + 1 + 50 / 100) / 3),  # first and last frame do not count
        ([25, 50], "davis16", (25 / 50 + 1) / 2),  # nothing else is there, so they count
        ([25], "davis16", 25 / 50),
        ([25, None, 50, None, None, 100], "fbms", (25 / 50 + 1 + 50 / 100) / 3),  # every annotated frame
        ([25, 50, 100], "sample", (25 / 50 + 1 + 50 / 100) / 3),
        ([None, 0, 25, None, 0, None], "davsod", 25 / 50),  # ends are those of the annotated frames
        ([25, 50, 50], "ytvos", (25 / 50 + 1 + 1) / 3),  # no benchmark
    ],
)
def test_which_frames_count(widths: list[int | None], dataset: str, expected: float):
    assert region_of(widths, protocol_of(dataset)) == pytest.approx(expected)


def test_mean_is_over_videos_not_frames():
    videos = [FakeVideo("long", [50] * 8), FakeVideo("short", [25] * 3)]
    result = validate(TASK, LeftHalf(), videos, protocol=DAVIS, ranks=ALONE)
    assert result is not None
    assert list(result.entries) == ["long", "short"]
    assert result.mean["J"] == pytest.approx((1 + 0.5) / 2)
    assert result.mean["JF"] == pytest.approx((result.mean["J"] + result.mean["F"]) / 2)


def test_video_without_masks_is_named():
    with pytest.raises(ValueError, match="video cows has no frame with a mask"):
        validate(TASK, LeftHalf(), [FakeVideo("cows", [None, None])], protocol=DAVIS, ranks=ALONE)


@pytest.mark.parametrize("training", [True, False])
def test_mode_of_the_model_is_left_as_it_was(training: bool):
    model = LeftHalf().train(training)
    validate(TASK, model, [FakeVideo("v", [50])], protocol=DAVIS, ranks=ALONE)
    assert model.training is training


def test_stop_ends_the_streaming_at_once():
    video = FakeVideo("v", [50] * 100)
    stopped = lambda: video.yielded >= 2  # noqa: E731
    assert validate(TASK, LeftHalf(), [video], protocol=DAVIS, ranks=ALONE, stopped=stopped) is None
    assert video.yielded <= 2 + AHEAD + 1


def test_pictures_show_image_flow_truth_and_prediction():
    result = validate(
        TASK,
        LeftHalf(),
        [FakeVideo(name, [50] * 20) for name in "abc"],
        protocol=DAVIS,
        ranks=ALONE,
        pictures=2,
    )
    assert result is not None and list(result.pictures) == ["a", "b"]
    picture = result.pictures["a"]
    assert picture.shape == (3, 32, 4 * 64) and picture.dtype == torch.uint8
    image, flow, truth, prediction = picture.split(64, dim=2)
    assert (image == 8).all() and (flow == 8).all()  # the ninth frame
    assert (truth[:, :, :32] == 255).all() and (truth[:, :, 32:] == 0).all()
    assert (prediction[:, :, :32] == 254).all() and (prediction[:, :, 32:] == 0).all()


def validate_three(folder: Path) -> None:
    with process_group() as ranks:
        videos = [FakeVideo(name, [width] * 3) for name, width in (("a", 50), ("b", 25), ("c", 100))]
        result = validate(TASK, LeftHalf(), videos, protocol=DAVIS, ranks=ranks)
        seen = [video.name for video in videos if video.yielded]
        (folder / str(ranks.rank)).write_text(f"{seen} {result.mean['J']:.6f} {list(result.entries)}")


def test_ranks_share_the_videos_and_know_all_scores(tmp_path: Path):
    assert run_ranks(validate_three, tmp_path) == [0, 0]
    assert (tmp_path / "0").read_text() == f"['a', 'c'] {2 / 3:.6f} ['a', 'b', 'c']"
    assert (tmp_path / "1").read_text() == f"['b'] {2 / 3:.6f} ['a', 'b', 'c']"


def test_mean_of_one_video():
    assert Validation({"v": (0.5, 0.25)}).mean == {"J": 0.5, "F": 0.25, "JF": 0.375}
