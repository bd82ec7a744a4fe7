"""Checkpoints: atomic, safe to read, and refusing what is another run."""

import copy
import json
import logging
import os
import pickle
import random
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hmhi.config import Config, ConfigError, config_from_dict
from hmhi.models.key_maps import CheckpointError
from hmhi.models.weights import load_state
from hmhi.runtime.distributed import Ranks
from hmhi.training import checkpoint
from hmhi.training.checkpoint import Progress, TrainState
from hmhi.training.optim import build_optimizer

CPU = torch.device("cpu")


def make_state(
    config: Config | None = None, ema: bool = False, world_size: int = 1, seed: int = 0
) -> TrainState:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 1))
    return TrainState(
        config=config or Config(),
        ranks=Ranks(0, world_size, CPU),
        environment={"git": "abc"},
        flow={"ytvos": {"method": "raft", "direction": "forward"}},
        model=model,
        optimizer=build_optimizer(model, (config or Config()).train),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        ema=AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)) if ema else None,
        progress=Progress(),
    )


def train(state: TrainState, steps: int) -> None:
    for _ in range(steps):
        loss = state.model(torch.randn(8, 4)).square().mean()  # draws dropout and data from torch's generator
        loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        if state.ema is not None:
            state.ema.update_parameters(state.model)
        state.progress.step += 1


def tensors(state: TrainState) -> list[torch.Tensor]:
    found = list(state.scored_model.state_dict().values()) + list(state.model.state_dict().values())
    return found + [v for slot in state.optimizer.state.values() for v in slot.values()]


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("before", [0, 3])
def test_restored_state_continues_bit_for_bit(tmp_path: Path, ema: bool, before: int):
    straight = make_state(ema=ema)
    train(straight, before)
    checkpoint.save(checkpoint.training_dict(straight), tmp_path / "last.pt")
    train(straight, 3)

    resumed = make_state(ema=ema, seed=99)
    checkpoint.restore(resumed, load_state(tmp_path / "last.pt"), tmp_path / "last.pt")
    train(resumed, 3)
    assert resumed.progress == straight.progress
    assert all(torch.equal(a, b) for a, b in zip(tensors(resumed), tensors(straight), strict=True))


def test_file_is_safe_and_holds_what_inference_needs(tmp_path: Path):
    state = make_state(ema=True)
    train(state, 2)
    checkpoint.save(checkpoint.training_dict(state), tmp_path / "last.pt")
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert saved["format"] == "hmhi-1"
    assert config_from_dict(saved["config"]) == Config()
    assert saved["environment"] == {"git": "abc"}
    assert saved["flow"]["ytvos"]["method"] == "raft"
    assert torch.equal(saved["model"]["0.weight"], state.ema.module[0].weight)
    assert not torch.equal(saved["model"]["0.weight"], state.model[0].weight)


class ExplodesWhenSaved:
    def __reduce__(self):
        raise RuntimeError("crash inside save")


def test_crash_inside_save_leaves_the_old_file_alone(tmp_path: Path):
    checkpoint.save({"model": {}}, tmp_path / "last.pt")
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(OSError, match="cannot write checkpoint"):
        checkpoint.save({"bad": ExplodesWhenSaved()}, tmp_path / "last.pt")
    assert (tmp_path / "last.pt").read_bytes() == before
    assert os.listdir(tmp_path) == ["last.pt"]


def test_failing_rename_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint.save({"model": {}}, tmp_path / "last.pt")
    before = (tmp_path / "last.pt").read_bytes()

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        checkpoint.save({"model": {"x": torch.ones(3)}}, tmp_path / "last.pt")
    assert (tmp_path / "last.pt").read_bytes() == before
    assert os.listdir(tmp_path) == ["last.pt"]


def content(step: int, epoch: int = 0) -> dict[str, Any]:
    """As much of a checkpoint as the choice between several needs."""
    return {"format": "hmhi-1", "training": {"progress": {"step": step, "epoch": epoch}}}


def step_of(saved: dict[str, Any]) -> int:
    return int(saved["training"]["progress"]["step"])


def in_a_child(action: Callable[[], None]) -> int:
    """Run `action` in a forked process; its exit code, negative where a signal ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(("at", "step"), [(1, 2), (2, 3), (3, 3)])
def test_kill_9_around_each_rename_loses_no_complete_file(tmp_path: Path, at: int, step: int):
    def save_and_die() -> None:
        checkpoint.save_last(content(1), tmp_path)
        checkpoint.save_last(content(2), tmp_path)
        replace, calls = os.replace, []

        def killed(source: Path, target: Path) -> None:
            calls.append(source)
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = killed
        checkpoint.save_last(content(3), tmp_path)

    assert in_a_child(save_and_die) == -signal.SIGKILL
    found = checkpoint.load_latest(tmp_path)
    assert found is not None and step_of(found[1]) == step
    checkpoint.save_last(content(4), tmp_path)  # and the next process carries on
    found = checkpoint.load_latest(tmp_path)
    assert found is not None and found[0].name == "last.pt" and step_of(found[1]) == 4
    assert step_of(load_state(tmp_path / "previous.pt")) in (2, 3)


def test_the_furthest_checkpoint_is_the_newest_one_whatever_the_clock_says(tmp_path: Path):
    """cp -r, rsync and object stores give files other times, or the same to all."""
    for number, (name, step, epoch) in enumerate(
        [("last.pt", 8, 2), ("previous.pt", 8, 1), ("epoch_0001.pt", 4, 1), ("epoch_0002.pt", 8, 2)]
    ):
        checkpoint.save(content(step, epoch), tmp_path / name)
        os.utime(tmp_path / name, (1000 + number, 1000 + number))
    found = checkpoint.load_latest(tmp_path)
    assert found is not None and found[0].name == "last.pt"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_truncated_last_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    checkpoint.save_last(content(1), tmp_path)
    checkpoint.save_last(content(2), tmp_path)
    truncate(tmp_path / "last.pt")
    with caplog.at_level(logging.WARNING):
        found = checkpoint.load_latest(tmp_path)
    assert found is not None and found[0].name == "previous.pt" and step_of(found[1]) == 1
    assert "last.pt" in caplog.text


def flipped(data: bytes) -> bytes:
    """The same with one bit of a weight changed, which torch does not notice."""
    place = data.index(WEIGHTS.numpy().tobytes()) + 50
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


WEIGHTS = torch.arange(100.0)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_whatever_is_in_a_file_the_next_one_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    checkpoint.save({**content(1), "model": WEIGHTS}, tmp_path / "previous.pt")
    good = (tmp_path / "previous.pt").read_bytes()
    draw = random.Random(0)
    texts = [bytes(draw.choices(b"abc\n(]}.0c\x80\x02", k=draw.choice([10, 100]))) for _ in range(60)]
    cuts = [good[:n] for n in (0, 2, 100, len(good) // 2, len(good) - 1)]
    for damaged in [flipped(good), b"<html>404</html>", *cuts, *texts, draw.randbytes(999)]:
        (tmp_path / "last.pt").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"last\.pt"):
            load_state(tmp_path / "last.pt")
        found = checkpoint.load_latest(tmp_path)
        assert found is not None and found[0].name == "previous.pt" and "last.pt" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("damaged", [b"", b"<html>404</html>"])
def test_nothing_readable_is_an_error_and_not_a_new_run(tmp_path: Path, damaged: bytes):
    (tmp_path / "last.pt").write_bytes(damaged)
    with pytest.raises(CheckpointError, match="none of the checkpoints"):
        checkpoint.load_latest(tmp_path)


def test_no_checkpoint_yet(tmp_path: Path):
    assert checkpoint.load_latest(tmp_path / "absent") is None
    (tmp_path / "last.pt.tmp").write_bytes(b"half")
    assert checkpoint.load_latest(tmp_path) is None


class Attack:
    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


def test_pickle_attack_is_not_executed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    canary = tmp_path / "canary"
    checkpoint.save_last(content(1), tmp_path)
    checkpoint.save_last(content(2), tmp_path)
    (tmp_path / "last.pt").write_bytes(pickle.dumps(Attack(canary), protocol=2))
    torch.save({"model": Attack(canary)}, tmp_path / "attack.pt")
    with pytest.raises(CheckpointError) as error:
        load_state(tmp_path / "attack.pt")
    assert "weights_only" not in str(error.value)
    found = checkpoint.load_latest(tmp_path)
    assert found is not None and step_of(found[1]) == 1
    assert not canary.exists()


def test_full_disk_is_named_and_the_old_checkpoint_survives(tmp_path: Path):
    checkpoint.save({"model": {"x": torch.zeros(10)}}, tmp_path / "last.pt")

    def fill_the_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            checkpoint.save({"model": {"x": torch.zeros(1_000_000)}}, tmp_path / "last.pt")
        except OSError as error:
            (tmp_path / "message").write_text(str(error))

    assert in_a_child(fill_the_disk) == 0
    message = (tmp_path / "message").read_text()
    assert "cannot write checkpoint" in message and "space on the disk" in message
    assert load_state(tmp_path / "last.pt")["model"]["x"].shape == (10,)
    assert sorted(os.listdir(tmp_path)) == ["last.pt", "message"]


def test_another_config_is_refused_with_what_changed(tmp_path: Path):
    saved = checkpoint.training_dict(make_state())
    other = config_from_dict({"train": {"lr": 1e-4, "log_every": 5}, "data": {"root": "/sets"}})
    with pytest.raises(ConfigError) as error:
        checkpoint.restore(make_state(other), saved, tmp_path / "last.pt")
    assert "train.lr: 6e-05 in the checkpoint, 0.0001 now" in str(error.value)
    assert "log_every" not in str(error.value) and "data.root" not in str(error.value)


def test_another_number_of_processes_is_refused(tmp_path: Path):
    saved = checkpoint.training_dict(make_state())
    with pytest.raises(ConfigError, match="number of processes: 1 in the checkpoint, 2 now"):
        checkpoint.restore(make_state(world_size=2), saved, tmp_path / "last.pt")


def test_more_epochs_are_the_same_run_only_while_the_rate_is_constant():
    longer = {"train": {"epochs": 300}}
    saved = checkpoint.training_dict(make_state())
    assert checkpoint.run_differences(make_state(config_from_dict(longer)), saved) == []
    cosine = {"train": {"schedule": "cosine"}}
    saved = checkpoint.training_dict(make_state(config_from_dict(cosine)))
    state = make_state(config_from_dict({"train": {"schedule": "cosine", "epochs": 300}}))
    assert checkpoint.run_differences(state, saved) == ["train.epochs: 150 in the checkpoint, 300 now"]


def test_force_keeps_the_new_settings_and_converts_the_position(tmp_path: Path):
    old = make_state(config_from_dict({"train": {"batch_size": 4, "weight_decay": 0.5}}))
    train(old, 1)
    old.progress.batch = 6
    saved = copy.deepcopy(checkpoint.training_dict(old))
    new = make_state(config_from_dict({"train": {"batch_size": 3}}), world_size=2)
    new.optimizer.param_groups[0]["weight_decay"] = 0.25
    checkpoint.restore(new, saved, tmp_path / "last.pt", force=True)
    assert new.progress.batch == 4  # 6 batches of 4 clips are 4 batches of 2 x 3
    assert new.optimizer.param_groups[0]["weight_decay"] == 0.25
    assert torch.equal(new.model[0].weight, old.model[0].weight)


@pytest.mark.parametrize(
    ("changed", "dropped"),
    [
        ({"precision": "fp16"}, "the loss scale starts anew: precision was fp32, and is fp16"),
        ({"optimizer": "sgd"}, "the averages of adamw are dropped: this run uses sgd"),
        ({"decay_norms": False}, None),
    ],
)
def test_force_restores_what_fits_and_says_what_it_drops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: dict[str, Any], dropped: str | None
):
    old = make_state()
    train(old, 3)
    new = make_state(config_from_dict({"train": changed}), seed=1)
    new.scaler = torch.amp.GradScaler("cpu", enabled="precision" in changed)
    checkpoint.restore(new, checkpoint.training_dict(old), tmp_path / "last.pt", force=True)
    assert [r.getMessage() for r in caplog.records] == ([dropped] if dropped else [])
    train(new, 1)  # what was restored fits together
    if "optimizer" not in changed:
        assert all(slot["step"] == 4 for slot in new.optimizer.state.values())


def test_a_run_of_the_first_format_continues(tmp_path: Path, repository: Path):
    """With what the version that introduced the format wrote beside tensors."""
    stored = json.loads((repository / "tests" / "formats" / "hmhi-1.json").read_text())
    saved = copy.deepcopy(checkpoint.training_dict(make_state()))
    saved["training"].update(stored["training"])
    saved.update(format=stored["format"], config=stored["config"])
    state = make_state(seed=1)
    checkpoint.restore(state, saved, tmp_path / "last.pt")
    assert state.progress == Progress(epoch=1, batch=6, step=6, updates=6)


@pytest.mark.parametrize("value", [None, "x", [1], {"a": None}, "nothing"])
def test_whatever_is_of_a_wrong_kind_makes_a_damaged_file(tmp_path: Path, value: Any):
    """No key that the resumed run reads is used unchecked."""
    state = make_state()
    train(state, 1)
    good = checkpoint.training_dict(state)
    keys = [
        ("config",), ("model",), ("model", "0.weight"), ("training",), ("training", "optimizer", "state"),
        ("training", "optimizer", "state", 0), ("training", "random", 0, "cpu"),
        *(("training", key) for key in good["training"]),
        *(("training", "progress", key) for key in ("epoch", "batch", "step", "bad_steps")),
    ]  # fmt: skip
    for key in keys:
        if (key[-1], value) == ("raw_model", None) or (key[-1] in ("scaler", 0) and isinstance(value, dict)):
            continue  # no fault, or one that shows only when the optimiser reads it
        if (key[-1], value) == (0, "nothing"):
            continue  # a parameter without averages
        saved = copy.deepcopy(good)
        place: Any = saved
        for name in key[:-1]:
            place = place[name]
        if value == "nothing":
            del place[key[-1]]
        else:
            place[key[-1]] = value
        with pytest.raises((CheckpointError, ConfigError)):
            checkpoint.restore(make_state(), saved, tmp_path / "last.pt")


def test_weights_without_training_state_cannot_be_resumed(tmp_path: Path):
    saved = checkpoint.weights_dict(make_state())
    with pytest.raises(CheckpointError, match="--load-from"):
        checkpoint.restore(make_state(), saved, tmp_path / "best.pt")


def test_checkpoint_of_another_model_is_refused(tmp_path: Path):
    saved = copy.deepcopy(checkpoint.training_dict(make_state()))
    saved["model"]["extra"] = saved["model"].pop("0.bias")
    with pytest.raises(CheckpointError, match=r"1 missing .*1 unexpected"):
        checkpoint.restore(make_state(), saved, tmp_path / "last.pt")
