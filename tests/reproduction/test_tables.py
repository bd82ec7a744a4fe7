"""The shipped tables: every row builds, counts what the paper counts, and learns with all of its parameters."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hmhi.config import Config, load_config
from hmhi.models.build import build_model
from hmhi.models.cost import (
    PROMPTED_SIZE,
    count_flops,
    count_parameters,
    count_parameters_as_published,
    count_prompted_flops,
)
from hmhi.reproduction.tables import TableError, read_paper, select_rows

REPOSITORY = Path(__file__).resolve().parents[2]
TABLES = REPOSITORY / "configs" / "tables"
HMHI = read_paper(TABLES / "hmhi.yaml")
HMMN = read_paper(TABLES / "hmmn.yaml")


def config_of(network: str, *overrides: str) -> Config:
    base = REPOSITORY / HMHI.recipes["uvos"].train["pretrain"].config
    return load_config(base, [*HMHI.networks[network], *overrides])


def test_every_recipe_trains_as_its_configs_say():
    for paper in (HMHI, HMMN, read_paper(TABLES / "stma.yaml")):
        for recipe, network in itertools.product(paper.recipes.values(), paper.networks.values()):
            for stage in recipe.train.values():
                settings = [item.replace("{output}", "out") for item in stage.set]
                load_config(REPOSITORY / stage.config, [*network, *settings])


PUBLISHED = {
    (number, name): row
    for number, table in HMHI.tables.items()
    for name, row in table.rows.items()
    if "parameters" in row.published
}


def test_parameter_counts_of_the_paper():
    """To the last digit that the paper prints; all nine networks of Tables 3 and 4."""
    counts = {row.network: row.published["parameters"] for row in PUBLISHED.values()}
    assert len(counts) == 9
    for network, published in counts.items():
        counted = count_parameters_as_published(config_of(network).model) / 1e6
        assert counted == pytest.approx(published, abs=0.05), network


def test_operations_of_the_release():
    """What the release needs for a frame of 512 x 512 (measured), less what is not computed twice here."""
    assert count_parameters(config_of("baseline").model) == 23_153_861
    baseline = count_flops(config_of("baseline").model, (512, 512))
    assert baseline / 1e9 == pytest.approx(122.62, abs=0.005)
    full = count_flops(config_of("full").model, (512, 512))
    weights_times_values = 2 * 4096 * (5 * 4096) * 128  # here the 50 kept values are gathered
    projections = 4 * 2 * (4096 * 2 * 128**2 + 256 * 2 * 512**2)  # of four stored frames, here once for all
    unused = 2 * 256 * 512 * 128  # a position encoding that the release projects and drops
    assert (full + weights_times_values + projections + unused) / 1e9 == pytest.approx(209.01, abs=0.005)


def test_costs_of_hmmn():
    """Parameters and operations of the release (measured), for one object, 480 x 854 and two frames in memory."""
    config = load_config(None, ["model.kind=hmmn", *HMMN.networks["full"]])
    assert count_parameters(config.model) == 42_760_194
    with torch.device("meta"), torch.no_grad():
        model = build_model(config.model)
        segment, memorise = count_prompted_flops(model, torch.empty(1, 3, *PROMPTED_SIZE))
    assert segment / 1e9 == pytest.approx(330.6, abs=0.05)
    assert memorise / 1e9 == pytest.approx(120.5, abs=0.05)


def test_rows_of_hmmn_share_weights():
    """A row's settings of use are none that training or a checkpoint depends on."""
    used = {item for table in HMMN.tables.values() for row in table.rows.values() for item in row.infer}
    settings = load_config(None, ["model.kind=hmmn", *HMMN.networks["full"]]).model.hmmn
    names = {name for name in vars(settings) if any(item.startswith(f"model.hmmn.{name}=") for item in used)}
    assert names == {"kernel", "topk", "fine_every", "window", "sigma"}
    for overrides in (*HMMN.networks.values(), *([item] for item in used)):
        load_config(None, ["model.kind=hmmn", *overrides])


@pytest.mark.parametrize("network", HMHI.networks)
def test_every_parameter_learns(network: str):
    """Distributed training does not search for parameters without a gradient, so there must be none."""
    small = replace(config_of(network).model, ffn_channels=8, decoder_channels=8, memory_topk=4)
    if small.backbone.startswith("mit"):
        small = replace(small, backbone="mit_b0")
    elif small.backbone.startswith("timm/resnet"):
        small = replace(small, backbone="timm/resnet18")
    torch.manual_seed(0)
    model = build_model(small)
    clip = torch.randn(1, 2, 3, 64, 64)
    model(clip, clip).square().mean().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []


def test_networks_take_the_weights_of_their_backbone():
    for name in HMHI.networks:
        config = config_of(name)
        assert config.train.pretrained is not None
        assert config.model.backbone.removeprefix("timm/") in config.train.pretrained


def test_rows_of_stma_build():
    """Without objects there is no projection and no vector."""
    paper = read_paper(TABLES / "stma.yaml")
    stage = paper.recipes["video"].train["main"]
    configs = {
        network: load_config(REPOSITORY / stage.config, [*overrides, *stage.set])
        for network, overrides in paper.networks.items()
    }
    assert {config.model.kind for config in configs.values()} == {"stma"}
    assert count_parameters(configs["no_objects"].model) == 130_035_335 - 394_752
    kept, joint = (count_flops(configs[name].model, PROMPTED_SIZE) / 1e9 for name in ("full", "joint"))
    assert kept == pytest.approx(
        764.1, abs=0.05
    )  # a frame between writes: its reference is not computed again
    assert joint == pytest.approx(1194.1, abs=0.05)


GOOD = """
paper: A paper
recipes: {r: {train: {a: {config: c.yaml}}, test: {davis16: {weights: a, kind: masks, protocol: release}}}}
networks: {n: [x=1, [y=2, [z=3]]]}
tables: {1: {caption: c, recipe: r, rows: {first: {network: n, published: {}}}}}
"""


def test_mistakes_in_a_table_file_are_named(tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text(GOOD)
    paper = read_paper(path)
    assert paper.networks["n"] == ("x=1", "y=2", "z=3")
    with pytest.raises(TableError, match="no table 2; there are 1"):
        paper.table(2)
    with pytest.raises(TableError, match=r"no row 'second'; there are 'first'"):
        select_rows(paper.table(1), ["second"])
    with pytest.raises(TableError, match="no recipe r-small"):
        paper.recipe(paper.table(1), "small")
    for old, new, message in (
        ("network: n", "network: m", "no network m"),
        ("weights: a", "weights: b", "no stage b"),
        ("recipe: r", "recipe: q", "no recipe q"),
        ("kind: masks", "sort: masks", "sort in a Benchmark"),
        (", protocol: release", "", "davis16 has no protocol"),
        ("paper: A paper", "a: [", "no table file"),
    ):
        path.write_text(GOOD.replace(old, new))
        with pytest.raises(TableError, match=message):
            read_paper(path)
    with pytest.raises(TableError, match=r"papers in .*: p"):
        read_paper(tmp_path / "q.yaml")
