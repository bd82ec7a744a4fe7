import numpy as np
import pytest
from PIL import Image
from trees import save

from hmhi.errors import BadFileError
from hmhi.media.masks import PALETTE, VOID, read_labels, read_levels, read_mask, write_labels


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
    void = np.where(np.arange(6) == 5, np.uint8(VOID), ids)
    write_labels(tmp_path / "void.png", void)
    np.testing.assert_array_equal(read_mask(tmp_path / "void.png"), expected & (void != VOID))
    Image.fromarray(expected * np.uint8(255)).convert("P").save(tmp_path / "ramp.png")  # white, not void
    np.testing.assert_array_equal(read_mask(tmp_path / "ramp.png"), expected)
    transparent = np.dstack([np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 255, np.uint8)])
    save(tmp_path / "alpha.png", transparent)
    assert read_mask(tmp_path / "alpha.png").sum() == 0


def test_grey_ramp_palettes_hold_levels_and_others_hold_ids(tmp_path):
    values = np.arange(200, dtype=np.uint8).reshape(10, 20)
    ramp = Image.frombytes("P", (20, 10), values.tobytes())
    ramp.putpalette([level for level in range(256) for _ in range(3)])
    ramp.save(tmp_path / "ramp.png")
    levels, is_ids = read_levels(tmp_path / "ramp.png")
    assert not is_ids
    assert (levels == values).all()
    ids = Image.frombytes("P", (20, 10), (values % 3).tobytes())
    ids.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    ids.save(tmp_path / "ids.png")
    levels, is_ids = read_levels(tmp_path / "ids.png")
    assert is_ids
    assert (levels == values % 3).all()


def test_the_palette_is_that_of_voc():
    colours = np.reshape(PALETTE, (256, 3)).tolist()
    assert colours[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colours[8] == [64, 0, 0] and colours[21] == [128, 64, 128] and colours[VOID] == [224, 224, 192]
    assert len({tuple(colour) for colour in colours}) == 256


@pytest.mark.parametrize("largest", [0, 1, 2, 5, 19, VOID])
def test_labels_come_back(tmp_path, largest):
    labels = np.zeros((9, 13), np.uint8)
    labels[2:5, 3:7], labels[6, 1:3] = min(largest, 1), largest
    path = tmp_path / "new" / "folder" / "00000.png"
    write_labels(path, labels)
    np.testing.assert_array_equal(read_labels(path), labels)
    np.testing.assert_array_equal(read_mask(path), (labels > 0) & (labels != VOID))
    with Image.open(path) as image:
        assert image.mode == "P"
        stored = image.getpalette()[:6]
        assert image.convert("RGB").getpixel((2, 6)) == tuple(np.reshape(PALETTE, (256, 3))[largest])
    assert stored == [0, 0, 0, 128, 0, 0]
    assert [entry.name for entry in path.parent.iterdir()] == ["00000.png"]


def test_a_mask_of_one_object_is_stored_as_before_there_were_several(tmp_path):
    mask = np.random.default_rng(0).random((30, 41)) > 0.5
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(tmp_path / "before.png")
    write_labels(tmp_path / "now.png", mask)
    assert (tmp_path / "now.png").read_bytes() == (tmp_path / "before.png").read_bytes()


def test_labels_of_every_usual_form(tmp_path):
    ids = np.zeros((4, 6), np.uint8)
    ids[1], ids[2], ids[3, 0] = 1, 2, 7
    one = (ids > 0).astype(np.uint8)
    colours = np.reshape(PALETTE, (256, 3)).astype(np.uint8)[ids]
    ramp = Image.fromarray(one * np.uint8(255))
    ramp.putpalette([level for level in range(256) for _ in range(3)])
    ramp.save(tmp_path / "ramp.png")
    cases = {
        "grey": (ids, ids),
        "white": (one * np.uint8(255), one),
        "bits": (one.astype(bool), one),
        "colours": (colours, ids),
        "transparent": (np.dstack([colours, ids * 9]), ids),
        "grey as colours": (np.dstack([ids] * 3), ids),
        "void": (np.where(ids == 7, VOID, ids).astype(np.uint8), np.where(ids == 7, VOID, ids)),
        "nothing": (ids * 0, ids * 0),
    }
    for name, (array, _) in cases.items():
        save(tmp_path / f"{name}.png", array)
    for name, expected in {"ramp": one, **{name: labels for name, (_, labels) in cases.items()}}.items():
        labels = read_labels(tmp_path / f"{name}.png")
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, expected, err_msg=name)


def test_what_is_no_mask_of_objects_is_refused(tmp_path):
    soft = np.linspace(0, 255, 24 * 30).reshape(24, 30).astype(np.uint8)
    photo = np.random.default_rng(0).integers(0, 256, (24, 30, 3), np.uint8)
    edge = np.zeros((24, 30), np.uint8)
    edge[5:15, 5:15], edge[5:15, 15] = 255, 128
    for name, array, reason in (
        ("soft", soft, "looks compressed or interpolated"),
        ("edge", edge, "grey levels up to white, such as 128; it looks interpolated"),
        ("photo", photo, "is none of the palette's"),
        ("deep", soft.astype(np.uint16), "convert it to 8 bits"),
    ):
        save(tmp_path / f"{name}.png", array)
        with pytest.raises(BadFileError, match=reason) as error:
            read_labels(tmp_path / f"{name}.png")
        assert f"{name}.png" in str(error.value)
