"""Score predictions: ``hmhi evaluate masks | objects | maps``, or tools/val_zvos.py, val_svos.py, val_vsod.py."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hmhi.commands.errors import report_errors
from hmhi.errors import UserError
from hmhi.evaluation.files import read_sequence_list
from hmhi.evaluation.html_report import write_html_report
from hmhi.evaluation.protocol import MAP_PROTOCOLS, MASK_PROTOCOLS, OBJECT_PROTOCOLS, find_protocol
from hmhi.evaluation.report import format_results, write_csv_report, write_json_report
from hmhi.evaluation.runner import AnyProtocol, evaluate
from hmhi.media.files import read_text


@dataclass(frozen=True)
class Scoring:
    """What differs between the kinds of predictions."""

    description: str
    protocols: Mapping[str, AnyProtocol]
    default: str
    folder: str
    """Sub-folder of an inference output that holds the predictions."""


KINDS = {
    "masks": Scoring("Score binary masks by J and F.", MASK_PROTOCOLS, "davis16", "masks"),
    "objects": Scoring(
        "Score masks of several objects by J and F of each.", OBJECT_PROTOCOLS, "davis17", "masks"
    ),
    "maps": Scoring(
        "Score soft saliency maps by MAE, F, E, S and weighted F.", MAP_PROTOCOLS, "vsod", "prob"
    ),
}


@dataclass(frozen=True)
class InferenceOutput:
    """The newest run of inference, as its ``infer.json`` describes it."""

    pred: Path
    truth: Path | None
    dataset: str | None


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Score one kind of predictions, named by the first argument."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in KINDS:
        chooser = argparse.ArgumentParser(prog=prog, usage=f"%(prog)s {{{','.join(KINDS)}}} [options]")
        chooser.add_argument(
            "kind", choices=KINDS, help="of predictions; '--help' behind it lists the options"
        )
        chooser.parse_args(words[:1])
    scoring = KINDS[words[0]]
    options = _parser(scoring, prog).parse_args(words[1:])
    if options.protocol == "list":
        print(list_protocols(scoring))
    else:
        _score(scoring, options)
    return 0


def list_protocols(scoring: Scoring) -> str:
    """Every protocol with its rule and source."""
    lines = []
    for protocol in scoring.protocols.values():
        lines += [protocol.name, f"    {protocol.rule}", f"    source: {protocol.source}"]
        if protocol.datasets:
            lines.append(f"    chosen by --dataset {', '.join(protocol.datasets)}")
    return "\n".join(lines)


def newest_inference(root: Path, folder: str) -> InferenceOutput:
    """Find the newest inference output that can be scored.

    Args:
        root: Folder of outputs, one folder each with its ``infer.json``.
        folder: ``masks`` or ``prob``.

    Raises:
        FileNotFoundError: There is none, or it cannot be scored; the message says what to run.
    """
    records = sorted(root.glob("*/infer.json"), key=lambda path: path.stat().st_mtime)
    if not records:
        raise FileNotFoundError(
            f"nothing to score: no inference output under {root}/. Run tools/infer.py (or scripts/infer.sh) first, "
            "or name folders by --pred and --gt"
        )
    record = records[-1]
    try:
        values = json.loads(read_text(record))
        dataset, gt = values.get("dataset"), values.get("gt")
        truth = Path(gt) if gt else None
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{record} is damaged ({error}); run tools/infer.py again") from None
    pred = record.parent / folder
    if not pred.is_dir():
        option = " with --save-prob" if folder == "prob" else ""
        raise FileNotFoundError(
            f"{record.parent} holds no {folder}/ folder; run tools/infer.py{option} again"
        )
    if truth and (pred / truth.name).is_dir() and not any(path.is_dir() for path in truth.glob("*")):
        truth = truth.parent  # the input was a single sequence
    return InferenceOutput(pred, truth, dataset)


def _score(scoring: Scoring, options: argparse.Namespace) -> None:
    methods = _named_folders(options.pred)
    truth, dataset = options.gt, options.dataset
    sequences = read_sequence_list(options.sequences) if options.sequences else None
    lead = ""
    if not methods:
        newest = newest_inference(Path("outputs"), scoring.folder)
        methods = {newest.pred.parent.name: newest.pred}
        truth = truth or newest.truth
        known = {name for protocol in scoring.protocols.values() for name in protocol.datasets}
        dataset = dataset or (newest.dataset if newest.dataset in known else None)
        if truth is None:
            raise UserError(f"{newest.pred} was made from a video without annotations; name some by --gt")
        lead = f"scoring {newest.pred} against {truth}\n"
        if sequences is None:  # what was inferred is what is scored
            sequences = sorted(path.name for path in newest.pred.iterdir() if path.is_dir())
    if truth is None:
        raise UserError("--gt is missing: name the folder of annotations (<gt>/<sequence>/<frame>.png)")
    protocol = find_protocol(scoring.protocols, options.protocol, dataset, scoring.default)
    results = {
        name: evaluate(
            folder,
            truth,
            protocol,
            sequences=sequences,
            missing=options.missing,
            extra=options.extra,
            resize=options.resize,
            jobs=options.jobs,
            progress=True,
            meta=getattr(options, "meta", None),
            seen=getattr(options, "seen", None),
        )
        for name, folder in methods.items()
    }
    print(lead + format_results(results))
    for path, write in (
        (options.json, write_json_report),
        (options.csv, write_csv_report),
        (options.html, write_html_report),
    ):
        if path is not None:
            write(results, path)
            print(f"written: {path}")


def _named_folders(entries: Sequence[str]) -> dict[str, Path]:
    """``NAME=DIR`` or ``DIR`` arguments as name -> folder; a folder's own name may hold an equals sign."""
    folders: dict[str, Path] = {}
    for entry in entries:
        name, equals, folder = entry.partition("=")
        if not equals or Path(entry).is_dir():
            name, folder = Path(entry).name or entry, entry
        if name in folders:
            raise UserError(f"two predictions are called {name!r}; name them apart by --pred NAME=DIR")
        folders[name] = Path(folder)
    return folders


def _parser(scoring: Scoring, prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=f"{scoring.description} Without --pred it scores the newest inference output under outputs/.",
    )
    parser.add_argument(
        "--pred", action="append", default=[], metavar="[NAME=]DIR",
        help="predictions, <dir>/<sequence>/<frame>.png; repeat it to compare methods",
    )  # fmt: skip
    parser.add_argument("--gt", type=Path, metavar="DIR", help="annotations, with the same names")
    parser.add_argument("--dataset", metavar="NAME", help="take this data set's protocol")
    parser.add_argument(
        "--protocol", metavar="NAME", help=f"rules to score by, or 'list' (default: {scoring.default})"
    )
    parser.add_argument("--sequences", type=Path, metavar="FILE", help="score these only, one name a line")
    parser.add_argument(
        "--missing", choices=("error", "zero", "skip"), default="error",
        help="a missing prediction is an error, scores worst, or is left out (default: error)",
    )  # fmt: skip
    parser.add_argument(
        "--extra", choices=("error", "skip"), default="error",
        help="a prediction without annotation is an error or is left out (default: error)",
    )  # fmt: skip
    parser.add_argument(
        "--resize", choices=("none", "nearest"), default="none",
        help="fit predictions of another size, instead of an error",
    )  # fmt: skip
    if scoring is KINDS["objects"]:
        parser.add_argument(
            "--meta", type=Path, metavar="FILE", help="meta.json of the annotated videos (protocol ytvos)"
        )
        parser.add_argument(
            "--seen",
            type=Path,
            metavar="FILE",
            help="meta.json of the training videos, for G (protocol ytvos)",
        )
    for form in ("json", "csv", "html"):
        parser.add_argument(
            f"--{form}", type=Path, metavar="FILE", help=f"write the results as {form.upper()}"
        )
    parser.add_argument("--jobs", type=_positive, metavar="N", help="threads (default: all processors)")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value
