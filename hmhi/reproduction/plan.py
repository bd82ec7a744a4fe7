"""From the rows of a table to the commands that fill them, and running those that are not done yet."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from hmhi.config import NEUTRAL_KEYS
from hmhi.errors import UserError
from hmhi.media.atomic import write_json
from hmhi.reproduction.tables import Benchmark, Recipe, Stage
from hmhi.runtime.lock import hold_folder

log = logging.getLogger(__name__)

FIRST_SEED = 42
PYTHON = "python"
"""In the place of the interpreter that runs the plan."""
TRUTH = "{annotations}"
"""In the place of the folder of annotations, which inference finds."""
SCORERS = {"masks": "val_zvos.py", "objects": "val_svos.py", "maps": "val_vsod.py"}


class StepError(UserError):
    """A command of the plan failed."""


@dataclass(frozen=True)
class Step:
    """One command of the plan."""

    name: str
    command: tuple[str, ...]
    folder: Path
    """Where its results go."""
    after: tuple[Step, ...] = ()
    """Steps whose results it reads."""
    root: Path | None = None
    """Folder of all results; it may be moved, and what is done stays done."""
    owns_folder: bool = False
    """Whether nothing else begins in `folder`, so that it is set aside when the command has changed."""

    @property
    def record(self) -> Path:
        """File that says what the step was begun with and, once it is done, how long it took."""
        return self.folder / f"{self.name.split('/')[-1]}.step.json"

    @property
    def digest(self) -> str:
        """Hash of what the results depend on: this command and those whose results it reads."""
        words = [word for word in self.command if word.partition("=")[0] not in NEUTRAL_KEYS]
        if self.root is not None:
            words = [word.replace(str(self.root), "{output}") for word in words]
        words += [step.digest for step in self.after]
        return hashlib.sha256("\0".join(words).encode()).hexdigest()

    @property
    def done(self) -> bool:
        """Whether exactly this has been run to its end."""
        begun = self._begun()
        return begun.get("digest") == self.digest and begun.get("seconds") is not None

    @property
    def changed(self) -> bool:
        """Whether its folder holds what another command, or other steps before it, have led to."""
        return self.owns_folder and self._begun().get("digest", self.digest) != self.digest

    def _begun(self) -> dict[str, Any]:
        if not self.record.is_file():
            return {}
        begun: dict[str, Any] = json.loads(self.record.read_text(encoding="utf-8"))
        return begun


@dataclass(frozen=True)
class Planner:
    """Makes the steps of networks; their commands run in the repository.

    Args:
        output: Folder of everything that is made.
        recipe: How networks are trained and tested.
        overrides: The user's, for each training run, above the network's and above ``scratch``; ``data.root`` for
            inference too.
    """

    output: Path
    recipe: Recipe
    overrides: tuple[str, ...] = ()

    def folder(self, network: str, seed: int) -> Path:
        """Where the results of a network go."""
        return self.output / network / f"seed{seed}"

    def seeds(self, network: str) -> list[int]:
        """Of the network's runs, whatever stands in them."""
        names = [path.name.removeprefix("seed") for path in (self.output / network).glob("seed*")]
        return sorted(int(name) for name in names if name.isdecimal())

    def steps(
        self, network: str, overrides: Sequence[str], seed: int, infer: Sequence[str] = ()
    ) -> list[Step]:
        """Prepare data, train the stages, segment and score each data set.

        Args:
            network: Its name.
            overrides: Of its training.
            seed: Of its training.
            infer: Overrides of inference.
        """
        prepared = self._prepare()
        trained: dict[str, Step] = {}
        for name, stage in self.recipe.train.items():
            before = (trained[stage.start],) if stage.start else tuple(prepared)
            words = self._train(name, stage, network, overrides, seed)
            folder = self.folder(network, seed) / name
            trained[name] = Step(
                f"{network}/seed{seed}/{name}", words, folder, before, self.output, owns_folder=True
            )
        steps = [*prepared, *trained.values()]
        for data, benchmark in self.recipe.test.items():
            folder = self.test_folder(network, seed, data, infer)
            weights = trained[benchmark.weights]
            name = f"{network}/seed{seed}/{{}} {' '.join((data, *map(_short, infer)))}"
            words = self._segment(data, benchmark, weights.folder, folder, infer)
            inferred = Step(name.format("segment"), words, folder, (weights,), self.output, owns_folder=True)
            steps.append(inferred)
            if benchmark.kind != "server":
                words = self._score(benchmark, folder)
                steps.append(Step(name.format("score"), words, folder, (inferred,), self.output))
        return steps

    def test_folder(self, network: str, seed: int, data: str, infer: Sequence[str] = ()) -> Path:
        """Where a network's predictions and ``scores.json`` go; each kind of scores, and of use, has its own."""
        benchmark = self.recipe.test[data]
        parts = (data, benchmark.kind, benchmark.weights, *map(_short, infer))
        return self.folder(network, seed) / "_".join(parts)

    def _prepare(self) -> list[Step]:
        steps: list[Step] = []
        for number, line in enumerate(self.recipe.prepare, start=1):
            tool, *words = [self._fill(word) for word in shlex.split(line)]
            command = (PYTHON, f"tools/{tool}", *words)
            folder = self.output / "prepare"
            steps.append(Step(f"prepare {number}", command, folder, tuple(steps[-1:]), self.output))
        return steps

    def _train(
        self, name: str, stage: Stage, network: str, overrides: Sequence[str], seed: int
    ) -> tuple[str, ...]:
        folder = self.folder(network, seed)
        random = ["train.pretrained=null"]
        scratch = random if stage.scratch else []
        start: list[str] = []
        if stage.start:
            start = [*random, f"train.load_from={folder / stage.start / 'ckpt' / 'best.pt'}"]
        return (
            "bash", "scripts/train.sh", stage.config, *overrides, *scratch, *self.overrides,
            *map(self._fill, stage.set), *start, f"train.seed={seed}", f"train.output={folder / name}",
            "--resume", "auto",
        )  # fmt: skip

    def _segment(
        self, data: str, benchmark: Benchmark, run: Path, folder: Path, infer: Sequence[str]
    ) -> tuple[str, ...]:
        root = [item for item in self.overrides if item.startswith("data.root=")]
        if benchmark.root is not None:
            root = [f"data.root={self._fill(benchmark.root)}"]
        soft = ("--save-prob",) if benchmark.pred == "prob" else ()
        return (
            "bash", "scripts/infer.sh", data, str(folder), "--checkpoint", str(run / "ckpt" / "best.pt"),
            *soft, *infer, *root,
        )  # fmt: skip

    def _score(self, benchmark: Benchmark, folder: Path) -> tuple[str, ...]:
        return (
            PYTHON, f"tools/{SCORERS[benchmark.kind]}", "--pred", str(folder / benchmark.pred), "--gt", TRUTH,
            "--protocol", benchmark.protocol, "--sequences", str(folder / "sequences.txt"), "--json",
            str(folder / "scores.json"),
        )  # fmt: skip

    def _fill(self, text: str) -> str:
        return text.replace("{output}", str(self.output))


def _short(override: str) -> str:
    """``model.hmmn.topk=64`` as ``topk-64``: in a path, an equals sign would make it a setting."""
    key, _, value = override.partition("=")
    return f"{key.rpartition('.')[2]}-{value}"


def unique(steps: Iterable[Step]) -> list[Step]:
    """Without repetitions: rows and tables share networks, networks share data."""
    return list({(step.name, step.digest): step for step in steps}.values())


def run_step(step: Step, repository: Path) -> None:
    """Run a step's command and record that it is done.

    Raises:
        StepError: It failed; what it printed says why.
        InUseError: Its folder has to be set aside, and another process writes there.
    """
    environment = {**os.environ, "PYTHON": sys.executable}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(repository), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    if step.changed:
        _set_aside(step)
    command = _with_truth(step) if TRUTH in step.command else step.command
    if command[0] == PYTHON:
        command = (sys.executable, *command[1:])
    step.folder.mkdir(parents=True, exist_ok=True)
    write_json(step.record, {"digest": step.digest, "seconds": None})
    log.info("%s: %s", step.name, shlex.join(command))
    began = time.monotonic()
    with subprocess.Popen(command, cwd=repository, env=environment) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it was interrupted too, and may be saving
            raise
    if code:
        raise StepError(
            f"{step.name} ended with exit code {code}, see above; the same command continues there"
        )
    write_json(step.record, {"digest": step.digest, "seconds": round(time.monotonic() - began, 1)})


def _set_aside(step: Step) -> None:
    """Give the results of other settings another name, so that nothing is lost and nothing continued."""
    folder = step.folder
    aside = next(
        path for number in count(1) if not (path := folder.with_name(f"{folder.name}.old{number}")).exists()
    )
    with hold_folder(folder):
        folder.rename(aside)
    log.info("%s begins anew with other settings; what they were before led to is in %s", step.name, aside)


def _with_truth(step: Step) -> tuple[str, ...]:
    """The command with the annotations that inference found; what was segmented is what is scored."""
    record = json.loads((step.folder / "infer.json").read_text(encoding="utf-8"))
    if record["gt"] is None:
        raise StepError(f"{step.name}: the data set has no annotations")
    names = sorted(video["name"] for video in record["sequences"])
    (step.folder / "sequences.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return tuple(record["gt"] if word == TRUTH else word for word in step.command)
