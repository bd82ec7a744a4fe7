"""Read and write masks: truth as {0, 1}, object ids, and the palette in which ids are stored and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hmhi.errors import BadFileError
from hmhi.media.atomic import write_atomically
from hmhi.media.pictures import decode

VOID = 255
"""Id of pixels that belong to no object and not to the background either: they are not scored."""

MAX_OBJECTS = 32
"""Values beyond which a mask is taken for a picture, or for one that was compressed or interpolated."""


def _voc_palette() -> tuple[int, ...]:
    """Colours of PASCAL VOC and DAVIS: the bits of an id go by turns to red, green and blue, high ones first."""
    levels = []
    for index in range(256):
        for channel in range(3):
            bits = (index >> (3 * place + channel) & 1 for place in range(3))
            levels.append(sum(bit << (7 - place) for place, bit in enumerate(bits)))
    return tuple(levels)


PALETTE = _voc_palette()
"""256 colours as 768 levels, red, green, blue by turns: id 0 is black, id 1 dark red (128, 0, 0)."""

_GREY_RAMP = [level for level in range(256) for _ in range(3)]


def read_mask(path: Path) -> np.ndarray:
    """Decode a truth mask to uint8 (H, W) in {0, 1}.

    The one rule of this project: foreground is what is not zero. In a palette image that is every index
    above 0 but `VOID`, so that the objects of a multi-object mask merge; in a grey one ({0, 1}, {0, 255} or ids),
    palettes that are a grey ramp included, every value above 0; in a colour one every pixel that is not black.
    Opacity is ignored.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a readable image, or larger than `hmhi.media.files.MAX_PIXELS`.
    """
    image = decode(path)
    values = _stored_values(image)
    foreground = values > 0
    if foreground.ndim == 3:
        foreground = np.logical_or.reduce(foreground, axis=2)
    if image.mode == "P" and not _is_grey_ramp(image, int(values.max())):
        foreground &= values != VOID
    return foreground.astype(np.uint8)


def read_mask_values(path: Path) -> np.ndarray:
    """Decode a truth mask as stored: palette indices or grey values (H, W), or colours (H, W, 3).

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a readable image, or larger than `hmhi.media.files.MAX_PIXELS`.
    """
    return _stored_values(decode(path))


def _stored_values(image: Image.Image) -> np.ndarray:
    if image.mode in ("LA", "RGBA"):
        image = image.convert(image.mode.removesuffix("A"))
    return np.array(image)


def read_levels(path: Path) -> tuple[np.ndarray, bool]:
    """Decode a mask or map to (H, W) uint8, and tell whether its values are object ids or grey levels.

    Palette images hold ids, except those whose palette is the grey ramp. Colour images pass only where their
    channels agree. Opacity is ignored.

    Returns:
        The values, and whether they are ids. Bits count as the levels 0 and 255.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a readable image, or no 8-bit map or mask.
    """
    image = decode(path)
    if image.mode == "P":
        values = np.array(image)
        return values, not _is_grey_ramp(image, int(values.max()))
    if image.mode == "1":
        return np.array(image).astype(np.uint8) * np.uint8(255), False
    if image.mode == "L":
        return np.array(image), False
    if image.mode in ("RGB", "RGBA", "LA"):
        colours = np.array(image)[..., : 1 if image.mode == "LA" else 3]
        if (colours == colours[..., :1]).all():
            return np.ascontiguousarray(colours[..., 0]), False
        raise BadFileError(
            f"{path}: a colour image where a mask is due; save masks as palette or 8-bit grey PNG"
        )
    raise BadFileError(
        f"{path}: an image of mode {image.mode} where an 8-bit mask or map is due; convert it to 8 bits"
    )


def read_labels(path: Path) -> np.ndarray:
    """Decode a mask to object ids, uint8 (H, W): 0 is background, `VOID` is undecided.

    Palette indices are ids, and so are grey values, but a grey mask in {0, 255} shows object 1 in white. A colour
    image passes where every colour is one of `PALETTE`'s.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a readable image, of 16 bits, of foreign colours, or with values that look compressed or
            interpolated.
    """
    image = decode(path)
    colours = np.array(image.convert("RGB")) if image.mode in ("RGB", "RGBA") else None
    if colours is not None and (colours != colours[..., :1]).any():
        labels, is_ids = _ids_of_colours(path, colours), True
    else:
        labels, is_ids = read_levels(path)
    return levels_to_labels(labels, str(path), is_ids=is_ids)


def levels_to_labels(labels: np.ndarray, name: str, *, is_ids: bool) -> np.ndarray:
    """Bring the values of a mask to object ids, by the rules of `read_labels`.

    Args:
        labels: (H, W) uint8.
        name: Of the mask, for messages.
        is_ids: Whether the values are ids for certain; otherwise they may be grey levels.

    Raises:
        BadFileError: The values look compressed or interpolated.
    """
    if not is_ids and not object_ids(labels):  # 0 and 255 alone
        return (labels > 0).astype(np.uint8)
    ids = object_ids(labels)
    advice = "save masks as palette PNG, and resize them by nearest neighbour"
    if len(ids) > MAX_OBJECTS:
        raise BadFileError(
            f"{name}: {len(ids)} values where a mask of at most {MAX_OBJECTS} objects is due; it looks compressed or "
            f"interpolated: {advice}"
        )
    if not is_ids and ids and ids[-1] > MAX_OBJECTS and (labels == VOID).any():  # white, and greys towards it
        raise BadFileError(
            f"{name}: grey levels up to white, such as {ids[-1]}; it looks interpolated: {advice}"
        )
    return labels


def read_palette(path: Path) -> tuple[int, ...]:
    """The colours of a palette image, in the form of `PALETTE`, which stands in where it has none.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a readable image.
    """
    image = decode(path)
    own = image.getpalette() if image.mode == "P" and not _is_grey_ramp(image, 1) else None
    return (*(own or ()), *PALETTE[len(own or ()) :])


def object_ids(labels: np.ndarray) -> list[int]:
    """Ids that occur in a uint8 label map, increasing, without background and void."""
    counts = np.bincount(labels.ravel(), minlength=VOID + 1)
    return (np.flatnonzero(counts[1:VOID]) + 1).tolist()


def write_labels(path: Path, labels: np.ndarray, palette: Sequence[int] = PALETTE) -> None:
    """Write object ids as a palette PNG, whole or not at all; parent folders are made.

    The file's palette ends with the largest id that occurs, or with id 1: a mask of one object takes one bit a pixel.

    Args:
        path: File to write.
        labels: (H, W) uint8 or bool.
        palette: Colour of each id, red, green, blue by turns.
    """
    image = Image.fromarray(labels.astype(np.uint8, copy=False))
    colours = max(int(labels.max()), 1) + 1
    image.putpalette(list(palette[: 3 * colours]))
    with write_atomically(path) as stream:
        image.save(stream, "png")


def _is_grey_ramp(image: Image.Image, largest: int) -> bool:
    palette, used = image.getpalette(), 3 * (largest + 1)
    return palette is not None and len(palette) >= used and palette[:used] == _GREY_RAMP[:used]


def _ids_of_colours(path: Path, colours: np.ndarray) -> np.ndarray:
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    codes = red << 16 | green << 8 | blue  # (H, W)
    known = {r << 16 | g << 8 | b: i for i, (r, g, b) in enumerate(np.reshape(PALETTE, (-1, 3)).tolist())}
    values, places = np.unique(codes, return_inverse=True)
    foreign = [code for code in values.tolist() if code not in known]
    if foreign:
        code = foreign[0]
        shown = f"({code >> 16}, {code >> 8 & 255}, {code & 255})"
        raise BadFileError(
            f"{path}: its colour {shown} is none of the palette's; save masks as palette PNG (docs/DATA.md)"
        )
    ids = np.array([known[code] for code in values.tolist()], np.uint8)
    return ids[places].reshape(codes.shape)
