"""What a run leaves behind for its reader: text, TensorBoard and metrics.jsonl, written by rank 0 only."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from hmhi.runtime.distributed import Ranks
from hmhi.version import __version__

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What a run also tells its scalars to; Weights & Biases has one: ``fit(config, tracker=wandb.init())``."""

    def log(self, data: dict[str, float], /, *, step: int) -> object:
        """Take values by tag, ``epoch`` included; steps never go back but where a run is resumed."""
        ...


class RunLogger:
    """Scalars and pictures of a run, by optimiser step.

    Tags are ``train/loss``, ``train/lr``, ``val/<dataset>/J`` and so on, the same in ``tb/`` and
    ``metrics.jsonl``, which holds one JSON object a line with the keys ``step``, ``epoch`` and tags.

    Args:
        folder: Run folder.
        active: Whether this process writes; rank 0 only.
        step: Steps done so far; records of later steps, left by a run that was killed, are removed.
        validated: Whether the validation after this step was complete; else its records are removed too.
        tracker: Gets all scalars, too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        active: bool,
        step: int = 0,
        validated: bool = False,
        tracker: Tracker | None = None,
    ) -> None:
        self._jsonl = folder / "metrics.jsonl"
        self._tracker = tracker if active else None
        self._board: SummaryWriter | None = None
        if active:
            self._board = SummaryWriter(str(folder / "tb"), purge_step=step + 1 if step else None)
            _drop_later(self._jsonl, step, validated)

    def scalars(self, values: Mapping[str, float], *, step: int, epoch: int) -> None:
        """Record values under their tags."""
        with self._writing() as board:
            if board is not None:
                for tag, value in values.items():
                    board.add_scalar(tag, value, step)
                with self._jsonl.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step, "epoch": epoch, **values}) + "\n")
        if self._tracker is not None:
            try:
                self._tracker.log({"epoch": epoch, **values}, step=step)
            except Exception:  # of a service or its client, whatever it may be
                log.warning("no more scalars to %s", type(self._tracker).__name__, exc_info=True)
                self._tracker = None

    def picture(self, tag: str, picture: Tensor, *, step: int) -> None:
        """Record a uint8 (3, H, W) picture."""
        with self._writing() as board:
            if board is not None:
                board.add_image(tag, picture, step)

    def close(self) -> None:
        """Finish the files."""
        with self._writing() as board:
            if board is not None:
                board.close()

    @contextmanager
    def _writing(self) -> Iterator[SummaryWriter | None]:
        """A full disk ends the records, and not the run: what it learns is in the checkpoints."""
        try:
            yield self._board
        except OSError as error:
            self._board = None
            log.warning("no more records of this run: %s", error)


def _drop_later(jsonl: Path, step: int, validated: bool) -> None:
    if not jsonl.exists():
        return
    kept = []
    for line in jsonl.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # the half line of a killed process
        validation = any(tag.startswith("val/") for tag in record)
        if record["step"] < step or (record["step"] == step and (validated or not validation)):
            kept.append(line)
    partial = jsonl.with_name(jsonl.name + ".tmp")
    partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(partial, jsonl)


@contextmanager
def text_log(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Send the package's log to stderr and, with debug messages, to ``train.log``, for a ``with`` block.

    Ranks other than 0 write warnings and errors to stderr only.
    """
    logger = logging.getLogger("hmhi")
    level = logger.level
    prefix = f"[rank {ranks.rank}] " if ranks.world_size > 1 else ""
    console = _Console()
    console.setFormatter(logging.Formatter(f"%(asctime)s {prefix}%(message)s", "%H:%M:%S"))
    console.setLevel(logging.INFO if ranks.is_main else logging.WARNING)
    handlers: list[logging.Handler] = [console]
    if ranks.is_main:
        file = _LogFile(folder / "train.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    logger.setLevel(logging.DEBUG)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    except Exception:
        logger.debug("stopped by an error", exc_info=True)  # stderr gets its one line from the caller
        raise
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(level)


class _LogFile(logging.FileHandler):
    """A log that says once that it cannot be written, and ends there."""

    def handleError(self, record: logging.LogRecord) -> None:
        self.setLevel(logging.CRITICAL + 1)
        log.warning("no more log in %s: %s", self.baseFilename, sys.exc_info()[1])

    def close(self) -> None:
        with suppress(OSError):  # of what is still in its buffer
            super().close()


class _Console(logging.Handler):
    """Lines on stderr that do not break a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def environment() -> dict[str, str]:
    """Versions, git revision and command of this process, for the run folder and checkpoints."""
    return {
        "hmhi": __version__,
        "git": _git_revision(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a subclass of str, which weights_only refuses
        "torchvision": version("torchvision"),
        "numpy": np.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "world_size": os.environ.get("WORLD_SIZE", "1"),
        "command": " ".join(sys.argv),
    }


def _git_revision() -> str:
    """Revision of the working tree that this file belongs to, with ``-dirty`` when it has changes."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
