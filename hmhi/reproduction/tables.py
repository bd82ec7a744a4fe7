"""A paper's tables as data: networks, how they are trained and tested, and the published numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hmhi.errors import UserError

Part = TypeVar("Part")


class TableError(UserError):
    """A table file is damaged, or has no such table or row."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training run."""

    config: str
    """YAML file, relative to the repository."""
    start: str | None = None
    """Stage whose best weights it starts from."""
    set: tuple[str, ...] = ()
    """Overrides that come after the network's and the user's."""
    scratch: bool = False
    """Start from random weights, whatever the network names; the user's ``train.pretrained`` goes before."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One data set to segment and score."""

    weights: str
    """Stage whose best weights are used."""
    kind: Literal["masks", "objects", "maps", "server"]
    """Scored by J and F, of the foreground or of each object, or by MAE, F, E and S; or only segmented, for a server
    that keeps the truth."""
    protocol: str = ""
    """Of `hmhi.evaluation.protocol`; none for a server."""
    pred: Literal["prob", "masks"] = "prob"
    """Which results of inference are scored."""
    root: str | None = None
    """Folder of data sets, where it is not the user's ``data.root``."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained and tested."""

    train: Mapping[str, Stage]
    test: Mapping[str, Benchmark]
    """Data set to how it is tested."""
    prepare: tuple[str, ...] = ()
    """Commands in ``tools/`` that make data."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    network: str
    published: Mapping[str, float]
    """``<data set>/<measure>``, ``fps`` or ``parameters`` to the published number."""
    infer: tuple[str, ...] = ()
    """Overrides of inference: the row has its network's weights."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table."""

    caption: str
    recipe: str
    rows: Mapping[str, Row]


@dataclass(frozen=True, kw_only=True)
class Paper:
    """All tables of a paper."""

    paper: str
    """Its title."""
    recipes: Mapping[str, Recipe]
    networks: Mapping[str, tuple[str, ...]]
    """Name to config overrides."""
    tables: Mapping[int, Table]

    def table(self, number: int) -> Table:
        """Look a table up.

        Raises:
            TableError: There is none of this number.
        """
        if number not in self.tables:
            raise TableError(f"no table {number}; there are {', '.join(map(str, self.tables))}")
        return self.tables[number]

    def recipe(self, table: Table, budget: str) -> Recipe:
        """The recipe of a table under a budget, ``full`` or another one.

        Raises:
            TableError: The table has no recipe for this budget.
        """
        name = table.recipe if budget == "full" else f"{table.recipe}-{budget}"
        if name not in self.recipes:
            raise TableError(f"no recipe {name}; there are {', '.join(self.recipes)}")
        return self.recipes[name]


def select_rows(table: Table, names: Iterable[str]) -> dict[str, Row]:
    """The named rows of a table; all of them where no name is given.

    Raises:
        TableError: A name is unknown.
    """
    names = list(names) or list(table.rows)
    unknown = [name for name in names if name not in table.rows]
    if unknown:
        raise TableError(f"no row {unknown[0]!r}; there are {', '.join(map(repr, table.rows))}")
    return {name: table.rows[name] for name in names}


def read_paper(path: Path) -> Paper:
    """Read a table file.

    Raises:
        TableError: It does not exist, is no YAML, lacks a key, or names a network, stage or recipe that it does
            not have.
    """
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise TableError(f"no table file {path}; papers in {path.parent}: {', '.join(known) or 'none'}")
    try:
        values: Any = OmegaConf.to_container(OmegaConf.load(path))
        paper = _paper(values)
    except (OmegaConfBaseException, YAMLError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path} is no table file: {type(error).__name__}: {error}") from None
    _check(paper, path)
    return paper


def _paper(values: Mapping[str, Any]) -> Paper:
    recipes = {
        name: Recipe(
            train={stage: _make(Stage, part) for stage, part in recipe["train"].items()},
            test={data: _make(Benchmark, part) for data, part in recipe["test"].items()},
            prepare=tuple(recipe.get("prepare", ())),
        )
        for name, recipe in values["recipes"].items()
    }
    tables = {
        int(number): Table(
            caption=table["caption"],
            recipe=table["recipe"],
            rows={str(name): _make(Row, row) for name, row in table["rows"].items()},
        )
        for number, table in values["tables"].items()
    }
    networks = {name: tuple(_flat(overrides)) for name, overrides in values["networks"].items()}
    return Paper(paper=values["paper"], recipes=recipes, networks=networks, tables=tables)


def _make(kind: type[Part], values: Mapping[str, Any]) -> Part:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if set(values) - known:
        raise KeyError(f"{', '.join(sorted(set(values) - known))} in a {kind.__name__}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _flat(items: Iterable[Any]) -> list[str]:
    """Lists may hold lists: YAML has no other way to join them."""
    flat: list[str] = []
    for item in items:
        flat += _flat(item) if isinstance(item, list) else [str(item)]
    return flat


def _check(paper: Paper, path: Path) -> None:
    problems = []
    for number, table in paper.tables.items():
        problems += [
            f"table {number}, row {name!r}: no network {row.network}"
            for name, row in table.rows.items()
            if row.network not in paper.networks
        ]
        if table.recipe not in paper.recipes:
            problems.append(f"table {number}: no recipe {table.recipe}")
    for name, recipe in paper.recipes.items():
        stages = [stage.start for stage in recipe.train.values() if stage.start]
        stages += [benchmark.weights for benchmark in recipe.test.values()]
        problems += [f"recipe {name}: no stage {stage}" for stage in stages if stage not in recipe.train]
        problems += [
            f"recipe {name}: {data} has no protocol"
            for data, benchmark in recipe.test.items()
            if not benchmark.protocol and benchmark.kind != "server"
        ]
    if problems:
        raise TableError(f"{path}: " + "; ".join(problems))
