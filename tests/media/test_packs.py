import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from trees import encode, picture, save

from hmhi.errors import BadFileError
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


def test_a_zip_file_names_nothing_outside_itself(tmp_path):
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"not to be read")
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        archive.writestr(str(outside), b"")
    with pytest.raises(BadFileError, match=r"pack\.zip: names in it begin with /"):
        list_files(tmp_path / "pack.zip", IMAGE_SUFFIXES)


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
    found = find_frames(tmp_path)
    assert [(str(name), len(frames)) for name, frames in found.items()] == [
        ("b", 2), ("bear", 8), ("deep/a", 2), ("deep/d", 2),
    ]  # fmt: skip
    assert found[Path("b")][0] == tmp_path / "b" / "00000.jpg"  # the folder, not the pack
    assert len(find_frames(video)[Path()]) == 8
    assert find_frames(tmp_path / "nowhere") == {}
