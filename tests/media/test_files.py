import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hmhi.errors import BadFileError
from hmhi.media import files
from hmhi.media.files import check_file, match_files, read_file, read_text, walk_folders
from hmhi.media.masks import read_mask
from hmhi.media.pictures import read_rgb
from hmhi.media.video_in import count_frames


def odd_files(folder):
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "folder.png").mkdir()
    return {
        "pipe": "a pipe, socket or device", "zero": "a pipe, socket or device", "circle": "lead in a circle",
        "folder": "a folder where a file is due",
    }  # fmt: skip


@pytest.mark.parametrize("read", [read_file, read_rgb, read_mask, count_frames])
def test_only_regular_files_are_read(tmp_path, read):
    for name, reason in odd_files(tmp_path).items():
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read, tmp_path / f"{name}.png")
            with pytest.raises(BadFileError, match=reason):
                reading.result(timeout=20)


def test_a_file_too_large_for_a_frame_is_not_read(tmp_path):
    path = tmp_path / "hole.png"
    with path.open("wb") as stream:
        stream.truncate(files.MAX_BYTES + 1)
    for read in (read_file, read_rgb, read_mask):
        with pytest.raises(BadFileError, match=r"hole\.png: 512 MiB is too large"):
            read(path)


def test_text(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\ufeffbear\ncaf\u00e9\n", encoding="utf-8")  # as Windows editors begin a file
    assert read_text(path).split() == ["bear", "caf\u00e9"]
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(BadFileError, match=r"list\.txt: not UTF-8 text"):
        read_text(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.png: no such file"):
        check_file(tmp_path / "no.png")


def test_walks_end_where_links_lead_back(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for other in ("a", "b", "c", "."):
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    (tmp_path / ".hidden").mkdir()
    seen = [str(folder.relative_to(tmp_path)) for folder, _ in walk_folders(tmp_path)]
    assert seen[:3] == [".", "a", "a/to_b"] and len(seen) == len(set(seen)) == 1 + 3 + 6 + 6
    monkeypatch.setattr(files, "MAX_FOLDERS", 10)
    with pytest.raises(BadFileError, match="more than 10 folders; do its links lead to one another"):
        list(walk_folders(tmp_path))


def test_a_folder_linked_twice_is_seen_twice(tmp_path):
    (tmp_path / "sets" / "bear").mkdir(parents=True)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "bear").symlink_to(tmp_path / "sets" / "bear")
    seen = [folder.relative_to(tmp_path) for folder, _ in walk_folders(tmp_path)]
    assert Path("train/bear") in seen and Path("val/bear") in seen


def test_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "x/b.mp4", "x/y/c.mp4", "x/y/d.png", "x/.hidden/e.mp4", "odd[1]/y/f.mp4"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("x/y/back").symlink_to(tmp_path / "x")
    Path("z").symlink_to(tmp_path / "x" / "y")
    for pattern, found in {
        "*.mp4": ["a.mp4"],
        "**/*.mp4": ["a.mp4", "odd[1]/y/f.mp4", "x/b.mp4", "x/y/c.mp4", "z/back/b.mp4", "z/c.mp4"],
        "x/**/*.mp4": ["x/b.mp4", "x/y/c.mp4"],
        "[xo]*/**/y/*": ["odd[1]/y/f.mp4", "x/y/back", "x/y/c.mp4", "x/y/d.png"],
        "x/**": ["x/b.mp4", "x/y", "x/y/back", "x/y/c.mp4", "x/y/d.png"],
        "n*/**/*.mp4": [],
    }.items():
        assert match_files(pattern) == [Path(name) for name in found], pattern
    assert match_files(str(tmp_path / "x" / "**" / "*.mp4")) == [
        tmp_path / name for name in ("x/b.mp4", "x/y/c.mp4")
    ]
