import shutil

import pytest
from trees import half_mask, picture, save, write_davis_list, write_video

from hmhi.config import ConfigError
from hmhi.data.catalog import DATASETS, get_spec
from hmhi.data.index import DatasetError, DatasetNotFoundError, scan


def scan_davis(root, split="train", need_flow=True, need_mask=True):
    return scan(root, "davis16", split, need_flow=need_flow, need_mask=need_mask)


@pytest.mark.parametrize(
    ("folder", "layout"), [("DAVIS-16", "ours"), ("DAVIS2SEG_byvideo", "release"), ("davis16", "davis")]
)
def test_three_layouts_give_the_same_index(tmp_path, folder, layout):
    base = tmp_path / folder
    write_video(base, "cow", 4, layout=layout)
    write_video(base, "bear", 3, layout=layout)
    write_davis_list(base, "train", ["bear", "cow"])
    videos = scan_davis(tmp_path)
    assert [(v.name, len(v.frames)) for v in videos] == [("bear", 3), ("cow", 4)]
    for frame in videos[1].frames:
        assert frame.image.is_file() and frame.mask.is_file() and frame.flow.is_file()
        assert frame.image.stem == frame.mask.stem == frame.stem


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    base = tmp_path / "DAVIS-16"
    for t in range(1, 13):
        save(base / f"Images/train/bear/bear_{t}.jpg", picture(t))
        save(base / f"Annotations/train/bear/bear_{t}.png", half_mask())
        if t < 12:
            save(base / f"Flows/train/bear/bear_{t}.png", picture(100 + t))
    (video,) = scan_davis(tmp_path)
    assert [frame.stem for frame in video.frames] == [f"bear_{t}" for t in range(1, 13)]
    assert video.frames[-1].flow.stem == "bear_11"


def test_sets_with_objects_as_published(tmp_path):
    base = tmp_path / "DAVIS-2017"
    for name, masks in (("bear", None), ("judo", None), ("new", [0])):
        write_video(base, name, 3, layout="davis", masks=masks)
    for split, names in (("train", ["judo"]), ("val", ["bear"]), ("test-dev", ["new"])):
        write_davis_list(base, split, names, edition="2017")
    found = {}
    for dataset, split in (("davis17", "train"), ("davis17", "val"), ("davis17_testdev", "val")):
        (video,) = scan(tmp_path, dataset, split, need_flow=False, need_mask=True)
        found[video.name] = [frame.mask is not None for frame in video.frames]
    assert found == {"judo": [True] * 3, "bear": [True] * 3, "new": [True, False, False]}
    for part, masks in (("train", None), ("valid", [5])):
        for t in (0, 5, 10):
            save(tmp_path / f"YouTubeVOS-2019/{part}/JPEGImages/0a2/{t:05d}.jpg", picture(t))
        for t in masks or (0, 5, 10):
            save(tmp_path / f"YouTubeVOS-2019/{part}/Annotations/0a2/{t:05d}.png", half_mask())
    for split, count in (("train", 3), ("val", 1)):
        (video,) = scan(tmp_path, "ytvos19", split, need_flow=False, need_mask=True)
        assert len(video.frames) == 3 and sum(frame.mask is not None for frame in video.frames) == count
    assert get_spec("ytvos19").step == 5


def test_davis16_list_names_each_frame(tmp_path):
    base = tmp_path / "DAVIS"
    write_video(base, "bear", 3, layout="davis")
    lines = [f"/JPEGImages/480p/bear/{t:05d}.jpg /Annotations/480p/bear/{t:05d}.png" for t in range(4)]
    write_davis_list(base, "train", lines[:3])
    assert [f.stem for f in scan_davis(tmp_path)[0].frames] == ["00000", "00001", "00002"]
    write_davis_list(base, "train", lines)
    with pytest.raises(DatasetError, match="bear: listed image 00003 is not in"):
        scan_davis(tmp_path)


def test_only_the_last_flow_map_may_be_missing(tmp_path):
    base = tmp_path / "DAVIS-16"
    write_video(base, "full", 4, flows=range(4))
    write_video(base, "short", 4)
    full, short = scan_davis(tmp_path)
    assert full.frames[-1].flow.name == "00003.png"
    assert short.frames[-1].flow == short.frames[-2].flow
    assert short.frames[-1].flow.name == "00002.png"
    write_video(base, "hole", 4, flows=[0, 2, 3])
    with pytest.raises(DatasetError, match="hole: image 00001 has no flow map") as error:
        scan_davis(tmp_path)
    assert len(error.value.problems) == 1


def test_two_missing_flow_maps_at_the_end_are_an_error(tmp_path):
    write_video(tmp_path / "DAVIS-16", "bear", 4, flows=[0, 1])
    with pytest.raises(DatasetError) as error:
        scan_davis(tmp_path)
    assert error.value.problems == [
        "bear: image 00002 has no flow map",
        "bear: image 00003 has no flow map",
    ]


def test_all_problems_in_one_report_with_a_cap(tmp_path):
    base = tmp_path / "DAVIS-16"
    write_video(base, "a", 3, masks=[0])
    write_video(base, "b", 3, flows=[])
    write_video(base, "c", 3)
    save(base / "Annotations/train/c/00009.png", picture(0)[..., 0])
    save(base / "Flows/train/c/frame_0001.png", picture(0))
    save(base / "Images/train/c/00001.png", picture(0))
    with pytest.raises(DatasetError) as error:
        scan_davis(tmp_path)
    text = str(error.value)
    for part in (
        "a: image 00001 has no mask",
        "a: image 00002 has no mask",
        "b: no flow maps in",
        "c: mask 00009 has no image",
        "c: flow map frame_0001 has no image",
        "2 files are called 00001",
    ):
        assert part in text
    assert "tools/make_flow.py" in text and "tools/check_data.py" in text
    write_video(base, "d", 60, masks=[0])
    with pytest.raises(DatasetError, match=r"\.\.\. and 45 more"):
        scan_davis(tmp_path)


def test_sparse_masks_are_normal_except_in_dense_sets(tmp_path):
    write_video(tmp_path / "FBMS", "cats01", 6, masks=[0, 5])
    (video,) = scan(tmp_path, "fbms", "train", need_flow=True, need_mask=True)
    assert [f.mask is not None for f in video.frames] == [True, False, False, False, False, True]
    write_video(tmp_path / "FBMS", "dogs01", 3, masks=[])
    with pytest.raises(DatasetError, match="dogs01: no masks in"):
        scan(tmp_path, "fbms", "train", need_flow=True, need_mask=True)
    assert len(scan(tmp_path, "fbms", "train", need_flow=True, need_mask=False)) == 2


def test_still_images_need_no_flow(tmp_path):
    base = tmp_path / "DUTS"
    for name in ("b", "a"):
        save(base / "Images" / "train" / f"{name}.jpg", picture(0))
        save(base / "Annotations" / "train" / f"{name}.png", picture(0)[..., 0])
    videos = scan(tmp_path, "duts", "train", need_flow=True, need_mask=True)
    assert [(v.name, len(v.frames), v.frames[0].flow) for v in videos] == [("a", 1, None), ("b", 1, None)]
    (base / "Annotations" / "train" / "a.png").rename(base / "Annotations" / "train" / "c.png")
    with pytest.raises(DatasetError) as error:
        scan(tmp_path, "duts", "train", need_flow=True, need_mask=True)
    assert error.value.problems == ["mask c has no image", "image a has no mask"]


def test_one_frame_video_needs_its_own_flow(tmp_path):
    write_video(tmp_path / "DAVIS-16", "one", 1)
    with pytest.raises(DatasetError, match="one: no flow maps"):
        scan_davis(tmp_path)
    write_video(tmp_path / "DAVIS-16", "one", 1, flows=[0])
    assert len(scan_davis(tmp_path)[0].frames) == 1


@pytest.mark.parametrize("word", ["frame", "flow", "mask", "Images", "jpg", "train"])
def test_root_may_contain_the_layouts_own_words(tmp_path, word):
    root = tmp_path / word / f"my {word} data.jpg"
    write_video(root / "DAVIS2SEG_byvideo", f"{word}_{word}", 3, layout="release")
    for frame in scan_davis(root)[0].frames:
        assert [frame.image.parts[-4], frame.flow.parts[-4], frame.mask.parts[-4]] == [
            "frame",
            "flow",
            "mask",
        ]
        assert frame.flow.is_file() and frame.mask.is_file()


def test_absent_data_set_is_one_message_with_folder_and_page(tmp_path):
    with pytest.raises(DatasetNotFoundError) as error:
        scan_davis(tmp_path / "nowhere")
    message = str(error.value)
    assert str(tmp_path / "nowhere" / "DAVIS-16") in message and "docs/DATA.md" in message
    assert "\n" not in message and isinstance(error.value, FileNotFoundError)


def test_absent_split(tmp_path):
    write_video(tmp_path / "DAVIS-16", "bear", 3)
    with pytest.raises(DatasetNotFoundError, match="Images/val"):
        scan_davis(tmp_path, "val")
    with pytest.raises(DatasetNotFoundError, match="ytvos has no 'val' split"):
        write_video(tmp_path / "ytvos", "bear", 3)
        scan(tmp_path, "ytvos", "val", need_flow=True, need_mask=True)
    (tmp_path / "DAVIS-16/Images/val").mkdir()
    with pytest.raises(DatasetError, match="no video folders"):
        scan_davis(tmp_path, "val")


def test_stray_files_are_no_videos(tmp_path):
    write_video(tmp_path / "DAVIS-16", "bear", 3)
    (tmp_path / "DAVIS-16/Images/train/notes.txt").write_text("x")
    (tmp_path / "DAVIS-16/Images/train/.DS_Store").write_text("x")
    (tmp_path / "DAVIS-16/Images/train/bear/._00000.jpg").write_text("x")
    assert [v.name for v in scan_davis(tmp_path)] == ["bear"]


def test_two_folders_for_one_data_set(tmp_path):
    write_video(tmp_path / "DAVIS2SEG_byvideo", "bear", 3, layout="release")
    write_video(tmp_path / "davis16", "cow", 3)
    with pytest.raises(DatasetError, match="several folders are 'davis16'"):
        scan_davis(tmp_path)
    write_video(tmp_path / "DAVIS-16", "dog", 3)
    assert [v.name for v in scan_davis(tmp_path)] == ["dog"]


@pytest.mark.parametrize("line", ["../../etc", "/etc/passwd", "a/b", "..", "nul\x00name", "a\\b", "x" * 300])
def test_hostile_names_in_a_list_file(tmp_path, line):
    base = tmp_path / "DAVIS-16"
    write_video(base, "bear", 3, layout="davis")
    write_davis_list(base, "train", ["bear", line])
    with pytest.raises(DatasetError, match=r"line 2: .* not a plain name"):
        scan_davis(tmp_path)


def test_hostile_name_inside_a_davis16_line(tmp_path):
    base = tmp_path / "DAVIS-16"
    write_video(base, "bear", 3, layout="davis")
    write_davis_list(base, "train", ["/JPEGImages/480p/../00000.jpg /Annotations/480p/../00000.png"])
    with pytest.raises(DatasetError, match="not a plain name"):
        scan_davis(tmp_path)


def test_hostile_folder_name(tmp_path):
    write_video(tmp_path / "DAVIS-16", "two\nlines", 3)
    with pytest.raises(DatasetError, match=r"'two\\nlines' is not a plain name"):
        scan_davis(tmp_path)


def test_unknown_name_suggests():
    with pytest.raises(ConfigError, match="did you mean 'davis16'"):
        get_spec("davis-16")
    assert (
        len({spec.folder for spec in DATASETS.values()}) == len(DATASETS) - 4
    )  # DAVSOD's holds four, DAVIS-17 two


def test_real_davis(shared_data):
    val = scan(shared_data, "davis16", "val", need_flow=True, need_mask=True)
    assert len(val) == 12 and val[0].name == "blackswan"
    assert len(val[0].frames) == 50 and val[0].frames[49].flow.name == "00048.jpg"
    with pytest.raises(DatasetError, match="bear: no flow maps"):
        scan(shared_data, "davis16", "train", need_flow=True, need_mask=True)
    assert len(scan(shared_data, "davis16", "train", need_flow=False, need_mask=True)[0].frames) == 82


def test_packs_in_the_place_of_folders(tmp_path):
    base = tmp_path / "DAVIS-16"
    write_video(base, "bear", 4)
    plain = scan_davis(tmp_path)[0]
    for kind in ("Images", "Annotations", "Flows"):
        folder = base / kind / "train" / "bear"
        shutil.make_archive(str(folder), "zip", folder.parent, "bear")
        shutil.rmtree(folder)
    (packed,) = scan_davis(tmp_path)
    assert [f.stem for f in packed.frames] == [f.stem for f in plain.frames]
    assert packed.frames[0].image.parts[-3:] == ("bear.zip", "bear", "00000.jpg")


def test_damaged_pack_is_reported_with_the_rest(tmp_path):
    base = tmp_path / "DAVIS-16"
    write_video(base, "bear", 4, masks=[0, 1, 2])
    (base / "Images/train/cow.zip").write_bytes(b"PK not really")
    with pytest.raises(DatasetError, match=r"(?s)image 00003 has no mask.*cow.zip: not a readable zip"):
        scan_davis(tmp_path)
