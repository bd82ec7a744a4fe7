"""Train a model.

python tools/train.py --config configs/pretrain_ytvos.yaml [key=value ...] [--resume auto|PATH]
torchrun --standalone --nproc_per_node 4 tools/train.py --config configs/pretrain_ytvos.yaml
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from hmhi.commands.errors import report_errors
from hmhi.config import load_config
from hmhi.runtime.allocator import keep_pages
from hmhi.training.plan import describe_plan
from hmhi.training.run import check_inputs
from hmhi.training.train import TrainingError, fit


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Train a model.")
    parser.add_argument("--config", required=True, metavar="FILE", help="experiment, see configs/")
    parser.add_argument(
        "--resume", metavar="auto|PATH", help="continue the run folder's newest checkpoint, or this one"
    )
    parser.add_argument(
        "--load-from", metavar="PATH", help="start from the weights of a checkpoint (fine-tuning)"
    )
    parser.add_argument(
        "--force", action="store_true", help="resume although the config or the process count changed"
    )
    parser.add_argument("--check", action="store_true", help="read the config, look for the data, and stop")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="also print the resolved config, parameter groups, steps and an estimate of the memory, and stop",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="of the run that --dry-run describes (default: 1)",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as train.lr=1e-4")
    args = parser.parse_intermixed_args(arguments)
    if args.processes < 1:
        parser.error(f"--processes must be at least 1, got {args.processes}")
    keep_pages()

    config = load_config(args.config, args.overrides)
    if args.load_from is not None:
        config = replace(config, train=replace(config.train, load_from=args.load_from))
    if args.dry_run:
        print(describe_plan(config, args.resume, args.processes))
        return 0
    if args.check:
        print(check_inputs(config, args.resume))
        return 0
    try:
        signal = fit(config, resume=args.resume, force=args.force)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 128 + signal if signal else 0
