import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import picture, save

from hmhi.flow.codec import flow_to_rgb, write_flo
from hmhi.flow.files import read_flow_rgb
from hmhi.media import pictures
from hmhi.media.pictures import (
    BadFileError,
    count_frames,
    find_frames,
    list_files,
    read_mask,
    read_rgb,
    read_size,
)


def encode(kind, array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


JPEG, PNG = encode("JPEG", picture(1)), encode("PNG", picture(1))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("truncated.jpg", JPEG[: len(JPEG) // 2], "damaged image"),
        ("truncated.png", PNG[: len(PNG) // 2], "damaged image"),
        ("zeroed.png", PNG[:200] + bytes(200) + PNG[400:], "damaged image"),
        ("empty.jpg", b"", "file is empty"),
        ("page.jpg", b"<!DOCTYPE html><html>Sign in</html>", "not an image"),
        ("zeros.png", bytes(1000), "not an image"),
    ],
)
def test_faulty_files_are_one_error_that_names_them(tmp_path, name, content, reason):
    path = tmp_path / "bear" / name
    path.parent.mkdir()
    path.write_bytes(content)
    for read in (read_rgb, read_mask, read_flow_rgb):
        with pytest.raises(BadFileError, match=reason) as error:
            read(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_rgb(tmp_path / "no.jpg")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([JPEG, PNG]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=12),
    st.integers(0, 10**6),
)
def test_flipped_bytes_never_raise_anything_else(tmp_path, content, flips, cut):
    damaged = bytearray(content)
    for position, value in flips:
        damaged[position % len(damaged)] = value
    path = tmp_path / "any.img"
    path.write_bytes(bytes(damaged[: 1 + cut % len(damaged)] if cut % 3 == 0 else damaged))
    for read in (read_rgb, read_mask):
        try:
            array = read(path)
        except BadFileError:
            continue
        assert array.dtype == np.uint8 and array.ndim == (3 if read is read_rgb else 2)


def test_decompression_bomb_is_refused_before_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (20000, 20000)).save(path)
    assert path.stat().st_size < 100_000
    small = tmp_path / "small_bomb.png"
    Image.new("1", (9000, 9000)).save(small)
    code = (
        "import sys, resource; from pathlib import Path; from hmhi.media.pictures import read_rgb, BadFileError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_rgb(Path(name))\n"
        "    except BadFileError as error: assert 'too large' in str(error), error\n"
        "    else: raise SystemExit('decoded')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), str(small)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout) * (1 if sys.platform == "darwin" else 1024)
    assert grown < 20e6


def test_truth_rules(tmp_path):
    ids = np.zeros((4, 6), np.uint8)
    ids[1], ids[2] = 1, 2
    expected = (ids > 0).astype(np.uint8)
    cases = {
        "palette": (ids, True),
        "ids": (ids, False),
        "white": (expected * 255, False),
        "grey": (np.array([0, 38, 75], np.uint8)[ids], False),  # a palette mask after convert("L")
        "colour": (np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)[ids], False),
        "bits": (expected.astype(bool), False),
        "deep": (ids.astype(np.uint16) * 300, False),
    }
    for name, (array, palette) in cases.items():
        save(tmp_path / f"{name}.png", array, palette)
        mask = read_mask(tmp_path / f"{name}.png")
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, expected, err_msg=name)
    transparent = np.dstack([np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 255, np.uint8)])
    save(tmp_path / "alpha.png", transparent)
    assert read_mask(tmp_path / "alpha.png").sum() == 0


def test_image_modes(tmp_path):
    rgb = picture(3)
    save(tmp_path / "rgba.png", np.dstack([rgb, rgb[..., 0]]))
    np.testing.assert_array_equal(read_rgb(tmp_path / "rgba.png"), rgb)
    save(tmp_path / "grey.png", rgb[..., 0])
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), np.dstack([rgb[..., 0]] * 3))
    save(tmp_path / "deep.png", rgb[..., 0].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_rgb(tmp_path / "deep.png"), np.dstack([rgb[..., 0]] * 3))
    cv2.imwrite(str(tmp_path / "deep_rgb.png"), rgb[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_rgb(tmp_path / "deep_rgb.png"), rgb)
    Image.fromarray(rgb[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(BadFileError, match="8 or 16 bits"):
        read_rgb(tmp_path / "float.tif")


def test_files_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("10.png", "9.png", "a2.png", "a10.png", "1.png"):
        save(tmp_path / name, picture(0))
    assert [path.stem for path in list_files(tmp_path, {".png"})] == ["1", "9", "10", "a2", "a10"]


def test_exif_rotation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(1)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_rgb(tmp_path / "turned.jpg").shape == (40, 64, 3)
    assert read_size(tmp_path / "turned.jpg") == (40, 64)


def test_flo_files_are_drawn(tmp_path):
    flow = np.random.default_rng(0).normal(size=(10, 12, 2)).astype(np.float32)
    write_flo(tmp_path / "a.flo", flow)
    np.testing.assert_array_equal(read_flow_rgb(tmp_path / "a.flo"), flow_to_rgb(flow))
    (tmp_path / "b.flo").write_bytes((tmp_path / "a.flo").read_bytes()[:100])
    with pytest.raises(BadFileError, match=r"b\.flo"):
        read_flow_rgb(tmp_path / "b.flo")


def test_zip_pack_equals_its_folder(tmp_path):
    for t in range(3):
        save(tmp_path / "bear" / f"{t:05d}.png", picture(t))
    shutil.make_archive(str(tmp_path / "pack"), "zip", tmp_path / "bear")
    packed = list_files(tmp_path / "pack.zip", pictures.IMAGE_SUFFIXES)
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
        list_files(tmp_path / "pack.zip", pictures.IMAGE_SUFFIXES)


def test_damaged_zip_member(tmp_path):
    path = tmp_path / "pack.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("00000.png", PNG)
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(BadFileError, match=r"00000\.png: cannot be read from the zip file"):
        read_rgb(path / "00000.png")


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "bear.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 40))
    if not writer.isOpened():
        pytest.skip("this OpenCV build writes no MJPG video")
    for t in range(8):
        writer.write(np.full((40, 64, 3), (200, 20, 25 * t), np.uint8))  # BGR
    writer.release()
    return path


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


def test_video_pack_reads_exact_frames_in_any_order(video):
    assert count_frames(video) == 8
    frames = list_files(video, pictures.IMAGE_SUFFIXES)
    assert [f.stem for f in frames] == [f"{t:05d}" for t in range(8)]
    for t in (0, 1, 1, 5, 2, 7, 7, 0):
        rgb = read_rgb(frames[t])
        assert rgb.shape == (40, 64, 3)
        assert abs(float(rgb[..., 0].mean()) - 25 * t) < 5 and rgb[..., 2].mean() > 150
    assert read_size(frames[0]) == (40, 64)


def test_video_faults(tmp_path, video):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(BadFileError, match="not a video"):
        count_frames(tmp_path / "text.mp4")
    with pytest.raises(BadFileError, match="frame 99 cannot be read; 8 frames can"):
        read_rgb(video / "00099.frame")


def test_real_truth_and_flow(shared_data):
    base = shared_data / "davis16"
    stored = np.array(Image.open(base / "Annotations/480p/bear/00000.png"))
    np.testing.assert_array_equal(read_mask(base / "Annotations/480p/bear/00000.png"), stored == 255)
    assert read_flow_rgb(base / "Flow/blackswan/00000.jpg").shape == (480, 854, 3)
