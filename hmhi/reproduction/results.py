"""Published against obtained: reads what the steps of a plan left behind, and shows it."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmhi.config import Config
from hmhi.models.cost import PROMPTED_SIZE, count_flops, count_parameters, count_parameters_as_published
from hmhi.reproduction.plan import Planner
from hmhi.reproduction.tables import Row

PERCENT = ("JF", "J", "F")
"""Measures that papers give in per cent."""


@dataclass(frozen=True)
class Line:
    """One number of a table."""

    row: str
    measure: str
    published: float | None
    obtained: tuple[float, ...]
    """One value for each seed that is done."""

    @property
    def mean(self) -> float | None:
        """Of the seeds."""
        return statistics.mean(self.obtained) if self.obtained else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.obtained) if len(self.obtained) > 1 else None

    @property
    def difference(self) -> float | None:
        """Obtained minus published."""
        return None if self.mean is None or self.published is None else self.mean - self.published


def read_lines(name: str, row: Row, overrides: Sequence[str], planner: Planner) -> list[Line]:
    """The scores and the speed of a row, for all seeds that are done with the planner's settings.

    Args:
        name: Of the row.
        row: The row.
        overrides: Of its network.
        planner: Knows which steps there are, and where their results lie.
    """
    obtained: dict[str, list[float]] = defaultdict(list)
    for seed in planner.seeds(row.network):
        steps = planner.steps(row.network, overrides, seed, row.infer)
        rates = []
        for data, benchmark in planner.recipe.test.items():
            folder = planner.test_folder(row.network, seed, data, row.infer)
            if benchmark.kind == "server" or not all(step.done for step in steps if step.folder == folder):
                continue
            metrics = _read(folder / "scores.json")["metrics"]
            for measure, value in _measures(metrics, benchmark.kind).items():
                obtained[f"{data}/{measure}"].append(value)
            rates.append(_frames_a_second(_read(folder / "infer.json")["sequences"]))
        if rates:
            obtained["fps"].append(statistics.mean(rates))
    tested = {"fps", *planner.recipe.test}
    scores = [key for key in {**row.published, **obtained} if key.split("/")[0] in tested]
    return [Line(name, key, row.published.get(key), tuple(obtained.get(key, ()))) for key in scores]


def cost_lines(name: str, row: Row, config: Config, *, full: bool = True) -> list[Line]:
    """Parameters in millions and operations of a frame in billions.

    Args:
        name: Of the row.
        row: The row.
        config: Of its network.
        full: Whether it is the paper's network, not a smaller one in its place.
    """
    height, width = config.data.image_size if config.model.kind == "hmhi" else PROMPTED_SIZE
    published = row.published.get("parameters") if full else None
    lines = [
        Line(name, "parameters, M", None, (count_parameters(config.model) / 1e6,)),
        Line(name, f"GFLOP, {height} x {width}", None, (count_flops(config.model, (height, width)) / 1e9,)),
    ]
    if published is not None:
        counted = count_parameters_as_published(config.model) / 1e6
        lines.insert(1, Line(name, "parameters as published, M", published, (counted,)))
    return lines


def format_lines(lines: Sequence[Line]) -> str:
    """A Markdown table."""
    text = ["| row | measure | published | obtained | difference |", "| --- | --- | --- | --- | --- |"]
    for line in lines:
        spread = "" if line.deviation is None else f" +- {_number(line.deviation, line.measure)}"
        cells = [
            line.row,
            line.measure,
            _number(line.published, line.measure),
            _number(line.mean, line.measure) + spread,
            _number(line.difference, line.measure, sign="+"),
        ]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def lines_to_dict(lines: Sequence[Line]) -> dict[str, Any]:
    """Row to measure to plain values, for the results file."""
    rows: dict[str, Any] = {}
    for line in lines:
        rows.setdefault(line.row, {})[line.measure] = {
            "published": line.published,
            "obtained": line.mean,
            "deviation": line.deviation,
            "difference": line.difference,
            "seeds": list(line.obtained),
        }
    return rows


def _measures(metrics: Mapping[str, float], kind: str) -> dict[str, float]:
    if kind != "maps":
        return {measure: 100 * metrics[f"{measure}_mean"] for measure in PERCENT}
    return {measure: metrics[measure] for measure in ("MAE", "max_F", "max_E", "S")}


def _frames_a_second(videos: Iterable[Mapping[str, Any]]) -> float:
    """Of the network alone, over all videos."""
    videos = list(videos)
    return sum(video["frames"] for video in videos) / sum(video["seconds"]["network"] for video in videos)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _number(value: float | None, measure: str, sign: str = "") -> str:
    if value is None:
        return "-"
    digits = 3 if measure.split("/")[-1] in ("MAE", "max_F", "max_E", "S") else 1
    return f"{value:{sign}.{digits}f}"
