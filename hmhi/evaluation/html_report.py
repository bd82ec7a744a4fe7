"""Results as one self-contained HTML file: tables, bars, curves as inline SVG, best and worst frames."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hmhi.evaluation.frame import read_merged
from hmhi.evaluation.report import SEQUENCE_COLUMNS, class_means, describe_reading, headline, kind_of
from hmhi.evaluation.summary import FrameScore, Result
from hmhi.media.atomic import write_atomically
from hmhi.media.names import printable

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito
PICTURE_WIDTH = 300
BEST, WORST, PER_SEQUENCE = 4, 8, 2

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse}
td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}
.row{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0}figcaption{font-size:.8em;max-width:320px}
.note{background:#fff4d6;padding:.4em .8em;margin:.3em 0}svg{background:#fff}svg text{font:11px system-ui,sans-serif}
.key span{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}
"""


def write_html_report(results: Mapping[str, Result], path: Path) -> None:
    """Write the report of one method, or of several side by side."""
    with write_atomically(path) as stream:
        stream.write(render(results).encode())


def render(results: Mapping[str, Result]) -> str:
    """The whole page."""
    first = next(iter(results.values()))
    masks = kind_of(first.protocol) == "mask"
    columns = SEQUENCE_COLUMNS[kind_of(first.protocol)]
    per_frame, overall = ("J", "J&F") if masks else ("S", "S")
    means = {name: result.metrics for name, result in results.items()}
    body = [
        f"<h1>{'Masks' if masks else 'Saliency maps'}: {_text(', '.join(results))}</h1>",
        f"<p>Protocol <b>{_text(first.protocol.name)}</b>: {_text(first.protocol.rule)}. "
        f"Source: {_text(first.protocol.source)}. Reading: {_text(describe_reading(first.protocol))}.</p>",
        *(_provenance(name, result) for name, result in results.items()),
        "<h2>Means</h2>",
        _table("method", means, ("JF_mean", *columns) if masks else columns),
    ]
    for name, result in results.items():
        if result.classes:
            classes = {**result.classes, "mean of classes": class_means(result)}
            body += [f"<h2>Classes, {_text(name)}</h2>", _table("class", classes, ("J_mean", "F_mean"))]
    body += [f"<h2>{_text(overall)} of each sequence</h2>", _key(results), _bars(results)]
    for name, result in results.items():
        rows = {key: sequence.metrics for key, sequence in result.sequences.items()}
        table = _table("sequence", rows, columns)
        body.append(f"<details><summary>All scores of {_text(name)}</summary>{table}</details>")
        if result.objects:
            table = _table("object", result.objects, columns)
            body.append(f"<details><summary>Objects of {_text(name)}</summary>{table}</details>")
    if first.curves:
        body += ["<h2>Curves over 256 thresholds</h2>", _key(results), _curves(results)]
    body += [f"<h2>{per_frame} over time</h2>", _key(results), _timelines(results, per_frame)]
    for name, result in results.items():
        body += [f"<h2>Worst and best frames, {_text(name)}</h2>", PICTURE_KEY, _gallery(result)]
    title = f"{first.protocol.name}: {', '.join(results)}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


PICTURE_KEY = (
    '<p class="key"><span style="background:#2e9e5b"></span>found <span style="background:#d0342c"></span>'
    'false alarm <span style="background:#3465d0"></span>missed</p>'
)


def _text(value: str) -> str:
    return escape(printable(value))


def _provenance(name: str, result: Result) -> str:
    left_out = "; ".join(f"{count} {reason}" for reason, count in result.left_out.items()) or "none"
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in result.notes)
    return (
        f"<p><b>{_text(name)}</b>: {result.frames_scored} frames of {len(result.sequences)} sequences scored; "
        f"frames left out: {_text(left_out)}.</p>{notes}"
    )


def _table(head: str, rows: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> str:
    titles = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><td>{_text(name)}</td>" + "".join(f"<td>{row[column]:.4f}</td>" for column in columns) + "</tr>"
        for name, row in rows.items()
    )
    return f"<table><tr><th>{head}</th>{titles}</tr>{body}</table>"


def _key(names: Mapping[str, Result]) -> str:
    if len(names) == 1:
        return ""
    entries = (f'<span style="background:{_colour(i)}"></span>{_text(name)}' for i, name in enumerate(names))
    return f'<p class="key">{"".join(entries)}</p>'


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _bars(results: Mapping[str, Result]) -> str:
    """Horizontal bars, one group for each sequence, one bar in it for each method."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.sequences))
    thickness, left, width = 13, 200, 600
    group = thickness * len(results) + 8
    parts = []
    for row, name in enumerate(names):
        top = row * group
        parts.append(f'<text x="{left - 8}" y="{top + group / 2}" text-anchor="end">{_text(name)}</text>')
        for index, result in enumerate(results.values()):
            if name not in result.sequences:
                continue
            score, y = headline(result, name), top + index * thickness
            length = width * min(max(score, 0), 1)
            parts.append(
                f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{thickness - 2}" '
                f'fill="{_colour(index)}"/><text x="{left + length + 4:.1f}" y="{y + 10}">{score:.3f}</text>'
            )
    return _svg(left + width + 60, group * len(names), parts)


def _timelines(results: Mapping[str, Result], measure: str) -> str:
    """One small chart for each sequence, one line in it for each method."""
    charts = []
    for name in next(iter(results.values())).sequences:
        series = []
        for result in results.values():
            frames = result.sequences[name].frames if name in result.sequences else {}
            values = np.array([frame.metrics[measure] for frame in frames.values()])
            series.append((np.arange(len(values), dtype=np.float64), values))
        charts.append(_figure(_chart(series, 320, 130), name))
    return f'<div class="row">{"".join(charts)}</div>'


def _curves(results: Mapping[str, Result]) -> str:
    thresholds = np.arange(256) / 255
    curves = [result.curves for result in results.values()]
    charts = [
        (
            "precision (up) against recall (right)",
            [(curve["recall"], curve["precision"]) for curve in curves],
        ),
        ("F against threshold", [(thresholds, curve["f"]) for curve in curves]),
        ("E against threshold", [(thresholds, curve["e"]) for curve in curves]),
    ]
    figures = (_figure(_chart(series, 330, 240), title) for title, series in charts)
    return f'<div class="row">{"".join(figures)}</div>'


def _chart(series: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], width: int, height: int) -> str:
    """Lines in a frame from 0 to 1 upwards, and from 0 to the largest x."""
    left, right, top, bottom = 28, 8, 6, 18
    plot_width, plot_height = width - left - right, height - top - bottom
    x_max = max([1.0, *(float(x.max()) for x, _ in series if x.size)])
    parts = [
        f'<rect x="{left}" y="{top}" width="{plot_width}" height="{plot_height}" fill="none" stroke="#bbb"/>'
    ]
    for value in (0, 0.5, 1):
        y = top + plot_height * (1 - value)
        parts.append(f'<text x="{left - 4}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    parts.append(f'<text x="{width - right}" y="{height - 4}" text-anchor="end">{x_max:g}</text>')
    for index, (xs, ys) in enumerate(series):
        points = " ".join(
            f"{left + plot_width * x / x_max:.1f},{top + plot_height * (1 - min(max(y, 0), 1)):.1f}"
            for x, y in zip(xs, ys, strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{_colour(index)}" stroke-width="1.5"/>'
        )
    return _svg(width, height, parts)


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    content = "".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{content}</svg>'


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{_text(caption)}</figcaption></figure>"


def _gallery(result: Result) -> str:
    """Pictures of the worst and the best frames, a few of each sequence at most."""
    ranked = sorted(
        (_frame_score(frame), name, stem)
        for name, sequence in result.sequences.items()
        for stem, frame in sequence.frames.items()
    )
    worst = _few_of_each(ranked, WORST)
    best = _few_of_each([entry for entry in reversed(ranked) if entry not in worst], BEST)
    figures = []
    for _, name, stem in [*worst, *best]:
        frame = result.sequences[name].frames[stem]
        scores = ", ".join(
            f"{key} {frame.metrics[key]:.3f}" for key in ("J", "F", "S", "MAE") if key in frame.metrics
        )
        missing = " (no prediction)" if frame.pred is None else ""
        picture = f'<img src="{_picture(frame)}" alt="" width="{PICTURE_WIDTH}">'
        figures.append(_figure(picture, f"{name}/{stem}: {scores}{missing}"))
    return f'<div class="row">{"".join(figures)}</div>'


def _few_of_each(ranked: Sequence[tuple[float, str, str]], count: int) -> list[tuple[float, str, str]]:
    chosen: list[tuple[float, str, str]] = []
    for entry in ranked:
        if len(chosen) < count and sum(other[1] == entry[1] for other in chosen) < PER_SEQUENCE:
            chosen.append(entry)
    return chosen


def _frame_score(frame: FrameScore) -> float:
    metrics = frame.metrics
    return metrics["S"] if "S" in metrics else (metrics["J"] + metrics["F"]) / 2


def _picture(frame: FrameScore) -> str:
    """Prediction against annotation in four colours, as a data URI; soft maps blend between them."""
    truth = read_merged(frame.truth)[0] > 0
    strength = np.zeros(truth.shape) if frame.pred is None else _strength(frame.pred, truth.shape)
    found, alarm, missed, neither = ((46, 158, 91), (208, 52, 44), (52, 101, 208), (30, 30, 30))
    inside = np.where(truth[..., None], found, alarm)
    outside = np.where(truth[..., None], missed, neither)
    pixels = strength[..., None] * inside + (1 - strength[..., None]) * outside
    height = max(1, round(PICTURE_WIDTH * truth.shape[0] / truth.shape[1]))
    image = Image.fromarray(pixels.astype(np.uint8)).resize((PICTURE_WIDTH, height), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.quantize(32).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _strength(path: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
    levels, is_index = read_merged(path)
    if is_index or levels.max() <= 1:
        levels = (levels > 0) * np.uint8(255)
    if levels.shape != shape:
        size = (shape[1], shape[0])
        levels = np.array(Image.fromarray(levels).resize(size, Image.Resampling.NEAREST))
    return levels / 255
