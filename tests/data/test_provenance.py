from trees import write_video

from hmhi.config import DataConfig
from hmhi.data.provenance import flow_records
from hmhi.flow.make import FlowSettings, write_manifest


def test_where_flow_comes_from(tmp_path):
    for split in ("train", "val"):
        write_video(tmp_path / "DAVIS-16", "bear", split=split)
        write_video(tmp_path / "FBMS", "cats01", split=split)
    raft = FlowSettings("raft", "raft.pth", "ab", "backward", "repeat", "none", "png")
    write_manifest(tmp_path / "DAVIS-16" / "Flows" / "train", raft)
    config = DataConfig(root=str(tmp_path))
    names = ["davis16", "fbms", "synthetic", "duts"]
    train = flow_records(config, names, "train")
    assert {name: (record["method"], record["direction"]) for name, record in train.items()} == {
        "davis16": ("raft", "backward"),
        "fbms": ("unknown", "unknown"),
        "synthetic": (config.synthetic.flow, "forward"),
    }
    assert flow_records(config, ["davis16"], "val")["davis16"]["method"] == "unknown"
    computed = flow_records(DataConfig(root=str(tmp_path), flow="dis"), names, "train")
    assert computed["davis16"] == computed["fbms"]
    assert (computed["fbms"]["method"], computed["fbms"]["last"]) == ("dis", "repeat")
