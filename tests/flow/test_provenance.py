import json

import pytest

from hmhi.flow.make import FlowSettings, write_manifest
from hmhi.flow.provenance import KEYS, UNKNOWN, computed_record, flow_mismatch, read_record

RAFT = FlowSettings("raft", "raft.pth", "ab", "backward", "none", "affine", "png")


@pytest.mark.parametrize("folder", [".", "val", "val/bear"])
def test_the_manifest_is_found_from_set_split_and_sequence(tmp_path, folder):
    write_manifest(tmp_path, RAFT)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    assert read_record(tmp_path / folder) == {
        "method": "raft", "direction": "backward", "last": "none",
        "normalisation": "by the largest magnitude of each frame", "compensation": "affine",
    }  # fmt: skip


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": "hmhi-data-1", "method": "raft"}'])
def test_without_a_flow_manifest_all_is_unknown(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    assert read_record(tmp_path) == dict.fromkeys(KEYS, UNKNOWN)


def test_an_older_manifest_keeps_what_it_says(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "hmhi-flow-1", "method": "dis"}))
    record = read_record(tmp_path)
    assert (record["method"], record["direction"]) == ("dis", UNKNOWN)


DIS = computed_record("dis")


@pytest.mark.parametrize(
    ("trained", "used", "differs"),
    [
        ({}, DIS, False),
        ({"ytvos": DIS}, DIS, False),
        ({"ytvos": DIS}, DIS | {"last": "none", "normalisation": "none, pixels"}, False),
        ({"ytvos": DIS}, DIS | {"method": "raft"}, True),
        ({"ytvos": DIS}, DIS | {"direction": "backward"}, True),
        ({"ytvos": DIS}, DIS | {"method": "raft", "direction": UNKNOWN}, True),
        ({"ytvos": DIS}, DIS | {"method": UNKNOWN}, False),
        ({"ytvos": DIS | {"method": UNKNOWN}}, DIS, False),
        ({"ytvos": DIS | {"method": "raft"}, "davis16": DIS}, DIS, False),
        ({"ytvos": DIS | {"method": "raft"}, "davis16": {}}, DIS, False),
        ({"ytvos": DIS | {"method": "raft"}, "davis16": DIS | {"direction": "backward"}}, DIS, True),
        ({"ytvos": DIS}, DIS | {"compensation": "homography"}, True),
        ({"synthetic": computed_record("mixed")}, DIS, False),
        ({"synthetic": computed_record("mixed")}, DIS | {"direction": "backward"}, True),
        ({"ytvos": DIS}, computed_record("dis", join="homography"), True),
        ({"ytvos": computed_record("dis", join="affine")}, computed_record("dis", join="homography"), True),
        (
            {"synthetic": computed_record("mixed", join="affine")},
            computed_record("dis", join="affine"),
            False,
        ),
        ({"synthetic": computed_record("mixed", join="affine")}, computed_record("dis"), False),
        ({"synthetic": computed_record("exact", join="affine")}, computed_record("exact"), False),
    ],
)
def test_only_known_differences_count(trained, used, differs):
    assert (flow_mismatch(trained, used) is not None) == differs


def test_words():
    trained = {"ytvos": DIS | {"method": "raft"}, "davis16": DIS | {"direction": "backward"}}
    assert flow_mismatch(trained, DIS) == (
        "dis, forward instead of raft, forward (ytvos), dis, backward (davis16)"
    )
