"""Every export is read back, by the tool's own library where that is a package, by the published format elsewhere."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hmhi.errors import UserError
from hmhi.exports.export import FORMATS, export_run
from hmhi.exports.yolo import mask_to_polygon

SIZE = (40, 60)


def label_images():
    """Two objects, one of them in parts and with a hole; the second is absent at first, and both are at last."""
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    ring = (abs(np.hypot(rows - 15, columns - 18) - 8) < 4) | ((rows > 30) & (columns < 9))
    square = np.zeros(SIZE, dtype=bool)
    square[20:33, 38:60] = True
    first = ring.astype(np.uint8)
    second = np.where(square, 2, first).astype(np.uint8)
    return [first, second, np.zeros(SIZE, dtype=np.uint8)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder as ``hmhi segment`` writes it."""
    root = tmp_path_factory.mktemp("run")
    frames = root / "frames" / "walk"
    for folder in (frames, root / "masks" / "walk", root / "sequences"):
        folder.mkdir(parents=True)
    for index, labels in enumerate(label_images(), start=9):
        image = Image.fromarray(labels)
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        image.save(root / "masks" / "walk" / f"{index}.png")
        Image.new("RGB", SIZE[::-1], (index, 80, 90)).save(frames / f"{index}.png")
    (root / "sequences" / "walk.json").write_text(json.dumps({"name": "walk", "source": str(frames)}))
    return root


def truth():
    """(frame, object) -> mask."""
    masks = {}
    for index, labels in enumerate(label_images()):
        masks |= {(index, int(number)): labels == number for number in np.unique(labels) if number}
    return masks


def same(found):
    expected = truth()
    assert found.keys() == expected.keys()
    for key, mask in expected.items():
        assert np.array_equal(found[key], mask), key


def test_pycocotools_reads_coco(run, capsys):
    coco_api = pytest.importorskip("pycocotools.coco")
    folder = export_run(run, "coco", category="creature")
    assert folder == run / "exports" / "coco"
    coco = coco_api.COCO(str(folder / "annotations" / "instances_default.json"))
    images = [image["file_name"] for image in coco.loadImgs(coco.getImgIds())]
    assert images == ["walk/9.png", "walk/10.png", "walk/11.png"]  # by number, not by text
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["creature"]
    annotations = coco.loadAnns(coco.getAnnIds())
    same(
        {
            (item["image_id"] - 1, item["attributes"]["track_id"]): coco.annToMask(item).astype(bool)
            for item in annotations
        }
    )
    mask_api = pytest.importorskip("pycocotools.mask")
    for item in annotations:
        assert item["area"] == mask_api.area(item["segmentation"])
        assert item["bbox"] == mask_api.toBbox(item["segmentation"]).tolist()


def test_youtube_vis_has_one_annotation_an_object(run):
    mask_api = pytest.importorskip("pycocotools.mask")
    document = json.loads((export_run(run, "ytvis") / "instances.json").read_text())
    assert document["videos"][0]["file_names"] == ["walk/9.png", "walk/10.png", "walk/11.png"]
    assert [item["id"] for item in document["annotations"]] == [1, 2]
    same(
        {
            (index, item["id"]): mask_api.decode(code).astype(bool)
            for item in document["annotations"]
            for index, code in enumerate(item["segmentations"])
            if code is not None
        }
    )


def read_datumaro(folder, name):
    datumaro = pytest.importorskip("datumaro")
    found = {}
    for item in datumaro.Dataset.import_from(str(folder), name):
        assert item.media.size == SIZE, "the image is beside the masks"
        for annotation in (
            one for one in item.annotations if one.type.name == "mask"
        ):  # COCO gives boxes too
            index = int(Path(item.id).name) - 9
            number = annotation.attributes.get("track_id", annotation.attributes.get("id"))
            found[index, int(number)] = annotation.image.astype(bool)
    return found


@pytest.mark.parametrize(("to", "name"), [("cvat", "cvat"), ("mots", "mots"), ("coco", "coco")])
def test_datumaro_reads_what_cvat_imports(run, tmp_path, to, name):
    folder = export_run(run, to, tmp_path / "out", images=True)
    same(read_datumaro(folder / "walk" if to == "cvat" else folder, name))


def read_yolo(path, size):
    """One mask a line, as the format's readers fill its polygons."""
    masks = []
    for line in path.read_text().splitlines():
        category, *numbers = line.split()
        assert category == "0"
        points = np.array(numbers, dtype=np.float64).reshape(-1, 2)
        assert len(points) >= 3 and points.min() >= 0 and points.max() <= 1
        canvas = np.zeros(size, dtype=np.uint8)
        cv2.fillPoly(canvas, [(points * [size[1], size[0]]).astype(np.int32)], 1)
        masks.append(canvas.astype(bool))
    return masks


def test_yolo_polygons_fill_the_masks(run, tmp_path):
    folder = export_run(run, "yolo", tmp_path / "out", category='a "walker"', images=True)
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load((folder / "data.yaml").read_text())["names"] == {0: 'a "walker"'}
    labels = sorted((folder / "labels" / "train" / "walk").iterdir())
    images = sorted((folder / "images" / "train" / "walk").iterdir())
    assert [path.stem for path in labels] == [path.stem for path in images]
    for index, number in enumerate((9, 10, 11)):
        masks = read_yolo(folder / "labels" / "train" / "walk" / f"{number}.txt", SIZE)
        expected = [mask for (frame, _), mask in sorted(truth().items()) if frame == index]
        assert len(masks) == len(expected)
        for mask, wanted in zip(masks, expected, strict=True):
            bridges = mask ^ wanted
            assert not (wanted & bridges).any(), "every pixel and the hole are kept"
            assert bridges.sum() <= 20, "a bridge between two parts is one pixel wide"


@pytest.mark.parametrize("pixels", [[(3, 4)], [(3, 4), (3, 5)], [(0, 0), (7, 9)]])
def test_a_polygon_of_a_few_pixels(pixels):
    mask = np.zeros((8, 10), dtype=bool)
    mask[tuple(np.transpose(pixels))] = True
    polygon = mask_to_polygon(mask)
    assert len(polygon) >= 3
    canvas = np.zeros(mask.shape, dtype=np.uint8)
    cv2.fillPoly(canvas, [polygon.astype(np.int32)], 1)
    assert canvas[mask].all()


def decode_brush(stream):
    """The inverse of Label Studio's brush code, from the description of its stream."""
    bits, place = "".join(f"{byte:08b}" for byte in stream), 0

    def read(length):
        nonlocal place
        place += length
        return int(bits[place - length : place], 2)

    count, word = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    levels = []
    while len(levels) < count:
        repeated, run = read(1), 1 + read(lengths[read(2)])
        levels += [read(word)] * run if repeated else [read(word) for _ in range(run)]
    return np.array(levels, dtype=np.uint8)


@pytest.mark.parametrize("decoder", ["description", "label_studio_converter.brush"])
def test_label_studio_brushes(run, decoder):
    decode = decode_brush if decoder == "description" else pytest.importorskip(decoder).decode_rle
    tasks = json.loads((export_run(run, "labelstudio") / "tasks.json").read_text())
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=images/walk/9.png"
    found = {}
    for index, task in enumerate(tasks):
        for region in task["predictions"][0]["result"]:
            assert (region["original_height"], region["original_width"]) == SIZE
            levels = np.reshape(decode(region["value"]["rle"]), (*SIZE, 4))
            assert set(np.unique(levels)) <= {0, 255}
            found[index, int(region["id"].removeprefix("object"))] = levels[..., 3] == 255
    same(found)


def test_frames_of_a_video_file_become_images(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "walk.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    for level in (40, 200):
        writer.write(np.full((24, 32, 3), level, dtype=np.uint8))
    writer.release()
    for folder in ("masks/walk", "sequences"):
        (tmp_path / folder).mkdir(parents=True)
    for index in range(2):
        Image.fromarray(np.eye(24, 32, dtype=np.uint8)).save(tmp_path / "masks/walk" / f"{index:05d}.png")
    record = tmp_path / "sequences" / "walk.json"
    record.write_text(json.dumps({"source": str(tmp_path / "walk.avi")}))
    folder = export_run(tmp_path, "coco", images=True)
    levels = [
        int(np.array(Image.open(path)).mean()) for path in sorted((folder / "images/walk").glob("*.jpg"))
    ]
    assert levels == pytest.approx([40, 200], abs=3)

    record.write_text(json.dumps({"source": "/gone"}))
    with pytest.raises(UserError, match="frame 00000 of the source cannot be found"):
        export_run(tmp_path, "coco", images=True)
    assert (folder / "images/walk").exists(), "a failed export leaves the one before it"


def test_what_cannot_be_exported(run, tmp_path):
    with pytest.raises(UserError, match="no masks in"):
        export_run(tmp_path, "coco")
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="is not empty"):
        export_run(run, "coco", tmp_path)
    assert set(FORMATS) == {"coco", "ytvis", "cvat", "yolo", "mots", "labelstudio"}
