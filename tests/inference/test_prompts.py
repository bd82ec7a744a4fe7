"""Every way to say which objects to follow, and what is refused."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from hmhi.errors import UserError
from hmhi.inference.prompts import open_masks
from hmhi.inference.sources import open_source
from hmhi.media.masks import PALETTE, VOID, write_labels

SIZE = (20, 30)


def labels_of(**places):
    """Label map with a square of each id: ``labels_of(o7=4)`` has object 7 at column 4."""
    labels = np.zeros(SIZE, np.uint8)
    for name, column in places.items():
        labels[5:10, column : column + 5] = int(name[1:])
    return labels


@pytest.fixture
def frames(tmp_path):
    """A folder of five frames that are called a08, a09, a10 ..."""
    folder = tmp_path / "walk"
    folder.mkdir()
    for t in range(8, 13):
        Image.fromarray(np.full((*SIZE, 3), 20 * t, np.uint8)).save(folder / f"a{t:02d}.png")
    return folder


def read(masks, source, **options):
    """Frame number to {id: pixels} of all masks that count, in the order of frames."""
    opened = open_source(source)
    given = open_masks(masks, opened, **options)
    known, read = set(), {}
    for place, frame in enumerate(opened):
        found = given.at(frame.index, SIZE, known, first=place == 0)
        known |= found.keys()
        if found:
            read[frame.index] = {number: int(mask.sum()) for number, mask in found.items()}
    return read


def save(path, array, **options):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(array).save(path, **options)
    return path


def test_a_picture_or_array_belongs_to_the_first_frame(frames, tmp_path):
    labels = labels_of(o7=4, o200=12)
    write_labels(tmp_path / "first.png", labels)
    for masks in (tmp_path / "first.png", str(tmp_path / "first.png"), labels, labels.astype(np.int64)):
        assert read(masks, frames) == {0: {7: 25, 200: 25}}
    given = open_masks(labels, open_source(frames, start=2))
    assert given.at(2, SIZE, (), first=True).keys() == {7, 200}


def test_a_mapping_goes_by_frame_numbers_and_all_of_it_counts(frames):
    mask = labels_of(o1=4) > 0
    masks = {1: labels_of(o3=4), 2: {7: mask}, 4: {7: mask, 3: labels_of(o1=20) > 0}}
    assert read(masks, frames) == {1: {3: 25}, 2: {7: 25}, 4: {3: 25, 7: 25}}


def test_of_a_folder_new_objects_count_or_the_first_file_or_all(frames, tmp_path):
    folder = tmp_path / "masks"
    write_labels(folder / "a09.png", labels_of(o2=0))
    write_labels(folder / "a10.png", labels_of(o2=2, o5=12))
    write_labels(folder / "a11.png", labels_of())  # all objects have left: nothing is said
    write_labels(folder / "a12.png", labels_of(o5=20))
    assert read(folder, frames) == {1: {2: 25}, 2: {5: 25}}
    assert read(folder, frames, use="first") == {1: {2: 25}}
    assert read(folder, frames, use="all") == {1: {2: 25}, 2: {2: 25, 5: 25}, 4: {5: 25}}
    assert read(folder, frames, objects=[5]) == {2: {5: 25}}
    assert read(folder, frames, use="all", merged=True) == {1: {1: 25}, 2: {1: 50}, 4: {1: 25}}


def test_complete_truth_counts_as_its_first_mask_does(frames, tmp_path):
    folder = tmp_path / "truth"
    for t in range(8, 13):
        write_labels(folder / f"a{t:02d}.png", labels_of(o1=t - 8, o2=t + 4))
    assert read(folder, frames) == read(folder / "a08.png", frames) == {0: {1: 25, 2: 25}}


def test_masks_in_a_zip_file_and_of_frames_that_are_no_files(frames, tmp_path):
    write_labels(tmp_path / "00003.png", labels_of(o2=0))
    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as bundle:
        bundle.write(tmp_path / "00003.png", "00003.png")
    arrays = [np.zeros((*SIZE, 3), np.uint8)] * 5
    assert read(tmp_path / "masks.zip", arrays) == {3: {2: 25}}
    with pytest.raises(UserError, match=r"00003.png: walk has no frame of this name.*a08.png"):
        read(tmp_path / "masks.zip", frames)


def test_pictures_that_stand_for_ids(frames, tmp_path, caplog):
    labels = labels_of(o1=4, o2=12)
    labels[15:] = VOID
    for t in range(8, 13):
        write_labels(tmp_path / "void" / f"a{t:02d}.png", labels)
    assert read(tmp_path / "void", frames) == {0: {1: 25, 2: 25}}
    assert caplog.text.count("undecided pixels (255) count as background") == 1
    white = np.where(labels == 1, 255, 0).astype(np.uint8)
    assert read(save(tmp_path / "white.png", white), frames) == {0: {1: 25}}
    assert read(white, frames) == read(white > 0, frames) == {0: {1: 25}}
    assert read(save(tmp_path / "grey.png", labels_of(o1=4, o9=12)), frames) == {0: {1: 25, 9: 25}}
    colours = np.reshape(PALETTE, (-1, 3)).astype(np.uint8)[labels_of(o1=4, o9=12)]
    assert read(save(tmp_path / "colours.png", colours), frames) == {0: {1: 25, 9: 25}}


def test_pictures_that_are_refused(frames, tmp_path):
    labels, folder = labels_of(o1=4, o2=12), tmp_path / "bad"
    soft = Image.fromarray(np.where(labels > 0, 255, 0).astype(np.uint8)).resize(
        (61, 43), Image.Resampling.BILINEAR
    )
    soft.resize(SIZE[::-1], Image.Resampling.BILINEAR).save(save(folder / "soft.png", labels))
    foreign = np.zeros((*SIZE, 3), np.uint8)
    foreign[5:9, 5:9] = (1, 2, 3)
    refused = {
        save(folder / "small.png", labels[:10]): r"small.png: the mask is 30 x 10, but the frame 30 x 20",
        save(folder / "lossy.jpg", labels): r"lossy.jpg: JPEG changes the values of a mask",
        folder / "soft.png": r"soft.png: .*interpolated",
        save(folder / "ramp.png", np.arange(600, dtype=np.uint8).reshape(SIZE)): r"ramp.png: .* compressed or",
        save(folder / "foreign.png", foreign): r"foreign.png: its colour \(1, 2, 3\) is none of the palette's",
        save(folder / "deep.png", labels.astype(np.uint16)): r"deep.png: an image of mode I;16 .*8 bits",
        save(folder / "empty.png", labels * 0): r"empty.png: the mask is empty; mark at least one object",
    }  # fmt: skip
    for path, text in refused.items():
        with pytest.raises(UserError, match=text):
            read(path, frames)
    (folder / "text.png").write_text("not a picture")
    with pytest.raises(UserError, match=r"text.png: not an image"):
        read(folder / "text.png", frames)


def test_arrays_and_mappings_that_are_refused(frames):
    labels = labels_of(o1=4)
    box = labels > 0
    for masks, text in (
        (labels.astype(np.int32) * 300, "ids go from 1 to 254, but it holds 0 to 300"),
        (labels.astype(np.float32), r"got float32 of shape \(20, 30\)"),
        (np.stack([labels] * 3, axis=2), r"got uint8 of shape \(20, 30, 3\)"),
        (labels[:, :9], "the mask is 9 x 20, but the frame 30 x 20"),
        (labels * 0, "the mask of frame 0: the mask is empty"),
        ({0: {255: box}}, "an object's id is a whole number from 1 to 254, got 255"),
        ({0: {0: box}}, "from 1 to 254, got 0"),
        ({0: {3: labels}}, "the mask of object 3 must be an array of bool, got uint8"),
        ({0: {3: box[:5]}}, "object 3: the mask is 30 x 5, but the frame 30 x 20"),
        ({0: {3: box, 4: box}}, "the mask of object 4 overlaps that of another object"),
        ({0: {3: box & False}}, "object 3 has no pixel; mark it, or leave it out"),
        ({-1: labels}, "masks go by frame numbers from 0, got -1"),
        ({"a08": labels}, "masks go by frame numbers from 0, got 'a08'"),
        (None, "walk: no mask says which objects to follow; .*--first-mask or --masks"),
    ):
        with pytest.raises(UserError, match=text):
            read(masks, frames)


def test_folders_and_choices_that_are_refused(frames, tmp_path):
    folder = tmp_path / "masks"
    write_labels(folder / "a08.png", labels_of(o1=4))
    with pytest.raises(UserError, match=r"a08.png: shows object 1 and none of the wanted, 5, 7"):
        read(folder / "a08.png", frames, objects=[7, 5])
    with pytest.raises(UserError, match="an object's id is a whole number from 1 to 254, got 0"):
        read(folder, frames, objects=[0])
    with pytest.raises(UserError, match="use_masks must be first, new or all, got 'last'"):
        read(folder, frames, use="last")
    write_labels(folder / "b01.png", labels_of(o1=4))
    write_labels(folder / "b02.png", labels_of(o1=4))
    with pytest.raises(UserError, match=r"b01.png: walk has no frame of this name; .* a08.png"):
        read(folder, frames)
    with pytest.raises(
        FileNotFoundError, match=r"no masks in .*nothing; expected PNG files named like the frames"
    ):
        (tmp_path / "nothing").mkdir()
        read(tmp_path / "nothing", frames)
    with pytest.raises(FileNotFoundError, match=r"mask not found: .*absent\.png"):
        read(tmp_path / "absent.png", frames)
    save(tmp_path / "twice" / "a08.png", labels_of(o1=4))
    save(tmp_path / "twice" / "a08.bmp", labels_of(o1=4))
    with pytest.raises(UserError, match=r"a second mask of frame 0, beside .*; remove one"):
        read(tmp_path / "twice", frames)


def test_the_palette_is_that_of_the_first_mask(frames, tmp_path):
    own = [0, 0, 0, 250, 5, 5]
    write_labels(tmp_path / "own.png", labels_of(o1=4), own + list(PALETTE[6:]))
    source = open_source(frames)
    assert open_masks(tmp_path / "own.png", source).palette == (*own, *PALETTE[6:])
    grey = save(tmp_path / "grey.png", labels_of(o1=4))
    assert open_masks(grey, source).palette == open_masks(labels_of(o1=4), source).palette == PALETTE
