"""What a job does, in a process of its own: probe the upload, segment it, write the page's pictures and downloads."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from hmhi.errors import BadFileError, UserError
from hmhi.inference.inputs import InputVideo
from hmhi.inference.objects import ObjectSegmenter
from hmhi.inference.outputs import OutputSettings, ResultWriter
from hmhi.inference.results import FrameResult
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.media.masks import PALETTE
from hmhi.media.video_in import VideoFile
from hmhi.media.video_out import VideoWriter
from hmhi.serve.settings import SAMPLES, Limits, Network, Task
from hmhi.synthetic import render_clip

log = logging.getLogger(__name__)

UPLOAD = "upload.video"
"""The file of a job, whatever its name was."""
NAME = "video"
"""Of its results."""
PAINTED = "painted"
"""Folder of a job with the mask of the frame that was painted in, ``00012.png``."""
VIEW_WIDTH = 640  # pixels of the page's pictures, at most
SAMPLE_FRAMES, SAMPLE_SIZE, SAMPLE_FPS = 48, (270, 480), 12.0
DOWNLOADS = {
    "masks.zip": ("masks.zip", "application/zip"),
    "overlay.mp4": (f"overlay/{NAME}.mp4", "video/mp4"),
    "coco.json": (f"coco/{NAME}.json", "application/json"),
    "alpha.webm": (f"alpha_webm/{NAME}.webm", "video/webm"),
}
"""What can be fetched -> its place below ``out``, and its type."""


def build(network: Network) -> Callable[[Task, Callable[[Any], None]], dict[str, Any]]:
    """The function of jobs, for `hmhi.runtime.worker.WorkerProcess`."""
    segmenters: dict[tuple[int | None, bool] | str, VideoSegmenter | ObjectSegmenter] = {}

    def perform(task: Task, report: Callable[[Any], None]) -> dict[str, Any]:
        key = "objects" if task.follows else (task.options.image_size, task.options.refine)
        try:
            if key not in segmenters:
                segmenters.clear()  # one network at a time
                segmenters[key] = _open_segmenter(network, task)
            return segment_job(task, segmenters[key], report)
        except (UserError, OSError) as error:
            text = str(error).replace(str(task.folder / UPLOAD), "the video")
            if os.sep in text:  # no path of this machine may leave it
                log.error("%s", text)
                text = "the video cannot be segmented; the server's log says why"
            raise UserError(text) from None

    return perform


def _open_segmenter(network: Network, task: Task) -> VideoSegmenter | ObjectSegmenter:
    if task.follows:
        assert network.objects_checkpoint is not None
        return ObjectSegmenter(network.objects_checkpoint, network.device)
    size, refine = task.options.image_size, "auto" if task.options.refine else "none"
    return VideoSegmenter(network.checkpoint, network.device, image_size=size, refine=refine)


def segment_job(
    task: Task, segmenter: VideoSegmenter | ObjectSegmenter, report: Callable[[Any], None]
) -> dict[str, Any]:
    """Segment the upload of a job, reporting facts about it and each finished frame.

    Raises:
        UserError: It is no video, or beyond a limit.
    """
    path = task.folder / UPLOAD
    if task.sample is not None and not path.exists():
        _write_sample(path, SAMPLES[task.sample])
    facts = probe(path, task.limits)
    report(facts)
    video = InputVideo(NAME, path, masks=task.folder / PAINTED if task.follows else None)
    source = video.open(start=None, end=None, every=1, fps=SAMPLE_FPS)
    kinds = ["masks", "overlay", "coco"] + ["alpha_webm"] * task.options.alpha
    out, view = task.folder / "out", task.folder / "view"
    view.mkdir(exist_ok=True)
    settings = OutputSettings(out, kinds, segmenter.config.threshold, by_id=task.follows)
    count = 0
    writer = ResultWriter(settings, video, source)
    if isinstance(segmenter, ObjectSegmenter):
        stream = segmenter.stream(source, video.masks)
    else:
        stream = segmenter.stream(source)
    with writer, closing(stream) as results:
        for result in results:
            if count >= task.limits.frames:
                raise UserError(f"the video has more than {task.limits.frames} frames")
            writer.write(result)
            _save_view(view / f"{count}.jpg", result)
            count += 1
            report({"frames": count})
    with zipfile.ZipFile(out / "masks.zip", "w") as pack:
        for mask in sorted((out / "masks" / NAME).iterdir()):
            pack.write(mask, mask.name)
    return {"frames": count, "total": count}


def probe(path: Path, limits: Limits) -> dict[str, Any]:
    """Size, rate and stated length of an upload.

    Raises:
        UserError: It is no video that can be read, or beyond a limit.
    """
    try:
        with VideoFile(path) as video:
            if not video.advance():
                raise UserError("the video has no frame that can be read")
            height, width = video.picture().shape[:2]
            fps, total = video.fps, video.stated_frames
    except BadFileError:
        raise UserError("this is not a video that can be read") from None
    if height * width > limits.pixels:
        raise UserError(
            f"frames of {width} x {height} are too large; at most {limits.pixels / 1e6:.1f} megapixels"
        )
    if total is not None and total > limits.frames:
        raise UserError(f"the video has {total} frames; at most {limits.frames} are segmented")
    return {"width": width, "height": height, "fps": fps, "total": total}


def view_picture(result: FrameResult) -> np.ndarray:
    """Three pictures, one below the other, (3 * h, w, 3) uint8, w at most `VIEW_WIDTH`.

    The frame, the probability of any object, and the flow; where no flow is read, the colour of the likeliest object
    at each pixel instead, background left out.
    """
    height, width = result.frame.shape[:2]
    scale = min(1.0, VIEW_WIDTH / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    levels = np.rint(result.prob * 255).astype(np.uint8)
    third = _object_colours(result) if result.flow is None else result.flow
    parts = [result.frame, np.repeat(levels[..., None], 3, axis=2), third]
    return np.vstack([cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in parts])


def _object_colours(result: FrameResult) -> np.ndarray:
    """Colour of the likeliest object at each pixel, (H, W, 3) uint8; black before the first object comes."""
    if not result.ids:
        return np.zeros_like(result.frame)
    colours = np.array(PALETTE, np.uint8).reshape(-1, 3)[list(result.ids)]  # (K, 3)
    return colours[result.probs.argmax(axis=0)]


def _save_view(path: Path, result: FrameResult) -> None:
    growing = path.with_suffix(".part")
    sampling = "4:2:0" if result.flow is not None else "4:4:4"  # colours that tell objects apart stay sharp
    Image.fromarray(view_picture(result)).save(growing, "jpeg", quality=88, subsampling=sampling)
    growing.rename(path)


def _write_sample(path: Path, seed: int) -> None:
    clip = render_clip(seed, SAMPLE_FRAMES, SAMPLE_SIZE)
    growing = path.with_suffix(".mp4")
    writer = VideoWriter(growing, SAMPLE_FPS, SAMPLE_SIZE)
    for image in clip.images:
        writer.write(image)
    writer.close()
    growing.rename(path)
