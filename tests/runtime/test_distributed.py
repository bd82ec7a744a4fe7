"""Two gloo processes on the CPU: the same numbers, one writer, and no rank left behind."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import assert_same_run, run_ranks, signal_at_step, spoil, tiny_config

from hmhi.models.weights import load_state
from hmhi.runtime import distributed
from hmhi.runtime.distributed import process_group
from hmhi.training.train import TrainingError, fit

CPU = torch.device("cpu")
STILL = ("model.dropout=0", "model.drop_path=0", "train.epochs=1")  # no draws that depend on the rank


def rank() -> int:
    return int(os.environ["RANK"])


def train(folder: Path, overrides: tuple[str, ...]) -> None:
    sys.exit(fit(tiny_config(folder, *overrides), resume="auto"))


def use_helpers(folder: Path) -> None:
    with process_group() as ranks:
        found = [
            ranks.is_main,
            distributed.gather("ab"[ranks.rank]),
            distributed.all_reduce([1.0 + ranks.rank, 5.0], "mean", ranks.device),
            distributed.all_reduce([float(ranks.rank), 0.0], "max", ranks.device),
        ]
    (folder / str(rank())).write_text(repr(found))


def test_helpers_over_two_ranks(tmp_path: Path):
    assert run_ranks(use_helpers, tmp_path) == [0, 0]
    shared = "['a', 'b'], [1.5, 5.0], [1.0, 0.0]]"
    assert (tmp_path / "0").read_text() == f"[True, {shared}"
    assert (tmp_path / "1").read_text() == f"[False, {shared}"


def test_helpers_in_one_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RANK", raising=False)
    with process_group() as ranks:
        assert (ranks.rank, ranks.world_size, ranks.is_main) == (0, 1, True)
        assert distributed.gather(3) == [3]
        assert distributed.all_reduce([2.0], "mean", CPU) == [2.0]
        model = torch.nn.Linear(1, 1)
        assert distributed.parallel(model, ranks) is model


def test_two_ranks_train_as_one_process_with_twice_the_batch(tmp_path: Path):
    assert fit(tiny_config(tmp_path / "one", *STILL, "train.batch_size=4")) == 0
    assert run_ranks(train, tmp_path / "two", (*STILL, "train.batch_size=2")) == [0, 0]
    one, two = (load_state(tmp_path / run / "ckpt" / "last.pt")["training"] for run in ("one", "two"))
    assert one["progress"] == two["progress"] and one["progress"]["step"] == 2
    slots = two["optimizer"]["state"]
    for number, slot in one["optimizer"]["state"].items():  # Adam's averages of the gradients
        torch.testing.assert_close(slot["exp_avg"], slots[number]["exp_avg"], atol=1e-5, rtol=1e-2)


def train_with_a_bad_clip_on_rank_1(folder: Path) -> None:
    opened = []
    if rank() == 1:

        def note(event: str, args: tuple[Any, ...]) -> None:
            if (
                event == "open"
                and str(args[0]).startswith(str(folder))
                and args[2] & (os.O_WRONLY | os.O_RDWR)
            ):
                opened.append(args[0])

        sys.addaudithook(note)
        spoil(pytest.MonkeyPatch(), {1})
    code = fit(
        tiny_config(folder, *STILL, "train.batch_size=1", "data.synthetic.videos=4", "train.val_every=1")
    )
    sys.exit(code or len(opened))


def test_all_ranks_skip_what_is_bad_on_one_and_only_rank_0_writes(tmp_path: Path):
    assert run_ranks(train_with_a_bad_clip_on_rank_1, tmp_path) == [0, 0]
    training = load_state(tmp_path / "ckpt" / "last.pt")["training"]
    assert training["progress"]["step"] == 2
    assert all(slot["step"] == 1 for slot in training["optimizer"]["state"].values())
    text = (tmp_path / "train.log").read_text()
    assert "step 0 skipped on all ranks, not finite: rank 1: loss inf" in text
    assert "rank 0: loss" not in text  # its gradient is bad too, but only through rank 1


def train_until_rank_1_hangs(folder: Path) -> None:
    if rank() == 1:
        signal_at_step(pytest.MonkeyPatch(), 2, signal.SIGSTOP)
    try:
        train(folder, ("train.batch_size=1", "train.timeout=0.05"))
    except TrainingError as error:
        (folder / "error").write_text(str(error))
        raise


@pytest.mark.slow
def test_a_hung_rank_is_not_waited_for_for_ever(tmp_path: Path):
    with pytest.raises(AssertionError, match="1 of 2 ranks hung"):  # rank 0 gave up, rank 1 is still stopped
        run_ranks(train_until_rank_1_hangs, tmp_path, timeout=30)
    assert "no answer from another process" in (tmp_path / "error").read_text()


def train_until_rank_1_is_told_to_stop(folder: Path, overrides: tuple[str, ...]) -> None:
    if rank() == 1:
        signal_at_step(pytest.MonkeyPatch(), 2)
    train(folder, overrides)


@pytest.mark.slow
def test_signal_to_one_rank_stops_all_at_the_same_step_and_resume_is_exact(tmp_path: Path):
    overrides = ("train.batch_size=1",)
    assert run_ranks(train, tmp_path / "straight", overrides) == [0, 0]
    stopped = run_ranks(train_until_rank_1_is_told_to_stop, tmp_path / "stopped", overrides)
    assert stopped == [signal.SIGTERM, signal.SIGTERM]
    assert load_state(tmp_path / "stopped" / "ckpt" / "last.pt")["training"]["progress"]["step"] == 2
    assert run_ranks(train, tmp_path / "stopped", overrides) == [0, 0]
    assert_same_run(tmp_path / "stopped", tmp_path / "straight")


def train_until_rank_1_dies(folder: Path, number: int) -> None:
    if rank() == 1:
        signal_at_step(pytest.MonkeyPatch(), 2, number)
    train(folder, ("train.batch_size=1",))


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_and_the_run_continues(tmp_path: Path):
    overrides = ("train.batch_size=1", "train.epochs=1")
    assert run_ranks(train, tmp_path / "killed", overrides) == [0, 0]
    before = time.monotonic()
    codes = run_ranks(train_until_rank_1_dies, tmp_path / "killed", signal.SIGKILL, timeout=60)
    assert time.monotonic() - before < 60
    assert codes[0] != 0 and codes[1] == -signal.SIGKILL
    assert run_ranks(train, tmp_path / "killed", ("train.batch_size=1",)) == [0, 0]
    assert run_ranks(train, tmp_path / "straight", ("train.batch_size=1",)) == [0, 0]
    assert_same_run(tmp_path / "killed", tmp_path / "straight")
