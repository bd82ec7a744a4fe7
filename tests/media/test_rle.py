import numpy as np
import pytest

from hmhi.media.rle import MaskTrack, encode_mask


def decode(code):
    """The inverse, written from the format's description."""
    counts, position, characters = [], 0, code["counts"]
    while position < len(characters):
        number = shift = 0
        while True:
            group = ord(characters[position]) - 48
            position += 1
            number |= (group & 31) << shift
            shift += 5
            if not group & 32:
                break
        if group & 16:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
    height, width = code["size"]
    pixels = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return pixels.reshape(width, height).T


def test_a_code_by_hand():
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 1] = mask[2, 1] = mask[0, 2] = True
    # column by column: four 0, three 1, five 0
    assert encode_mask(mask) == {"size": [3, 4], "counts": "435"}


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (480, 854), (641, 3)])
@pytest.mark.parametrize("kind", ["empty", "full", "noise", "disc", "border"])
def test_round_trip(size, kind):
    rows, columns = np.ogrid[: size[0], : size[1]]
    mask = {
        "empty": np.zeros(size, dtype=bool),
        "full": np.ones(size, dtype=bool),
        "noise": np.random.default_rng(0).random(size) > 0.5,
        "disc": (rows - size[0] / 2) ** 2 + (columns - size[1] / 3) ** 2 < (min(size) / 3) ** 2,
        "border": (rows == 0) | (columns == size[1] - 1),
    }[kind]
    code = encode_mask(mask)
    assert np.array_equal(decode(code), mask)
    assert code["counts"].isascii() and code["counts"].isprintable()


def test_the_official_decoder_reads_it():
    mask_api = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(1).random((48, 31)) > 0.7
    assert np.array_equal(mask_api.decode(encode_mask(mask)), mask)


def test_a_track_names_what_is_not_there():
    track = MaskTrack("walk")
    mask = np.zeros((6, 9), dtype=bool)
    track.add({1: mask}, "00000")
    mask[2:4, 3:8] = True
    track.add({1: mask, 4: ~mask}, "00001")
    document = track.document()
    (video,), (annotation, later) = document["videos"], document["annotations"]
    assert video["file_names"] == ["walk/00000", "walk/00001"]
    assert (video["height"], video["width"], video["length"]) == (6, 9, 2)
    assert annotation["segmentations"][0] is None
    assert np.array_equal(decode(annotation["segmentations"][1]), mask)
    assert annotation["bboxes"] == [None, [3, 2, 5, 2]]
    assert annotation["areas"] == [None, 10]
    assert (annotation["id"], later["id"], later["areas"]) == (1, 4, [None, 44])
