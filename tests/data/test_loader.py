import logging
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trees import write_video

from hmhi.config import DataConfig, SyntheticConfig
from hmhi.data.dataset import ClipKey
from hmhi.data.index import DatasetNotFoundError
from hmhi.data.loader import ClipBatches, JoinedClips, build_train_loader, build_val_videos
from hmhi.errors import BadFileError


@pytest.fixture
def tree(tmp_path):
    for number in range(7):
        write_video(tmp_path / "DAVIS-16", f"video{number}", 8)
    return tmp_path


def config(root, **values):
    return DataConfig(
        root=str(root),
        **{"train": ["davis16"], "image_size": [32, 32], "clip_frames": 2, "workers": 0, **values},
    )


def build(root, batch_size=2, rank=0, world_size=1, **values):
    return build_train_loader(config(root, **values), batch_size, seed=3, rank=rank, world_size=world_size)


def assert_same(left, right):
    left, right = list(left), list(right)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a["name"] == b["name"] and a["frames"] == b["frames"]
        for key in ("image", "flow", "mask"):
            assert torch.equal(a[key], b[key])


def test_batches(tree):
    loader = build(tree)
    batches = list(loader)
    assert len(loader) == len(batches) == 3  # 7 videos, the odd one is left out
    assert batches[0]["image"].shape == batches[0]["flow"].shape == (2, 2, 3, 32, 32)
    assert batches[0]["mask"].shape == (2, 2, 1, 32, 32) and batches[0]["image"].dtype == torch.uint8
    assert sorted(batches[0]) == ["flow", "frames", "image", "mask", "name"]
    names = [name for batch in batches for name in batch["name"]]
    assert len(set(names)) == 6 and all(len(stems) == 2 for batch in batches for stems in batch["frames"])


def test_order_and_content_do_not_depend_on_workers(tree):
    single, several = build(tree), build(tree, workers=2)
    for epoch in (0, 1):
        single.set_epoch(epoch)
        several.set_epoch(epoch)
        assert_same(single, several)


def test_epochs_differ_and_repeat(tree):
    loader = build(tree)
    first = list(loader)
    loader.set_epoch(1)
    second = list(loader)
    assert [b["name"] for b in first] != [b["name"] for b in second]
    loader.set_epoch(0)
    assert_same(loader, first)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_the_middle_of_an_epoch(tree, workers):
    whole = build(tree, repeats=2)
    whole.set_epoch(5)
    expected = list(whole)
    resumed = build(tree, repeats=2, workers=workers)
    resumed.set_epoch(5, start_batch=4)
    assert len(resumed) == 7
    assert_same(resumed, expected[4:])
    resumed.set_epoch(5, start_batch=7)
    assert list(resumed) == []
    with pytest.raises(ValueError, match="start_batch 8"):
        resumed.set_epoch(5, start_batch=8)


def test_stopping_early_does_not_disturb_the_next_epoch(tree):
    loader, fresh = build(tree, workers=2), build(tree)
    next(iter(loader))
    loader.set_epoch(2)
    fresh.set_epoch(2)
    assert_same(loader, fresh)


def test_batches_of_several_sizes(tree):
    """One size for each batch, the same on all ranks and after a resume."""
    scales = {"multi_scale": [0.5, 1.0, 1.3], "image_size": [64, 96]}
    ranks = [build(tree, batch_size=1, rank=rank, world_size=2, **scales) for rank in range(2)]
    sizes = []
    for epoch in range(6):
        for each in ranks:
            each.set_epoch(epoch)
        of_ranks = [[tuple(batch["image"].shape[-2:]) for batch in each] for each in ranks]
        assert of_ranks[0] == of_ranks[1]
        ranks[0].set_epoch(epoch, start_batch=1)
        assert [tuple(batch["mask"].shape[-2:]) for batch in ranks[0]] == of_ranks[0][1:]
        sizes += of_ranks[0]
    assert set(sizes) == {(32, 64), (64, 96), (96, 128)}


def keys(samples, batch, rank, world, epoch=0, group=1):
    batches = ClipBatches(samples, batch, 0, rank, world, group)
    batches.epoch = epoch
    return [[key.index for key in part] for part in batches]


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 5))
def test_ranks_share_an_epoch(samples, batch, world, epoch):
    ranks = [keys(samples, batch, rank, world, epoch) for rank in range(world)]
    assert len({len(part) for part in ranks}) == 1  # no rank waits for another
    assert all(len(b) == batch for part in ranks for b in part)
    seen = [index for part in ranks for b in part for index in b]
    if samples >= batch * world:
        assert len(seen) == len(set(seen)) > samples - batch * world  # nothing twice, only the rest left out
    else:
        assert len(ranks[0]) == 1 and set(seen) == set(range(samples))  # padded by repetition


def test_one_times_four_equals_two_times_two():
    alone = keys(40, 4, 0, 1)
    pairs = zip(keys(40, 2, 0, 2), keys(40, 2, 1, 2), strict=True)
    assert alone == [left + right for left, right in pairs]


def test_groups_of_batches_hold_the_same_samples_for_any_number_of_ranks():
    """Twelve samples of 27 in a group, whoever shares them."""
    expected = [set(part) for part in keys(27, 12, 0, 1)]
    for batch, world in ((3, 1), (2, 2), (1, 3)):
        group = 12 // (batch * world)
        ranks = [keys(27, batch, rank, world, group=group) for rank in range(world)]
        assert {len(part) for part in ranks} == {2 * group}
        for number, samples in enumerate(expected):
            mine = slice(number * group, (number + 1) * group)
            assert {index for part in ranks for b in part[mine] for index in b} == samples
    assert len(keys(2, 1, 0, 1, group=4)) == 4  # padded by repetition


def spoil(tree, *names):
    for name in names:
        folder = tree / "DAVIS-16" / "Images" / "train" / name
        for path in folder.iterdir():
            path.write_bytes(b"<html>")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_raises_one_line(tree, workers):
    spoil(tree, "video3")
    with pytest.raises(BadFileError, match=r"davis16/video3: .*\.jpg: not an image") as error:
        for epoch in range(5):
            loader = build(tree, workers=workers)
            loader.set_epoch(epoch)
            list(loader)
    assert "\n" not in str(error.value)


def test_unreadable_samples_are_replaced_and_counted(tree, caplog):
    spoil(tree, "video1", "video5")
    loader = build(tree, on_bad_sample="skip", batch_size=7)
    with caplog.at_level(logging.WARNING):
        (batch,) = list(loader)
    assert batch["image"].shape[0] == 7 and not {"davis16/video1", "davis16/video5"} & set(batch["name"])
    assert loader.skipped == len(caplog.records) >= 2
    assert any("video1" in record.getMessage() for record in caplog.records)
    again = build(tree, on_bad_sample="skip", batch_size=7, workers=2)
    assert_same(again, [batch])


def test_skipping_gives_up_where_nothing_can_be_read(tree):
    spoil(tree, *(f"video{n}" for n in range(7)))
    with pytest.raises(BadFileError, match="21 unreadable samples in a row"):
        list(build(tree, on_bad_sample="skip"))


FAULTY = """
import os, signal, sys, time
import torch
from hmhi.data.loader import JoinedClips, TrainLoader

fault, loading = sys.argv[1], os.getpid()

class Clips:
    def __len__(self):
        return 64
    def __getitem__(self, key):
        if os.getpid() != loading and key.index == 3:
            if fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            if fault == "hangs":
                time.sleep(60)
        part = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
        return {"image": part, "flow": part, "mask": part[:, :1], "name": "x", "frames": ["0"]}

loader = TrainLoader(JoinedClips([Clips()], 0, False), 1, seed=0, workers=3, timeout=3)
for batch in loader:
    if fault == "step":
        raise RuntimeError("CUDA out of memory")
    if fault == "ctrl-c":
        os.kill(os.getpid(), signal.SIGINT)
    if fault == "orphans":
        os.kill(os.getpid(), signal.SIGKILL)
"""

FAULTS = {
    "none": (0, ""), "stopped": (1, "no batch for 3 s"), "step": (1, "RuntimeError: CUDA out of memory"),
}  # fmt: skip
MORE_FAULTS = {
    "killed": (1, r"LoaderError: a data loader process failed \((DataLoader worker|\[Errno 104\])"),
    "hangs": (1, "no batch for 3 s"),
    "ctrl-c": (-signal.SIGINT, "KeyboardInterrupt"), "orphans": (-signal.SIGKILL, ""),
}  # fmt: skip


@pytest.mark.parametrize("faults", [FAULTS, pytest.param(MORE_FAULTS, marks=pytest.mark.slow)])
def test_no_fault_leaves_a_process_waiting(faults):
    """Whatever ends the main process ends its loader processes: only then do the pipes close."""
    running = {
        fault: subprocess.Popen([sys.executable, "-c", FAULTY, fault], stderr=subprocess.PIPE, text=True)
        for fault in faults
    }
    try:
        for fault, (code, message) in faults.items():
            errors = running[fault].communicate(timeout=90)[1]
            assert running[fault].returncode == code, (fault, errors)
            lines = [
                line for line in errors.splitlines() if line.strip() not in ("", "lost sys.stderr")
            ]  # of children
            assert re.search(message, lines[-1] if lines else ""), (fault, errors)
    finally:
        for process in running.values():
            process.kill()


def test_several_sets_are_joined(tree):
    write_video(tree / "FBMS", "cats01", 5, masks=[0, 2, 4])
    values = {
        "train": ["davis16", "fbms", "synthetic"],
        "synthetic": SyntheticConfig(videos=2, size=[32, 32]),
    }
    (batch,) = build(tree, batch_size=10, **values)
    sources = sorted(name.split("/")[0] for name in batch["name"])
    assert sources == ["davis16"] * 7 + ["fbms"] + ["synthetic"] * 2


def test_joined_index_reaches_the_right_part():
    class Part:
        def __init__(self, name, length):
            self.name, self.length = name, length

        def __len__(self):
            return self.length

        def __getitem__(self, key):
            return {"name": (self.name, key.index)}

    joined = JoinedClips([Part("a", 2), Part("b", 3)], seed=0, skip_bad=False)
    names = [joined[ClipKey(0, i)]["name"] for i in range(5)]
    assert names == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2)]


def test_absent_set(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"docs/DATA\.md"):
        build(tmp_path)
    with pytest.raises(DatasetNotFoundError):
        build_val_videos(config(tmp_path), "davis16")


def test_validation_videos(tree):
    write_video(tree / "DAVIS-16", "seen", 3, split="val")
    (video,) = build_val_videos(config(tree), "davis16")
    assert video.name == "seen" and len(list(video)) == 3
    rendered = build_val_videos(
        config(tree, synthetic=SyntheticConfig(val_videos=3, size=[32, 32])), "synthetic"
    )
    assert len({video.name for video in rendered}) == 3


def test_real_validation_set(shared_data):
    assert len(build_val_videos(config(shared_data), "davis16")) == 12


def test_packs_give_the_same_batches_in_any_number_of_processes(tree):
    plain = list(build(tree))
    base = tree / "DAVIS-16"
    for kind in ("Images", "Annotations", "Flows"):
        for folder in sorted((base / kind / "train").iterdir()):
            shutil.make_archive(str(folder), "zip", folder)
            shutil.rmtree(folder)
    assert_same(build(tree), plain)  # opens the zip files in this process
    assert_same(build(tree, workers=2), plain)  # and each loader process opens its own
