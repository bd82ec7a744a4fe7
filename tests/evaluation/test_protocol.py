import pytest

from hmhi.data.catalog import DATASETS
from hmhi.evaluation.protocol import MAP_PROTOCOLS, MASK_PROTOCOLS, OBJECT_PROTOCOLS, find_protocol


@pytest.mark.parametrize(
    "table", [MASK_PROTOCOLS, OBJECT_PROTOCOLS, MAP_PROTOCOLS], ids=["masks", "objects", "maps"]
)
def test_tables_are_whole(table):
    for name, protocol in table.items():
        assert protocol.name == name
        assert protocol.rule and protocol.source
    datasets = [dataset for protocol in table.values() for dataset in protocol.datasets]
    assert len(datasets) == len(set(datasets)), "a data set must choose one protocol"


def test_every_data_set_of_the_catalog_chooses_a_protocol():
    videos = [name for name, spec in DATASETS.items() if "val" in spec.splits and not spec.still]
    assert len(videos) >= 8
    for name in videos:
        if name == "davis17_testdev":
            continue  # first masks only: its server scores
        if name.startswith(("davis17", "ytvos")):
            find_protocol(OBJECT_PROTOCOLS, None, name, default="")
            continue
        if not name.startswith(("davsod", "visal")):
            find_protocol(MASK_PROTOCOLS, None, name, default="")
        if name not in ("ytobj", "longvideos"):
            find_protocol(MAP_PROTOCOLS, None, name, default="")


def test_choice():
    def choose(name, dataset):
        return find_protocol(MASK_PROTOCOLS, name, dataset, default="davis16").name

    assert choose(None, None) == "davis16"
    assert choose(None, "ytobj") == "ytobj"
    assert choose("release", "ytobj") == "release"
    with pytest.raises(ValueError, match=r"unknown protocol 'davis'; known are davis16, all-frames"):
        choose("davis", None)
    with pytest.raises(ValueError, match=r"data set 'nowhere' \(known: davis16"):
        choose(None, "nowhere")
