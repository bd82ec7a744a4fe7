import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import encode, picture, save

from hmhi.errors import BadFileError
from hmhi.flow.codec import flow_to_rgb, write_flo
from hmhi.flow.files import read_flow_rgb
from hmhi.media.masks import read_mask
from hmhi.media.pictures import read_rgb, read_size

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
        (
            "postscript.png",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
            "not an image",
        ),
        ("icon.png", encode("ICO", picture(1)), "not an image"),
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


def test_real_truth_and_flow(shared_data):
    base = shared_data / "davis16"
    stored = np.array(Image.open(base / "Annotations/480p/bear/00000.png"))
    np.testing.assert_array_equal(read_mask(base / "Annotations/480p/bear/00000.png"), stored == 255)
    assert read_flow_rgb(base / "Flow/blackswan/00000.jpg").shape == (480, 854, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF", "MPO"])
def test_formats_that_are_read(tmp_path, kind):
    images = [Image.fromarray(picture(seed)) for seed in (1, 2)]
    several = (
        {"save_all": True, "append_images": images[1:]} if kind in ("GIF", "MPO", "TIFF", "WEBP") else {}
    )
    images[0].save(
        tmp_path / "image.png", kind, **several
    )  # the suffix says nothing, and the first frame counts
    assert np.abs(read_rgb(tmp_path / "image.png").astype(int) - picture(1)).mean() < 70
    assert read_size(tmp_path / "image.png") == (40, 64)
