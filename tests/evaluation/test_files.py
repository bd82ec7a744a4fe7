import pytest
from mask_trees import disc, make_trees, save

from hmhi.evaluation.files import (
    EvaluationError,
    list_tree,
    pair_trees,
    printable,
    read_sequence_list,
)
from hmhi.evaluation.protocol import MASK_PROTOCOLS

ALL = MASK_PROTOCOLS["all-frames"]


def test_frames_are_paired_by_name_in_natural_order(tmp_path):
    for index in (2, 10, 1):
        save(tmp_path / "gt" / "a" / f"frame_{index}.png", disc())
        save(tmp_path / "pred" / "a" / f"frame_{index}.jpg", disc())
    frames = pair_trees(tmp_path / "pred", tmp_path / "gt", ALL).frames["a"]
    assert [frame.stem for frame in frames] == ["frame_1", "frame_2", "frame_10"]
    assert all(frame.pred.stem == frame.truth.stem == frame.stem for frame in frames)
    ends_out = pair_trees(tmp_path / "pred", tmp_path / "gt", MASK_PROTOCOLS["davis16"]).frames["a"]
    assert [frame.stem for frame in ends_out] == ["frame_2"]


def test_what_is_odd_in_a_tree_is_said(tmp_path):
    save(tmp_path / "a" / "0.png", disc())
    save(tmp_path / "a" / "0.jpg", disc())
    (tmp_path / "a" / "notes.txt").write_text("x")
    save(tmp_path / "480p" / "b" / "0.png", disc())
    (tmp_path / "void").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "a" / ".DS_Store").write_text("x")
    tree, problems = list_tree(tmp_path, "predictions")
    assert list(tree) == ["a"]
    assert len(problems) == 4
    for part in ("two files for one frame", "notes.txt", "480p holds folders", "void holds no images"):
        assert any(part in problem for problem in problems), part


def test_roots_that_cannot_be_trees(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder of predictions not found: .*nowhere"):
        pair_trees(tmp_path / "nowhere", tmp_path, ALL)
    save(tmp_path / "flat" / "0.png", disc())
    make_trees(tmp_path, {"a": 1})
    with pytest.raises(EvaluationError, match="no folder for each sequence"):
        pair_trees(tmp_path / "flat", tmp_path / "gt", ALL)


def test_names_that_never_meet_are_shown_side_by_side(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 3})
    for path in list((pred / "a").iterdir()):
        path.rename(path.with_name(f"a_{path.name}"))
    with pytest.raises(EvaluationError, match=r"3 of 3 predictions missing: 00000.*called 'a_00000'"):
        pair_trees(pred, truth, ALL)


def test_hostile_names_do_not_reach_the_terminal(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 1})
    save(pred / "evil\x1b[31m\nname" / "0.png", disc())
    with pytest.raises(EvaluationError) as failure:
        pair_trees(pred, truth, ALL)
    assert "\x1b" not in str(failure.value)
    assert str(failure.value).count("\n  - ") == 1 == str(failure.value).count("evil")
    assert printable("a\tb\udcff") == "a\\tb\\udcff"


def test_sequence_lists(tmp_path):
    path = tmp_path / "val.txt"
    path.write_text("# the hard ones\nbear\n\ncows # dusty\nbear\n")
    assert read_sequence_list(path) == ["bear", "cows"]
    path.write_text(
        "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png\n"
        "/JPEGImages/480p/bear/00001.jpg /Annotations/480p/bear/00001.png\n"
    )
    assert read_sequence_list(path) == ["bear"]
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="names no sequence"):
        read_sequence_list(path)
    with pytest.raises(FileNotFoundError, match="list of sequences"):
        read_sequence_list(tmp_path / "none.txt")


def test_a_named_sequence_without_annotations_is_an_error(tmp_path):
    trees = make_trees(tmp_path, {"a": 1})
    with pytest.raises(EvaluationError, match="annotations have no sequence 'b'"):
        pair_trees(*trees, ALL, sequences=["a", "b"])
