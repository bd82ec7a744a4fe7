"""Reproduce a paper's table: train, segment and score what its rows need, then compare with the published numbers.

python tools/reproduce.py --list
python tools/reproduce.py --paper hmhi --table 4 --dry-run
python tools/reproduce.py --paper hmhi --table 4 --row HMHI-Net --seeds 3
python tools/reproduce.py --paper hmhi --table 3 --budget small data.root=data
python tools/reproduce.py --paper hmhi --table 3 --costs

Run again, it continues where it stopped.
"""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from hmhi.commands.errors import report_errors
from hmhi.config import Config, load_config
from hmhi.errors import UserError
from hmhi.media.atomic import write_json
from hmhi.reproduction.plan import FIRST_SEED, Planner, Step, run_step, unique
from hmhi.reproduction.results import Line, cost_lines, format_lines, lines_to_dict, read_lines
from hmhi.reproduction.tables import read_paper, select_rows

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TABLES = REPOSITORY / "configs" / "tables"
MAX_SEEDS = 1000


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    args = parse_arguments(arguments, prog)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not (REPOSITORY / "scripts" / "train.sh").is_file():
        raise UserError(
            "reproduction needs the repository with its configs; clone it, then tools/reproduce.py"
        )
    if args.list:
        print(list_tables(args.tables, args.paper))
        return 0
    if args.paper is None or args.table is None:
        raise UserError("name a table by --paper and --table; --list shows them all")
    paper = read_paper(args.tables / f"{args.paper}.yaml")
    table = paper.table(args.table)
    rows = select_rows(table, args.row)
    full = args.budget == "full"
    root = args.output / args.paper if full else args.output / args.budget / args.paper
    planner = Planner(root.resolve(), paper.recipe(table, args.budget), tuple(args.overrides))
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    title = f"{paper.paper}\ntable {args.table}: {table.caption}"
    if not full:
        title += f"\nbudget {args.budget}: compare the rows with each other, not with the paper"
    steps = unique(
        step
        for seed in seeds
        for row in rows.values()
        for step in planner.steps(row.network, paper.networks[row.network], seed, row.infer)
    )
    if args.dry_run:
        print(f"{title}\n{describe(steps)}")
        return 0

    def config_of(name: str) -> Config:
        row = table.rows[name]
        return base_config(planner, (*paper.networks[row.network], *row.infer))

    def costs(name: str) -> list[Line]:
        return cost_lines(name, table.rows[name], config_of(name), full=full)

    for name in rows:
        config_of(name)  # mistakes in settings show before anything is trained
    if args.costs:
        print(f"{title}\n{format_lines([line for name in rows for line in costs(name)])}")
        return 0
    try:
        for step in steps:
            if not step.done:
                run_step(step, REPOSITORY)
    finally:
        lines = []
        for name, row in table.rows.items():  # rows and seeds of earlier calls with these settings count too
            scores = read_lines(name, row, paper.networks[row.network], planner)
            if name in rows or any(line.obtained for line in scores):
                lines += scores + costs(name)
        results = root / f"table{args.table}.json"
        write_json(results, {"paper": paper.paper, "table": args.table, "rows": lines_to_dict(lines)})
        print(f"\n{title}\n{format_lines(lines)}\nwritten: {results}")
    return 0


def parse_arguments(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=prog, description="Train, segment and score what a paper's table needs, and compare with it."
    )
    parser.add_argument("--list", action="store_true", help="show papers, tables and rows")
    parser.add_argument("--paper", metavar="NAME", help="such as hmhi")
    parser.add_argument("--table", type=int, metavar="N", help="number of the table")
    parser.add_argument(
        "--row", action="append", default=[], metavar="NAME", help="only this row; may be repeated"
    )
    parser.add_argument("--seeds", type=count_of_seeds, default=1, metavar="N", help="trainings of each row")
    parser.add_argument(
        "--budget", choices=("full", "small"), default="full",
        help="small: synthetic video at a reduced size, to compare rows with each other",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and which are done")
    parser.add_argument(
        "--costs", action="store_true", help="print parameters and operations; nothing is trained"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/reproduce"), help="default: runs/reproduce")
    parser.add_argument("--tables", type=Path, default=TABLES, metavar="FOLDER", help="of table files")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings of every training, such as train.batch_size=1",
    )
    return parser.parse_intermixed_args(arguments)


def list_tables(folder: Path, paper: str | None) -> str:
    """Papers, their tables and rows."""
    lines = []
    for path in sorted(folder.glob(f"{paper or '*'}.yaml")):
        content = read_paper(path)
        lines.append(f"{path.stem}: {content.paper}")
        for number, table in content.tables.items():
            lines.append(f"  table {number}: {table.caption}")
            for name, row in table.rows.items():
                note = f" ({row.note})" if row.note else ""
                lines.append(f"    {name}{note}")
    if not lines:
        raise UserError(f"no table files {folder}/{paper or '*'}.yaml")
    return "\n".join(lines)


def base_config(planner: Planner, overrides: Sequence[str]) -> Config:
    """Config of a network's first stage."""
    stage = next(iter(planner.recipe.train.values()))
    return load_config(REPOSITORY / stage.config, [*overrides, *planner.overrides])


def describe(steps: Sequence[Step]) -> str:
    """Every command, and whether it is done, or its folder holds what other settings led to."""
    states = ("done" if s.done else "changed" if s.changed else "to do" for s in steps)
    return "\n".join(
        f"[{state}] {step.name}\n  {shlex.join(step.command)}"
        for state, step in zip(states, steps, strict=True)
    )


def count_of_seeds(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_SEEDS:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_SEEDS}, got {text}")
    return value
