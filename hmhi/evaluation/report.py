"""Results as text for the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hmhi.evaluation.protocol import MapProtocol, MaskProtocol, ObjectProtocol, Protocol
from hmhi.evaluation.summary import Result
from hmhi.media.atomic import write_atomically, write_json
from hmhi.media.names import printable

SEQUENCE_COLUMNS = {
    "mask": ("J_mean", "J_recall", "J_decay", "F_mean", "F_recall", "F_decay"),
    "map": ("MAE", "max_F", "mean_F", "adp_F", "max_E", "mean_E", "adp_E", "S", "wF"),
}


def kind_of(protocol: Protocol) -> str:
    """``mask`` or ``map``: which scores a result of this protocol holds."""
    return "map" if isinstance(protocol, MapProtocol) else "mask"


def result_to_dict(result: Result) -> dict[str, Any]:
    """One method's result as plain values, in the form that ``--json`` writes.

    ``protocol``, ``metrics`` and ``sequences`` hold the scores; ``details`` says how they were taken.
    """
    masks = kind_of(result.protocol) == "mask"
    sequences: dict[str, Any] = {}
    for name, sequence in result.sequences.items():
        if masks:
            frames = {stem: frame.metrics for stem, frame in sequence.frames.items()}
            means = {key: sequence.metrics[key] for key in ("J_mean", "F_mean")}
            sequences[name] = {**means, "frames": frames}
        else:
            sequences[name] = sequence.metrics
    details: dict[str, Any] = {
        "rule": result.protocol.rule,
        "source": result.protocol.source,
        "reading": describe_reading(result.protocol),
        "sequences_scored": len(result.sequences),
        "frames_scored": result.frames_scored,
        "frames_left_out": result.left_out,
        "notes": [printable(note) for note in result.notes],
    }
    if result.classes:
        details["classes"] = result.classes
        details["class_means"] = class_means(result)
    return {
        "protocol": result.protocol.name,
        "metrics": result.metrics,
        "sequences": sequences,
        **({"objects": result.objects} if result.objects else {}),
        "details": details,
    }


def class_means(result: Result) -> dict[str, float]:
    """Mean over classes of J and F."""
    return {
        key: sum(scores[key] for scores in result.classes.values()) / len(result.classes)
        for key in ("J_mean", "F_mean")
    }


def describe_reading(protocol: Protocol) -> str:
    """How pixels become foreground, in words."""
    if isinstance(protocol, ObjectProtocol):
        return "object ids; undecided pixels of the annotation are background"
    if isinstance(protocol, MaskProtocol):
        stretch = ", after a min-max stretch of soft maps" if protocol.stretch else ""
        return f"palette index above 0, or grey level above {protocol.threshold}{stretch}"
    assert isinstance(protocol, MapProtocol)
    stretch = "min-max stretched" if protocol.stretch else "as stored"
    return f"8-bit maps, {stretch}; 256 thresholds; definitions of the {protocol.definitions}"


def format_results(results: Mapping[str, Result]) -> str:
    """Tables for the terminal: one line per sequence for one method, one line per method for several."""
    first = next(iter(results.values()))
    lines = [
        f"protocol {first.protocol.name}: {first.protocol.rule}",
        f"source   {first.protocol.source}",
        f"reading  {describe_reading(first.protocol)}",
        "",
    ]
    columns = SEQUENCE_COLUMNS[kind_of(first.protocol)]
    if len(results) == 1:
        rows = {name: sequence.metrics for name, sequence in first.sequences.items()}
        lines += table_lines("sequence", rows, columns, foot={} if first.objects else {"mean": first.metrics})
        if first.classes:
            lines += ["", *table_lines("class", first.classes, ("J_mean", "F_mean"), foot={
                "mean of classes": class_means(first)
            })]  # fmt: skip
        if first.objects:
            lines += [
                "",
                *table_lines("object", first.objects, columns, foot={"mean of objects": first.metrics}),
            ]
        if "G" in first.metrics:
            four = [f"{name} {value:.4f}" for name, value in first.metrics.items() if name.endswith("seen")]
            lines += ["", f"G {first.metrics['G']:.4f} ({', '.join(four)})"]
        if "JF_mean" in first.metrics:
            lines += ["", f"J&F {first.metrics['JF_mean']:.4f}"]
    else:
        rows = {name: result.metrics for name, result in results.items()}
        lines += table_lines("method", rows, ("JF_mean", *columns) if columns[0] == "J_mean" else columns)
        lines += ["", *_format_comparison(results)]
    for name, result in results.items():
        prefix = f"{printable(name)}: " if len(results) > 1 else ""
        lines += ["", f"{prefix}{result.frames_scored} frames of {len(result.sequences)} sequences scored"]
        lines += [f"{prefix}{count} frames left out: {reason}" for reason, count in result.left_out.items()]
        lines += [f"{prefix}note: {printable(note)}" for note in result.notes]
    return "\n".join(lines)


def table_lines(
    head: str,
    rows: Mapping[str, Mapping[str, float]],
    columns: Sequence[str],
    foot: Mapping[str, Mapping[str, float]] | None = None,
) -> list[str]:
    """Lines of a table with one row for each name; decimals to four places."""
    foot = foot or {}
    names = [printable(name) for name in [*rows, *foot]]
    width = max(map(len, [head, *names]))
    title = f"{head:<{width}}  " + "  ".join(f"{column:>8}" for column in columns)
    body = [
        f"{printable(name):<{width}}  " + "  ".join(f"{row[column]:8.4f}" for column in columns)
        for name, row in [*rows.items(), *foot.items()]
    ]
    rule = "-" * len(title)
    return [title, rule, *body[: len(rows)], *([rule, *body[len(rows) :]] if foot else [])]


def _format_comparison(results: Mapping[str, Result]) -> list[str]:
    """One row for each sequence, one column for each method, of J&F or S."""
    first = next(iter(results.values()))
    measure = "J&F" if kind_of(first.protocol) == "mask" else "S"
    rows = {
        name: {method: headline(result, name) for method, result in results.items()}
        for name in first.sequences
        if all(name in result.sequences for result in results.values())
    }
    return table_lines(f"{measure} of sequence", rows, list(results))


def headline(result: Result, sequence: str) -> float:
    """The score by which sequences are compared: mean of J and F, or S."""
    metrics = result.sequences[sequence].metrics
    return metrics["S"] if "S" in metrics else (metrics["J_mean"] + metrics["F_mean"]) / 2


def write_json_report(results: Mapping[str, Result], path: Path) -> None:
    """Write one result as `result_to_dict` gives it, or several under ``{"methods": {name: result}}``."""
    values = {name: result_to_dict(result) for name, result in results.items()}
    whole = next(iter(values.values())) if len(values) == 1 else {"methods": values}
    write_json(path, whole, indent=1)


def write_csv_report(results: Mapping[str, Result], path: Path) -> None:
    """Write one row for each frame, sequence and data set of each method; empty cells are not defined."""
    first = next(iter(results.values()))
    kind = kind_of(first.protocol)
    frame_columns = ["J", "F"] if kind == "mask" else []
    columns = [*frame_columns, *(["JF_mean"] if kind == "mask" else []), *SEQUENCE_COLUMNS[kind]]
    with (
        write_atomically(path) as binary,
        io.TextIOWrapper(binary, "utf-8", "backslashreplace", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["method", "protocol", "level", "sequence", "frame", *columns])
        for method, result in results.items():
            for place, metrics in _rows(result):
                cells = (metrics.get(column, "") for column in columns)
                writer.writerow([method, result.protocol.name, *place, *cells])


def _rows(result: Result) -> Iterator[tuple[tuple[str, str, str], Mapping[str, float]]]:
    """(level, sequence, frame) and scores, from the data set down."""
    yield ("dataset", "", ""), result.metrics
    for name, sequence in result.sequences.items():
        yield ("sequence", name, ""), sequence.metrics
    for name, metrics in result.objects.items():
        yield ("object", name, ""), metrics
    for name, sequence in result.sequences.items():
        for stem, frame in sequence.frames.items():
            yield ("frame", name, stem), frame.metrics
