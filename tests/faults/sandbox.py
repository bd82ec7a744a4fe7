"""Run a command as a hostile user would, and check what must hold for every one of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Maker = Callable[[Path], object]
HALF_WRITTEN = (".part", ".partial", ".work", ".tmp")
PEAK_MIB = 3000  # of which the warm process itself has about 700


@dataclass(frozen=True)
class Case:
    """One line of a table."""

    line: str | tuple[str, ...]
    """What is typed; words are split at spaces. ``hmhi`` stands before it unless it begins with a tool's name."""
    made: tuple[Maker, ...] = ()
    """What makes the files, called one after the other with the working directory."""
    code: int | tuple[int, ...] = 2
    says: str | tuple[str, ...] = ()
    """What the message must name."""
    outputs: tuple[str, ...] = ("out",)
    """Where the command may write."""
    file_limit: int = 0
    """Size in bytes beyond which no file can grow, as on a full disk; 0 for none."""
    timeout: float = 60

    @property
    def words(self) -> list[str]:
        words = list(self.line) if isinstance(self.line, tuple) else self.line.split()
        return words if words and words[0] in TOOLS else ["hmhi", *words]


TOOLS = ("draw_strip", "make_baselines", "compare_runs")


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    code: int
    hung: bool
    orphans: bool
    seconds: float
    processor: float
    peak_mib: float
    out: str
    err: str


class Warm:
    """The other end of `warm.py`."""

    def __init__(self, repository: Path, scratch: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(repository),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._scratch = scratch
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("warm.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=environment, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def run(
        self, words: Sequence[str], cwd: Path, *, timeout: float = 60, file_limit: int = 0, **environment: str
    ) -> Ending:
        assert self._process.stdin is not None and self._process.stdout is not None
        said = [self._scratch / name for name in ("stdout", "stderr")]
        request: dict[str, Any] = {
            "words": list(words), "cwd": str(cwd), "stdout": str(said[0]), "stderr": str(said[1]),
            "timeout": timeout, "file_limit": file_limit, "environment": environment,
        }  # fmt: skip
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in said)
        return Ending(**answer, out=out, err=err)

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(timeout=10)


def snapshot(root: Path, outputs: Sequence[str]) -> dict[str, str]:
    """Path -> contents of all that lies below a folder, but for the outputs."""
    found = {}
    for folder, names, files in os.walk(root):
        here = Path(folder)
        names[:] = [name for name in names if os.path.relpath(here / name, root) not in outputs]
        for name in [*names, *files]:
            path = here / name
            place = os.path.relpath(path, root)
            if place in outputs:
                continue
            if path.is_symlink():
                found[place] = f"link to {os.readlink(path)}"
            elif path.is_file():
                found[place] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[place] = "folder" if path.is_dir() else "special"
    return found


def leftovers(root: Path, outputs: Sequence[str]) -> list[str]:
    """Half-written files and working folders in the outputs."""
    return [
        str(path.relative_to(root))
        for output in outputs
        if len(output) < 255  # beyond, no file can have that name
        for path in (root / output).rglob("*")
        if path.name.endswith(HALF_WRITTEN) and (not path.is_dir() or any(path.iterdir()))
    ]


def complaints(case: Case, warm: Warm, root: Path) -> list[str]:
    """Run a case in an empty folder; what is wrong with its end, in words."""
    work = root / "work"
    work.mkdir(parents=True)
    for make in case.made:
        make(work)
    before = snapshot(root, [f"work/{name}" for name in case.outputs])
    end = warm.run(case.words, work, timeout=case.timeout, file_limit=case.file_limit)
    after = snapshot(root, [f"work/{name}" for name in case.outputs])
    codes = case.code if isinstance(case.code, tuple) else (case.code,)
    says = case.says if isinstance(case.says, tuple) else (case.says,)
    said = end.err + end.out
    wrong = [
        f"exit code {end.code}, not {codes}" * (end.code not in codes),
        "hung" * end.hung,
        "left processes behind" * end.orphans,
        f"took {end.peak_mib:.0f} MiB" * (end.peak_mib > PEAK_MIB),
        "a traceback" * ("Traceback (most recent call last)" in said),
        *(f"does not name {text!r}" * (text not in said) for text in says),
        "control characters" * any(ord(c) < 32 and c not in "\n\r\t\x1b" for c in end.err),
        "a terminal escape from a name"
        * ("\x1b[31m" in said and not any("\x1b" in word for word in case.words)),
        *(f"{place} is gone" for place in before if place not in after),
        *(f"{place} has changed" for place in before if after.get(place, before[place]) != before[place]),
        *(f"{place} is new" for place in after if place not in before),
        *(f"{place} was left half-written" for place in leftovers(work, case.outputs)),
    ]
    if end.code == 2:
        wrong.append(
            "neither an error nor a list of problems"
            * ("error: " not in end.err and "PROBLEM" not in end.out)
        )
    wrong = [text for text in wrong if text]
    return [*wrong, end.err[-1500:]] if wrong else []
