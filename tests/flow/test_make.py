import json

import numpy as np
import pytest
from PIL import Image

from hmhi.flow.codec import flow_to_rgb, read_flo
from hmhi.flow.make import FlowSettings, FlowTask, make_flow, plan, shard, write_manifest
from hmhi.media.packs import find_frames
from hmhi.media.pictures import read_rgb


def settings(**changes) -> FlowSettings:
    values = {
        "method": "dis", "weights": None, "weights_sha256": None, "direction": "forward", "last": "repeat",
        "compensation": "none", "file_format": "flo",
    }  # fmt: skip
    return FlowSettings(**values | changes)


def level_difference(frame_a: np.ndarray, frame_b: np.ndarray) -> np.ndarray:
    """Stands in for an estimator: says which two frames it was given (grey levels in tens)."""
    flow = np.zeros((*frame_a.shape[:2], 2), np.float32)
    flow[..., 0], flow[..., 1] = round(frame_a.mean() / 10), round(frame_b.mean() / 10)
    return flow


@pytest.fixture
def frames(tmp_path):
    """Sequences a (3 frames) and deep/b (1 frame); frame i is of grey level 10 i."""
    for name, count in (("a", 3), ("deep/b", 1)):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((12, 16, 3), 10 * i, np.uint8)).save(folder / f"{i:05d}.png")
    return tmp_path / "in"


def plan_of(root, output, chosen) -> list[FlowTask]:
    return plan(root, find_frames(root), output, chosen)


def run(frames, output, chosen, estimator=level_difference) -> int:
    return make_flow(plan_of(frames, output, chosen), chosen, estimator, read_rgb, done=lambda n: None)


def pairs(folder) -> dict[str, tuple[int, int]]:
    return {path.stem: tuple(read_flo(path)[0, 0].astype(int)) for path in sorted(folder.glob("*.flo"))}


@pytest.mark.parametrize(
    ("direction", "last", "expected"),
    [
        ("forward", "repeat", {"00000": (0, 1), "00001": (1, 2), "00002": (1, 2)}),
        ("forward", "backward", {"00000": (0, 1), "00001": (1, 2), "00002": (2, 1)}),
        ("forward", "none", {"00000": (0, 1), "00001": (1, 2)}),
        ("backward", "repeat", {"00000": (1, 0), "00001": (1, 0), "00002": (2, 1)}),
        ("backward", "backward", {"00000": (0, 1), "00001": (1, 0), "00002": (2, 1)}),
        ("backward", "none", {"00001": (1, 0), "00002": (2, 1)}),
    ],
)
def test_direction_and_last_frame(frames, tmp_path, direction, last, expected):
    run(frames, tmp_path / "out", settings(direction=direction, last=last))
    assert pairs(tmp_path / "out" / "a") == expected
    alone = pairs(tmp_path / "out" / "deep" / "b")
    assert alone == ({} if last == "none" else {"00000": (0, 0)})


def test_both_directions_are_joined(frames, tmp_path):
    chosen = settings(direction="both", last="backward", compensation="median")
    tasks = plan_of(frames, tmp_path / "out", chosen)
    three = [[path and path.stem for path in (task.previous, task.source, task.target)] for task in tasks]
    assert three == [
        [None, "00000", "00001"], ["00000", "00001", "00002"], ["00001", "00002", None], [None, "00000", None]
    ]  # fmt: skip

    def towards(frame_a, frame_b):
        """Still but for two columns: one moves towards both neighbours, one towards the next only."""
        flow = np.zeros((12, 16, 2), np.float32)
        forward = frame_b.mean() > frame_a.mean()
        flow[:, 3, 0] = 5 if forward else -5
        flow[:, 8, 0] = 7 if forward else 0
        return flow

    for batch_size in (1, 8):
        estimator = InBatches()
        estimator.of = towards
        output = tmp_path / f"out{batch_size}"
        tasks = plan_of(frames, output, chosen)
        assert make_flow(tasks, chosen, estimator, read_rgb, lambda n: None, batch_size) == 4
        assert estimator.sizes == ([4] if batch_size == 8 else [1, 2, 1])
        x = [read_flo(output / "a" / f"0000{t}.flo")[6, :, 0] for t in range(3)]
        assert [row[3] for row in x] == [5, 5, 5]
        assert [row[8] for row in x] == [7, 0, 0]
        assert not read_flo(output / "deep" / "b" / "00000.flo").any()


def test_both_directions_need_a_compensation(frames, tmp_path):
    with pytest.raises(ValueError, match=r"--direction both .* add --compensation"):
        plan_of(frames, tmp_path / "out", settings(direction="both"))


class InBatches:
    """`level_difference` that notes how many pairs it was given at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.of = level_difference

    def __call__(self, frame_a, frame_b):
        self.sizes.append(1)
        return self.of(frame_a, frame_b)

    def batch(self, frames_a, frames_b):
        self.sizes.append(len(frames_a))
        return np.stack([self.of(a, b) for a, b in zip(frames_a, frames_b, strict=True)])


def test_batches_make_the_same_maps(frames, tmp_path):
    for t in range(2):  # of another size, so not in one batch with the others
        (frames / "c").mkdir(exist_ok=True)
        Image.fromarray(np.full((10, 16, 3), 70 + 10 * t, np.uint8)).save(frames / "c" / f"{t}.png")
    estimator, done = InBatches(), []
    tasks = plan_of(frames, tmp_path / "out", settings(last="backward"))
    (tmp_path / "out" / "a").mkdir(parents=True)
    made = make_flow(tasks, settings(last="backward"), estimator, read_rgb, done.append, batch_size=8)
    assert (made, sum(done)) == (6, 6)
    assert estimator.sizes == [3, 2]  # a, then c; b has one frame, which does not move
    assert pairs(tmp_path / "out" / "a") == {"00000": (0, 1), "00001": (1, 2), "00002": (2, 1)}
    assert pairs(tmp_path / "out" / "c") == {"0": (7, 8), "1": (8, 7)}
    assert pairs(tmp_path / "out" / "deep" / "b") == {"00000": (0, 0)}


def test_a_second_run_makes_only_what_is_missing(frames, tmp_path):
    calls = []

    def counting(frame_a, frame_b):
        calls.append(1)
        return level_difference(frame_a, frame_b)

    output = tmp_path / "out"
    assert run(frames, output, settings(), counting) == 4
    (output / "a" / "00001.flo").unlink()
    calls.clear()
    assert run(frames, output, settings(), counting) == 1
    assert len(calls) == 1
    assert len(pairs(output / "a")) == 3


@pytest.mark.parametrize("file_format", ["png", "jpg"])
def test_colour_maps(frames, tmp_path, file_format):
    def diagonal(frame_a, frame_b):
        y, x = np.mgrid[:12, :16].astype(np.float32)
        return np.stack([x, y], axis=2)

    run(frames, tmp_path / "out", settings(file_format=file_format), diagonal)
    stored = np.asarray(Image.open(tmp_path / "out" / "a" / f"00000.{file_format}")).astype(int)
    difference = np.abs(stored - flow_to_rgb(diagonal(None, None)))
    assert difference.max() == 0 if file_format == "png" else difference.mean() < 6


def test_shards_cover_everything_once(frames, tmp_path):
    tasks = plan_of(frames, tmp_path / "out", settings())
    for count in (1, 2, 3, 7):
        parts = [shard(tasks, rank, count) for rank in range(count)]
        assert [task for part in parts for task in part] == tasks


def test_manifest_says_what_the_maps_are(tmp_path):
    write_manifest(tmp_path, settings(weights="raft.pth", weights_sha256="ab", file_format="png"))
    found = json.loads((tmp_path / "manifest.json").read_text())
    assert found["weights_sha256"] == "ab"
    assert found["direction"] == "forward"
    assert found["last"] == "repeat"
    assert "largest magnitude" in found["normalisation"]


def test_other_settings_do_not_mix_in_one_folder(tmp_path):
    write_manifest(tmp_path, settings())
    write_manifest(tmp_path, settings())
    with pytest.raises(ValueError, match="direction 'forward' \\(now 'backward'\\)"):
        write_manifest(tmp_path, settings(direction="backward"))
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        write_manifest(tmp_path, settings())


def test_problems_name_the_file(frames, tmp_path):
    with pytest.raises(FileNotFoundError, match="no frames"):
        plan_of(tmp_path / "nowhere", tmp_path / "out", settings())
    with pytest.raises(ValueError, match="would pass for frames"):
        plan_of(frames, frames / "flow", settings())
    Image.new("RGB", (9, 12)).save(frames / "a" / "00001.png")
    with pytest.raises(ValueError, match=r"00000\.png is 16 x 12 but 00001\.png is 9 x 12"):
        run(frames, tmp_path / "out", settings())
    (frames / "a" / "00001.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    with pytest.raises(ValueError, match=r"00001\.png: not an image"):
        run(frames, tmp_path / "out", settings())
    Image.new("RGB", (16, 12)).save(frames / "a" / "00002.jpg")
    with pytest.raises(ValueError, match="more than one image for frame 00002"):
        plan_of(frames, tmp_path / "out", settings())


def test_linked_sequences_are_followed(frames, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "clip").symlink_to(
        next(path for path in frames.rglob("*.png")).parent, target_is_directory=True
    )
    assert run(linked, tmp_path / "of links", settings()) > 0
    assert (tmp_path / "of links" / "clip").is_dir()
