import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from trees import encode, picture, save

from hmhi.errors import BadFileError
from hmhi.media import files
from hmhi.media.packs import IMAGE_SUFFIXES, find_frames, list_files
from hmhi.media.pictures import read_rgb


def test_zip_pack_equals_its_folder(tmp_path):
    for t in range(3):
        save(tmp_path / "bear" / f"{t:05d}.png", picture(t))
    shutil.make_archive(str(tmp_path / "pack"), "zip", tmp_path / "bear")
    packed = list_files(tmp_path / "pack.zip", IMAGE_SUFFIXES)
    assert [p.name for p in packed] == ["00000.png", "00001.png", "00002.png"]
    for t, path in enumerate(packed):
        np.testing.assert_array_equal(read_rgb(path), picture(t))
    with pytest.raises(FileNotFoundError):
        read_rgb(tmp_path / "pack.zip" / "00009.png")


@pytest.mark.parametrize("name", ["/abs.png", "../up.png", "a/../../up.png", "a\\b.png", "red\x1b[31m.png"])
def test_a_zip_file_names_nothing_outside_itself(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        archive.writestr(name, b"")
    with pytest.raises(BadFileError, match=r"pack\.zip: its member .* is not a plain relative path") as error:
        list_files(tmp_path / "pack.zip", IMAGE_SUFFIXES)
    assert str(error.value).isprintable()


def test_a_frame_whose_name_is_no_text(tmp_path):
    (tmp_path / "line\nbreak.png").write_bytes(b"")
    with pytest.raises(BadFileError, match=r"'line\\nbreak\.png' is not plain text; rename the file"):
        list_files(tmp_path, IMAGE_SUFFIXES)


@pytest.mark.parametrize("how", ["replaced", "overwritten"])
def test_a_zip_file_that_changes_is_read_anew(tmp_path, how):
    path = tmp_path / "pack.zip"
    for seed in (1, 2):
        target = path if how == "overwritten" else tmp_path / "new.zip"
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("00000.png", encode("PNG", picture(seed)))
        target.replace(path)
        np.testing.assert_array_equal(read_rgb(path / "00000.png"), picture(seed))


def test_a_member_too_large_for_a_frame_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 2**20)
    path = tmp_path / "pack.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(3 * 2**20))
    with pytest.raises(BadFileError, match=r"0\.png: 3 MiB is too large to read for one frame"):
        read_rgb(path / "0.png")


def test_damaged_zip_member(tmp_path):
    path = tmp_path / "pack.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("00000.png", encode("PNG", picture(1)))
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(BadFileError, match=r"00000\.png: cannot be read from the zip file"):
        read_rgb(path / "00000.png")


def test_frames_of_folders_and_packs(tmp_path, video):
    for name in ("deep/a", "b", ".work/c"):
        for t in range(2):
            save(tmp_path / name / f"{t:05d}.jpg", picture(t))
    shutil.make_archive(str(tmp_path / "deep" / "d"), "zip", tmp_path / "b")
    (tmp_path / "b.zip").write_bytes((tmp_path / "deep" / "d.zip").read_bytes())
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "deep" / "circle").symlink_to(tmp_path)
    (tmp_path / "deep" / "linked").symlink_to(tmp_path / "b")
    found = find_frames(tmp_path)
    assert [(str(name), len(frames)) for name, frames in found.items()] == [
        ("b", 2), ("bear", 8), ("deep/a", 2), ("deep/d", 2), ("deep/linked", 2),
    ]  # fmt: skip
    assert found[Path("b")][0] == tmp_path / "b" / "00000.jpg"  # the folder, not the pack
    assert len(find_frames(video)[Path()]) == 8
    assert find_frames(tmp_path / "nowhere") == {}
