"""Which lines of a list are whose: shard i of n takes every n-th one, from the i-th on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hmhi.errors import UserError

# scheduler's variables of the index, of the first index, and of the count
_SCHEDULERS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT"),
    ("AWS_BATCH_JOB_ARRAY_INDEX", None, "AWS_BATCH_JOB_ARRAY_SIZE"),
    ("JOB_COMPLETION_INDEX", None, "JOB_COMPLETIONS"),  # Kubernetes sets no count: the job's file does
)


@dataclass(frozen=True)
class Shard:
    """One part of a list."""

    index: int = 0
    """From 0."""
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UserError(
                f"shard {self.index}/{self.count} makes no sense: write i/n with 0 <= i < n, such as 0/8"
            )

    def __str__(self) -> str:
        return f"{self.index:05d}-of-{self.count:05d}"

    def lines(self, path: Path) -> Iterator[str]:
        """This shard's lines of a list, read one by one; empty ones and those that begin with # do not count.

        Raises:
            FileNotFoundError: There is no such list.
        """
        number = 0
        # names of files need not be UTF-8: what is not comes back as it was when the file is opened
        with path.open(encoding="utf-8", errors="surrogateescape") as stream:
            for line in stream:
                text = line.strip()
                if not text or text.startswith("#"):
                    continue
                if number % self.count == self.index:
                    yield text
                number += 1


def find_shard(text: str | None, environment: Mapping[str, str]) -> Shard:
    """The shard that a text names, or else a scheduler's array job; the whole list where there is neither.

    Args:
        text: ``i/n``, or None.
        environment: Variables of the process.

    Raises:
        UserError: Not such a text, or a scheduler gives an index and no count.
    """
    if text is not None:
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise UserError(f"shard must be i/n, such as 0/8; got {text!r}")
        return Shard(int(index), int(count))
    for name, first, total in _SCHEDULERS:
        if name not in environment:
            continue
        if total not in environment:
            raise UserError(
                f"{name} is set, but not {total}: set it to the number of shards, or give --shard i/n"
            )
        start = int(environment.get(first, "0")) if first else 0
        return Shard(int(environment[name]) - start, int(environment[total]))
    return Shard()
