"""Training: `fit` builds a run and goes through its epochs, `train_one_epoch` and `train_step` are the loop.

    from hmhi import load_config
    from hmhi.training.train import fit
    fit(load_config("configs/pretrain_ytvos.yaml"), resume="auto")

Every rank runs the same code; rank 0 writes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import DistError
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from hmhi.config import Config
from hmhi.data.loader import LoaderError
from hmhi.runtime import distributed
from hmhi.runtime.lock import hold_folder
from hmhi.training import checkpoint
from hmhi.training.checkpoint import TrainState
from hmhi.training.logs import Tracker, text_log
from hmhi.training.optim import ENCODERS, gradient_norm, learning_rate, set_learning_rate
from hmhi.training.run import Run, build_run
from hmhi.training.validate import protocol_of, validate
from hmhi.training.writer import cpu_copy

log = logging.getLogger(__name__)

PICTURES = 4  # validation videos drawn at each validation


class TrainingError(RuntimeError):
    """Training cannot go on, although its input was accepted."""


def fit(
    config: Config,
    *,
    resume: str | Path | None = None,
    force: bool = False,
    tracker: Tracker | None = None,
) -> int:
    """Train as the config says.

    Args:
        config: The experiment.
        resume: ``auto`` continues from the newest readable checkpoint of the run folder, if there is one; a
            path continues from that file; None starts a new run.
        force: Resume although the config or the number of processes changed.
        tracker: Gets the scalars of ``metrics.jsonl``, on rank 0.

    Returns:
        0 when the run is complete, else the number of the signal that stopped it; a resumed run then continues
        exactly as if it had not been stopped.

    Raises:
        ConfigError: Settings contradict the data or the checkpoint, or the folder already holds a run.
        FileNotFoundError: Data, weights or checkpoint are missing.
        InUseError: Another process trains into the folder.
        TrainingError: Loss or gradient stayed non-finite, or another process died or hangs.
    """
    with ExitStack() as stack:
        timeout = timedelta(minutes=config.train.timeout)
        ranks = stack.enter_context(distributed.process_group(timeout))
        folder = Path(config.train.output)
        if ranks.is_main:
            stack.enter_context(hold_folder(folder))
        stack.enter_context(text_log(folder, ranks))
        stack.enter_context(failures_of_others(timeout))
        run = build_run(config, ranks, folder, resume=resume, force=force, tracker=tracker)
        stack.callback(run.logger.close)
        stack.callback(run.loader.close)
        stack.enter_context(run.bar)
        stack.enter_context(run.stop)
        stack.enter_context(run.writer)

        progress = run.state.progress
        while progress.epoch < run.epochs:
            stopped = train_one_epoch(run)
            if stopped:
                save(run)
            else:
                stopped = finish_epoch(run)
            if stopped:
                run.writer.wait()
                log.info(
                    "stopped by signal %d after step %d; continue with --resume auto", stopped, progress.step
                )
                return stopped
        run.writer.wait()
        if not progress.updates:
            raise TrainingError(f"none of {progress.step} steps was finite, so nothing was learned")
        log.info("training complete: %d steps, results in %s", progress.step, folder)
        return 0


@contextmanager
def failures_of_others(timeout: timedelta) -> Iterator[None]:
    """Tell the end of a loader process or of another rank, which torch reports as it does our own bugs."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        if isinstance(error, LoaderError):
            raise TrainingError(reason) from error
        if reason.startswith("DataLoader worker"):
            raise TrainingError(f"a data loader process failed ({reason})") from error
        if isinstance(error, DistError) or "gloo" in reason:
            minutes = timeout.total_seconds() / 60
            raise TrainingError(
                f"no answer from another process: it failed, as its own message may say, or hung for {minutes:g} "
                f"minutes (train.timeout); continue with --resume auto ({reason})"
            ) from error
        raise


def finish_epoch(run: Run) -> int:
    """Validate after an epoch where that is due, save, and go on to the next one.

    Returns:
        0, or the signal that asked to stop in the validation, which a resumed run then repeats.
    """
    progress, cfg = run.state.progress, run.state.config.train
    done = progress.epoch + 1
    validates = bool(cfg.val_every) and (done % cfg.val_every == 0 or done == run.epochs)
    if validates:
        save(run)  # first, because validation may fail on its data
        stopped = validate_run(run)
        if stopped:
            return stopped
    progress.epoch, progress.batch = done, 0
    save(run, rotate=not validates, keep=bool(cfg.keep_every) and done % cfg.keep_every == 0)
    return 0


def train_one_epoch(run: Run) -> int:
    """Train on what is left of the current epoch.

    Returns:
        0, or the signal that asked to stop; all ranks agree on it.
    """
    progress, cfg, ranks = run.state.progress, run.state.config.train, run.state.ranks
    set_train_mode(run)
    run.loader.set_epoch(progress.epoch, progress.batch, progress.epoch / run.epochs)
    batches = iter(run.loader)
    window: list[list[float]] = []
    since = time.perf_counter()
    last_step = math.inf if cfg.steps is None else cfg.steps
    while progress.step < last_step and (group := list(islice(batches, run.accumulate))):
        run.writer.check()
        values, stopped = train_step(run, group)
        if values is not None:
            window.append(values)
        progress.step += 1
        progress.batch += len(group)
        run.bar.update()
        at_end = progress.batch >= len(run.loader) or progress.step >= last_step
        if window and (progress.step % cfg.log_every == 0 or at_end or stopped):
            means = [sum(column) / len(window) for column in zip(*window, strict=True)]
            names = (*run.task.values, "grad_norm")
            joined = dict(zip(names, distributed.all_reduce(means, "mean", ranks.device), strict=True))
            log_step(run, joined, (time.perf_counter() - since) / len(window))
            window, since = [], time.perf_counter()
        if stopped:
            return stopped
        if run.save_due and not at_end:
            save(run)
    return 0


def set_train_mode(run: Run) -> None:
    """Training mode for the network, but for BatchNorm layers whose statistics are frozen."""
    run.parallel.train()
    if run.state.config.train.freeze_batchnorm:
        for name, module in run.state.model.named_modules():
            if name.startswith(ENCODERS) and isinstance(module, _BatchNorm):
                module.eval()


def train_step(run: Run, batches: Sequence[Mapping[str, Any]]) -> tuple[list[float] | None, int]:
    """One optimiser step over a few batches, or none when loss or gradient is not finite on any rank.

    Returns:
        This rank's losses, in the task's order, and gradient norm (None after a step that was not finite), and 0 or
        the signal that asked any rank to stop.

    Raises:
        TrainingError: Too many steps in a row were not finite.
    """
    state, task, device = run.state, run.task, run.state.ranks.device
    cfg, progress = state.config.train, state.progress
    # a) learning rate
    set_learning_rate(state.optimizer, learning_rate(progress.step, run.total_steps, cfg))

    # b) forward and backward; the ranks join their gradients in the last pass
    passes = []
    for number, batch in enumerate(batches, start=1):
        with nullcontext() if number == len(batches) else no_sync(run.parallel):
            losses = task.losses(run.parallel, to_device(batch, device), progress.step / run.total_steps)
            state.scaler.scale(losses["loss"] / len(batches)).backward()
        passes.append(torch.stack([losses[name].detach() for name in task.values]))

    # c) is everything finite, on every rank?
    state.scaler.unscale_(state.optimizer)
    norm = gradient_norm(list(state.model.parameters()), cfg.grad_clip)
    values = torch.cat([torch.stack(passes).mean(dim=0), norm.reshape(1)]).tolist()
    finite = math.isfinite(values[0]) and (math.isfinite(values[-1]) or fp16_overflow(state))
    bad, stopped, save_due = distributed.all_reduce(
        [float(not finite), float(run.stop.number), float(save_is_due(run))], "max", device
    )
    run.save_due = bool(save_due)

    # d) optimiser step
    if bad:
        note_bad_step(run, batches, values)
    else:
        progress.bad_steps = 0
        progress.updates += math.isfinite(values[-1])  # with fp16 the scaler skips a step that overflows
        state.scaler.step(state.optimizer)
        if state.ema is not None:
            state.ema.update_parameters(state.model)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    return None if bad or not math.isfinite(values[-1]) else values, int(stopped)


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on a device."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }


def no_sync(parallel: nn.Module) -> AbstractContextManager:
    """Context in which a backward pass leaves gradients on their rank."""
    return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else nullcontext()


def fp16_overflow(state: TrainState) -> bool:
    """Whether a non-finite gradient may be a loss scale that is still too large, which the scaler corrects."""
    return state.scaler.is_enabled() and state.scaler.get_scale() > 1


def note_bad_step(run: Run, batches: Sequence[Mapping[str, Any]], values: list[float]) -> None:
    """Count a skipped step and report the clips it may be due to; every rank must call it.

    Raises:
        TrainingError: It is one too many.
    """
    progress, cfg = run.state.progress, run.state.config.train
    names = [
        f"{name} {frames}"
        for batch in batches
        for name, frames in zip(batch["name"], batch["frames"], strict=True)
    ]
    reports = list(enumerate(distributed.gather((values[0], values[-1], ", ".join(names)))))
    # A bad loss makes the joined gradient bad on every rank; a bad gradient alone has no known origin.
    guilty = [report for report in reports if not math.isfinite(report[1][0])] or reports
    found = "; ".join(
        f"rank {rank}: loss {loss:.4g}, gradient norm {norm:.4g}, clips {clips}"
        for rank, (loss, norm, clips) in guilty
    )
    progress.bad_steps += 1
    log.warning("step %d skipped on all ranks, not finite: %s", progress.step, found)
    if progress.bad_steps >= cfg.max_bad_steps:
        raise TrainingError(
            f"{progress.bad_steps} steps in a row were not finite, the last: {found}. Weights are those of "
            f"before. Look at these clips, lower train.lr, set train.grad_clip, or use train.precision=fp32"
        )


def log_step(run: Run, values: Mapping[str, float], seconds: float) -> None:
    """Report the means since the last report; rank 0 writes."""
    progress = run.state.progress
    group = run.state.optimizer.param_groups[0]
    lr = group["lr"] / group["lr_factor"]
    scalars = {f"train/{name}": value for name, value in values.items()}
    scalars |= {"train/lr": lr, "train/seconds_per_step": seconds}
    run.logger.scalars(scalars, step=progress.step, epoch=progress.epoch)
    left = int(seconds * (run.total_steps - progress.step))
    log.info(
        "epoch %d/%d step %d/%d loss %.4f lr %.3g %.2f s/step eta %d:%02d:%02d",
        progress.epoch + 1, run.epochs, progress.step, run.total_steps, values["loss"], lr, seconds,
        left // 3600, left // 60 % 60, left % 60,
    )  # fmt: skip


def validate_run(run: Run) -> int:
    """Score every validation set, and keep the weights when the first set's J&F is the best so far.

    Returns:
        0, or the signal that asked to stop.
    """
    state, progress = run.state, run.state.progress
    scores: dict[str, dict[str, float]] = {}
    for name, videos in run.val_videos.items():
        result = validate(
            run.task, state.scored_model, videos, protocol=protocol_of(name), ranks=state.ranks,
            pictures=PICTURES, stopped=lambda: run.stop.number > 0,
        )  # fmt: skip
        if result is None:
            break
        scores[name] = result.mean
        tags = {f"val/{name}/{measure}": value for measure, value in result.mean.items()}
        run.logger.scalars(tags, step=progress.step, epoch=progress.epoch)
        for video, picture in result.pictures.items():
            run.logger.picture(f"val/{name}/{video}", picture, step=progress.step)
        log.info("validation on %s: %s", name, " ".join(f"{k} {v:.4f}" for k, v in result.mean.items()))
    stopped = int(distributed.all_reduce([float(run.stop.number)], "max", state.ranks.device)[0])
    if stopped or not scores:
        return stopped
    score = next(iter(scores.values()))["JF"]
    if run.best is None or score > run.best:
        run.best = score
        if state.ranks.is_main:
            content = cpu_copy({**checkpoint.weights_dict(state), "scores": scores})
            run.writer.start(partial(checkpoint.save, content, run.folder / "ckpt" / "best.pt"))
    return 0


def save_is_due(run: Run) -> bool:
    """Whether ``train.save_minutes`` have passed since the last save, by the clock of rank 0."""
    minutes = run.state.config.train.save_minutes
    return bool(minutes) and run.state.ranks.is_main and time.monotonic() - run.saved_at >= 60 * minutes


def save(run: Run, *, rotate: bool = True, keep: bool = False) -> None:
    """Begin to write ``last.pt`` as the run stands now; every rank must call it.

    Args:
        run: What to save.
        rotate: Keep the former ``last.pt`` as ``previous.pt``.
        keep: Write a copy for good, named by the number of epochs done.

    Raises:
        OSError: The write before this one failed.
    """
    content = checkpoint.training_dict(run.state)
    if not run.state.ranks.is_main:
        return
    copy, folder = cpu_copy(content), run.folder / "ckpt"
    epoch, most = run.state.progress.epoch if keep else None, run.state.config.train.keep_last
    run.writer.start(partial(checkpoint.save_last, copy, folder, rotate=rotate, epoch=epoch, most=most))
    run.saved_at = time.monotonic()
