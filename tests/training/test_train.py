"""The loop: what it writes, what it refuses, and that stopping it changes nothing."""

import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import assert_same_run, fingerprint, records, signal_at_step, spoil, tiny_config

import hmhi.training.train as engine
from hmhi.config import ConfigError, load_config
from hmhi.flow.make import FlowSettings, write_manifest
from hmhi.flow.provenance import MANIFEST
from hmhi.models.weights import load_model, load_state
from hmhi.runtime.distributed import Ranks
from hmhi.runtime.lock import InUseError, hold_folder
from hmhi.synthetic import write_dataset
from hmhi.training import checkpoint
from hmhi.training.run import build_run
from hmhi.training.train import TrainingError, fit, train_step
from hmhi.training.validate import Validation

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever else runs on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_run_folder_tells_the_whole_story(tmp_path: Path):
    config = tiny_config(tmp_path / "a run", "train.val_every=1", "train.keep_every=1")
    assert fit(config) == 0
    folder = tmp_path / "a run"
    assert load_config(folder / "config.yaml") == config
    assert json.loads((folder / "environment.json").read_text())["torch"] == torch.__version__
    assert {p.name for p in (folder / "ckpt").iterdir()} == {
        "last.pt", "previous.pt", "best.pt", "epoch_0001.pt", "epoch_0002.pt",
    }  # fmt: skip
    training = [r for r in records(folder) if "train/loss" in r]
    assert [r["step"] for r in training] == list(range(1, 9))
    assert [r["epoch"] for r in training] == [0] * 4 + [1] * 4
    assert all(r["train/lr"] == 1e-3 for r in training)
    validation = [r for r in records(folder) if "val/synthetic/JF" in r]
    assert [r["step"] for r in validation] == [4, 8]
    last, best = load_state(folder / "ckpt" / "last.pt"), load_state(folder / "ckpt" / "best.pt")
    assert best["scores"]["synthetic"]["JF"] == max(r["val/synthetic/JF"] for r in validation)
    assert "training" not in best
    assert last["training"]["progress"]["step"] == 8
    assert "training complete" in (folder / "train.log").read_text()
    model = load_model(folder / "ckpt" / "best.pt")
    assert torch.equal(
        model.state_dict()["decoder.predictor.weight"], best["model"]["decoder.predictor.weight"]
    )


def stored_set(root: Path, method: str, direction: str) -> None:
    """A sample set of which validation has DIS flow, and training another."""
    for split, made in (("train", (method, direction)), ("val", ("dis", "forward"))):
        write_dataset(root, "Sample", split, 2, 3, (64, 64), seed=5 if split == "val" else 8)
        flows = root / "Sample" / "Flows" / split
        (flows / MANIFEST).unlink()  # it says what is true
        write_manifest(flows, FlowSettings(made[0], None, None, made[1], "repeat", "none", "png"))


def test_flow_is_written_down_and_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    stored_set(tmp_path, "raft", "backward")
    data = ["data.train=[sample]", "data.val=[sample]", f"data.root={tmp_path}", "train.epochs=1"]
    assert fit(tiny_config(tmp_path / "one", *data, "train.val_every=1")) == 0
    for file in ("last.pt", "best.pt"):
        flow = torch.load(tmp_path / "one" / "ckpt" / file, weights_only=True)["flow"]
        assert flow == {
            "sample": {
                "method": "raft", "direction": "backward", "last": "repeat", "compensation": "none",
                "normalisation": "by the largest magnitude of each frame",
            }
        }  # fmt: skip
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]

    start = f"train.load_from={tmp_path / 'one' / 'ckpt' / 'best.pt'}"
    assert fit(tiny_config(tmp_path / "two", *data, start, "data.flow=dis")) == 0
    (warning,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert warning.startswith("training reads other flow than ")
    assert warning.endswith("sample has dis, forward instead of raft, backward (sample)")

    caplog.clear()
    (tmp_path / "Sample" / "Flows" / "train" / "manifest.json").unlink()
    assert fit(tiny_config(tmp_path / "one", *data, "train.val_every=1"), resume="auto") == 0
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]


def test_training_learns_a_batch_by_heart(tmp_path: Path):
    config = tiny_config(tmp_path, "model.dropout=0", "model.drop_path=0", "train.lr=2e-3")
    run = build_run(config, ALONE, tmp_path, resume=None, force=False)
    batch = next(iter(run.loader))
    losses = [train_step(run, [batch])[0] for _ in range(25)]
    assert losses[0] is not None and losses[-1] is not None
    assert losses[-1][0] < 0.5 * losses[0][0]


def step_of(path: Path) -> int:
    return int(load_state(path)["training"]["progress"]["step"])


def stop_and_resume(folder: Path, stop_at: int, *overrides: str) -> None:
    """A whole run that gets SIGTERM within one of its steps."""
    with pytest.MonkeyPatch.context() as patched:
        signal_at_step(patched, stop_at)
        assert fit(tiny_config(folder, *overrides)) == signal.SIGTERM
    assert step_of(folder / "ckpt" / "last.pt") == stop_at
    assert fit(tiny_config(folder, *overrides), resume="auto") == 0


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain tiny run, never stopped."""
    folder = tmp_path_factory.mktemp("straight")
    torch.set_num_threads(1)
    assert fit(tiny_config(folder)) == 0
    return folder


@pytest.mark.parametrize("stop_at", [2, 4], ids=["middle", "edge"])
def test_stopped_and_resumed_run_equals_the_straight_one(tmp_path: Path, straight_run: Path, stop_at: int):
    stop_and_resume(tmp_path, stop_at)
    assert_same_run(tmp_path, straight_run)


def test_a_crash_costs_no_more_than_the_minutes_since_the_last_save(
    tmp_path: Path, straight_run: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whatever the steps after a save do to the weights while it is being written."""
    calls, write, at_the_crash = [], checkpoint.save, threading.Event()

    def crashing(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            at_the_crash.set()
            raise KeyboardInterrupt
        return train_step(*args)

    def late(content: Any, path: Path) -> None:
        at_the_crash.wait(0 if content["training"]["progress"]["step"] < 3 else 60)
        write(content, path)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(engine, "train_step", crashing)
        patched.setattr(checkpoint, "save", late)
        fit(tiny_config(tmp_path, "train.save_minutes=1e-9"))
    assert [step_of(tmp_path / "ckpt" / f"{name}.pt") for name in ("last", "previous")] == [3, 2]
    assert fit(tiny_config(tmp_path), resume="auto") == 0
    assert_same_run(tmp_path, straight_run)


def test_a_checkpoint_that_cannot_be_written_ends_the_run_at_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(content: Any, path: Path) -> None:
        raise OSError(f"cannot write checkpoint {path}: No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="No space left"):
        fit(tiny_config(tmp_path, "train.save_minutes=1e-9"))
    assert len(records(tmp_path)) < 4  # not at the end of the epoch


@pytest.mark.parametrize(
    "lite",
    [
        pytest.param((), id="dropout"),
        pytest.param(("model.backbone=lite0",), id="batchnorm", marks=pytest.mark.slow),
    ],
)
def test_recomputed_activations_are_the_same_run(tmp_path: Path, straight_run: Path, lite: tuple[str, ...]):
    """To the bit: weights, averages, running statistics of norms, random states."""
    if lite:
        straight_run = tmp_path / "straight"
        assert fit(tiny_config(straight_run, *lite)) == 0
    assert fit(tiny_config(tmp_path / "anew", *lite, "train.checkpoint_activations=true")) == 0
    assert_same_run(tmp_path / "anew", straight_run)


def test_loader_processes_change_nothing(tmp_path: Path, straight_run: Path):
    stop_and_resume(tmp_path, 3, "data.workers=2")
    config = load_state(straight_run / "ckpt" / "last.pt")["config"]
    assert config["data"]["workers"] == 0
    assert_same_run(tmp_path, straight_run)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(  # epochs of 3 + 2 batches
            ("train.accumulate=3", "data.synthetic.videos=10"), marks=pytest.mark.slow
        ),
        ("train.ema=0.9", "train.schedule=cosine", "train.warmup_steps=2"),
        pytest.param(
            ("model.backbone=lite0", "train.lr_encoder=0.1", "train.freeze_batchnorm=true", "train.ema=0.9"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["accumulate", "ema", "batchnorm"],
)
def test_resume_is_exact_with(tmp_path: Path, overrides: tuple[str, ...]):
    assert fit(tiny_config(tmp_path / "straight", *overrides)) == 0
    stop_and_resume(tmp_path / "stopped", 3, *overrides)
    assert_same_run(tmp_path / "stopped", tmp_path / "straight")


@pytest.mark.parametrize("frozen", [True, False])
def test_batchnorm_statistics_stay_when_frozen(tmp_path: Path, frozen: bool):
    """Also after a validation, which leaves the whole network in training mode."""
    lite = ("model.backbone=lite0", "train.val_every=1", f"train.freeze_batchnorm={frozen}")
    assert fit(tiny_config(tmp_path, *lite)) == 0
    norm = "encoder.backbone.net.bn1."
    weights = load_state(tmp_path / "ckpt" / "last.pt")["model"]
    assert (weights[f"{norm}running_mean"] == 0).all() == frozen
    assert (weights[f"{norm}weight"] != 1).all()  # the scale learns


def test_another_seed_is_another_run(tmp_path: Path, straight_run: Path):
    """The fingerprints above can differ."""
    assert fit(tiny_config(tmp_path, "train.seed=1")) == 0
    assert fingerprint(tmp_path / "ckpt" / "last.pt") != fingerprint(straight_run / "ckpt" / "last.pt")


def test_ctrl_c_is_told_apart_and_handlers_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    signal_at_step(monkeypatch, 1, signal.SIGINT)
    assert fit(tiny_config(tmp_path)) == signal.SIGINT
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.slow
def test_signal_during_validation_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    validate = engine.validate
    options = ("train.val_every=1",)
    assert fit(tiny_config(tmp_path / "straight", *options)) == 0
    with monkeypatch.context() as patched:

        def interrupted(*args: Any, **kwargs: Any) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            return validate(*args, **kwargs)

        patched.setattr(engine, "validate", interrupted)
        assert fit(tiny_config(tmp_path / "stopped", *options)) == signal.SIGTERM
    assert not (tmp_path / "stopped" / "ckpt" / "best.pt").exists()
    assert fit(tiny_config(tmp_path / "stopped", *options), resume="auto") == 0
    for name in ("straight", "stopped"):
        assert [r["step"] for r in records(tmp_path / name) if "val/synthetic/J" in r] == [4, 8]
    assert_same_run(tmp_path / "stopped", tmp_path / "straight")


def test_failing_validation_does_not_cost_the_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def failing(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("bear/00003.jpg cannot be read")

    monkeypatch.setattr(engine, "validate", failing)
    with pytest.raises(ValueError, match="bear"):
        fit(tiny_config(tmp_path, "train.val_every=1"))
    assert load_state(tmp_path / "ckpt" / "last.pt")["training"]["progress"]["step"] == 4


def test_existing_run_is_not_overwritten(tmp_path: Path):
    config = tiny_config(tmp_path, "train.epochs=1")
    assert fit(config) == 0
    before = fingerprint(tmp_path / "ckpt" / "last.pt")
    with pytest.raises(ConfigError, match=r"already holds a run.*--resume auto"):
        fit(config)
    assert fingerprint(tmp_path / "ckpt" / "last.pt") == before


def test_two_runs_do_not_share_a_folder(tmp_path: Path):
    with hold_folder(tmp_path), pytest.raises(InUseError, match=f"in use by process {os.getpid()}"):
        fit(tiny_config(tmp_path), resume="auto")
    assert not (tmp_path / "ckpt").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_loader_process_that_is_lost_ends_the_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    def lost(*args: Any) -> Any:
        for process in multiprocessing.active_children():
            os.kill(process.pid, number)
        return train_step(*args)

    monkeypatch.setattr(engine, "train_step", lost)
    with pytest.raises(TrainingError, match="a data loader process failed"):
        fit(tiny_config(tmp_path, "data.workers=2", "train.timeout=0.05", "train.epochs=9"))
    assert multiprocessing.active_children() == []


def test_resume_auto_starts_anew_where_nothing_is(tmp_path: Path):
    """Also without validation sets."""
    assert (
        fit(tiny_config(tmp_path, "train.epochs=1", "train.val_every=1", "data.val=[]"), resume="auto") == 0
    )


def test_resume_with_another_config_needs_force(tmp_path: Path):
    assert fit(tiny_config(tmp_path, "train.epochs=1")) == 0
    changed = tiny_config(tmp_path, "train.epochs=2", "train.batch_size=4")
    with pytest.raises(ConfigError, match=r"train\.batch_size: 2 in the checkpoint, 4 now"):
        fit(changed, resume="auto")
    assert fit(changed, resume="auto", force=True) == 0
    assert load_state(tmp_path / "ckpt" / "last.pt")["training"]["progress"]["step"] == 6  # 4, then 8 / 4


def test_a_finished_run_stays_as_it_is(tmp_path: Path):
    config = tiny_config(tmp_path, "train.epochs=1", "train.val_every=1")
    assert fit(config) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "ckpt").iterdir()}
    lines = records(tmp_path)
    assert fit(config, resume="auto") == 0
    assert {path: path.read_bytes() for path in (tmp_path / "ckpt").iterdir()} == before
    assert records(tmp_path) == lines


def test_a_crash_after_the_best_validation_does_not_replace_it_by_a_worse_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scores = iter([0.5, 0.9, 0.7])

    def scored(*args: Any, **kwargs: Any) -> Validation:
        return Validation({"v": (score := next(scores), score)})

    save, best = checkpoint.save, tmp_path / "ckpt" / "best.pt"

    def crashing(content: Any, path: Path) -> None:
        save(content, path)
        if path == best and content["scores"]["synthetic"]["JF"] == 0.9:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "validate", scored)
    config = tiny_config(tmp_path, "train.val_every=1")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoint, "save", crashing)
        fit(config)
    assert fit(config, resume="auto") == 0  # validates the second epoch again, and finds less
    assert load_state(best)["scores"]["synthetic"]["JF"] == 0.9


@pytest.mark.parametrize(("every", "most"), [(1, 1), (2, 0)])
def test_checkpoints_are_kept_for_good(tmp_path: Path, every: int, most: int):
    settings = f"train.keep_every={every}", f"train.keep_last={most}", "train.epochs=2"
    assert fit(tiny_config(tmp_path, *settings)) == 0
    kept = sorted(path.name for path in (tmp_path / "ckpt").glob("epoch_*.pt"))
    assert kept == ["epoch_0002.pt"]  # test_run_folder_tells_the_whole_story keeps both
    assert load_state(tmp_path / "ckpt" / kept[-1])["training"]["progress"]["epoch"] == 2


def test_a_checkpoint_of_another_run_does_not_overwrite_this_one(tmp_path: Path):
    for name in ("one", "other"):
        assert fit(tiny_config(tmp_path / name, "train.epochs=1")) == 0
    before = fingerprint(tmp_path / "one" / "ckpt" / "last.pt")
    longer = tiny_config(tmp_path / "one", "train.epochs=2")
    with pytest.raises(ConfigError, match=r"one already holds another run"):
        fit(longer, resume=tmp_path / "other" / "ckpt" / "last.pt")
    assert fingerprint(tmp_path / "one" / "ckpt" / "last.pt") == before
    assert fit(longer, resume=tmp_path / "one" / "ckpt" / "last.pt") == 0


def test_a_run_without_a_good_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spoil(monkeypatch, {1, 2, 3, 4})
    with pytest.raises(TrainingError, match="none of 4 steps was finite"):
        fit(tiny_config(tmp_path, "train.epochs=1", "train.max_bad_steps=9"))


def test_compiling_leaves_the_clip_rolled_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A compiled clip has thousands of nodes more for each frame."""
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    run = build_run(tiny_config(tmp_path, "train.compile=true"), ALONE, tmp_path, resume=None, force=False)
    assert compiled == [run.state.model.encoder, run.state.model.decoder]


def test_training_in_another_thread(tmp_path: Path):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(fit, tiny_config(tmp_path, "train.epochs=1")).result() == 0


def test_missing_checkpoint_to_resume(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        fit(tiny_config(tmp_path), resume=tmp_path / "absent.pt")


def test_load_from_starts_with_the_weights_of_another_run(tmp_path: Path):
    assert fit(tiny_config(tmp_path / "first", "train.epochs=1", "train.val_every=1")) == 0
    best = tmp_path / "first" / "ckpt" / "best.pt"
    config = tiny_config(tmp_path / "second", f"train.load_from={best}")
    run = build_run(config, ALONE, tmp_path, resume=None, force=False)
    weights = load_state(best)["model"]
    assert all(torch.equal(value, weights[key]) for key, value in run.state.model.state_dict().items())
    assert run.state.progress.step == 0


def test_bad_step_is_skipped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any):
    spoil(monkeypatch, {2})
    with caplog.at_level(logging.WARNING):
        assert fit(tiny_config(tmp_path, "train.epochs=1")) == 0
    assert "step 1 skipped on all ranks" in caplog.text
    assert "synthetic/" in caplog.text and "['00000', '00001']" in caplog.text
    saved = load_state(tmp_path / "ckpt" / "last.pt")
    assert saved["training"]["progress"] == {"epoch": 1, "batch": 0, "step": 4, "updates": 3, "bad_steps": 0}
    assert all(slot["step"] == 3 for slot in saved["training"]["optimizer"]["state"].values())
    assert all(value.isfinite().all() for value in saved["model"].values())
    assert [r["step"] for r in records(tmp_path)] == [1, 3, 4]  # and no Infinity in the records


def test_training_stops_after_bad_steps_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spoil(monkeypatch, {1, 3, 4})
    with pytest.raises(TrainingError, match="2 steps in a row"):
        fit(tiny_config(tmp_path, "train.max_bad_steps=2"))


@pytest.mark.parametrize("parts", ["train.accumulate=2", "train.effective_batch=4"])
def test_accumulated_batches_are_one_large_batch(tmp_path: Path, parts: str):
    still = ("model.dropout=0", "model.drop_path=0", "train.epochs=1", "data.synthetic.videos=4")
    assert fit(tiny_config(tmp_path / "large", *still, "train.batch_size=4")) == 0
    assert fit(tiny_config(tmp_path / "parts", *still, "train.batch_size=2", parts)) == 0
    states = [load_state(tmp_path / run / "ckpt" / "last.pt")["training"] for run in ("large", "parts")]
    assert [state["progress"]["step"] for state in states] == [1, 1]
    averages = [state["optimizer"]["state"] for state in states]
    for number, slot in averages[0].items():  # Adam's first step: exp_avg is a tenth of the gradient
        torch.testing.assert_close(slot["exp_avg"], averages[1][number]["exp_avg"], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_half_precision_trains(tmp_path: Path, precision: str):
    """With fp16 the first steps may find a loss scale that fits; they are neither recorded nor bad."""
    options = ("train.epochs=1", "data.synthetic.videos=16", "train.grad_clip=1")
    assert fit(tiny_config(tmp_path, *options, f"train.precision={precision}")) == 0
    losses = [r["train/loss"] for r in records(tmp_path)]
    assert len(losses) >= 1 and all(0 < loss < 50 for loss in losses)


def test_an_effective_batch_is_shared_out_evenly_or_refused(tmp_path: Path):
    train = tiny_config(tmp_path, "train.effective_batch=12").train
    assert [train.accumulation(processes) for processes in (1, 2, 3, 6)] == [6, 3, 2, 1]
    for processes in (4, 12):
        with pytest.raises(ConfigError, match=rf"effective_batch=12 .*batch_size=2 x {processes} processes"):
            train.accumulation(processes)
    with pytest.raises(ConfigError, match=r"train\.accumulate, which is 2"):
        tiny_config(tmp_path, "train.effective_batch=12", "train.accumulate=2")
    with pytest.raises(ConfigError, match="effective_batch=3"):
        fit(tiny_config(tmp_path, "train.effective_batch=3"))


def test_memory_needs_clips(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"data\.clip_frames must be at least 2"):
        fit(tiny_config(tmp_path, "data.clip_frames=1"))
