import importlib.util
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from results_of import result_of

from hmhi.inference.inputs import find_videos
from hmhi.inference.outputs import OutputSettings, ResultWriter
from hmhi.inference.rendered import RenderedVideo
from hmhi.inference.sources import open_source
from hmhi.viz.composite import Background

needs_av = pytest.mark.skipif(
    importlib.util.find_spec("av") is None, reason="PyAV (extra video) is not installed"
)


def overlay(tmp_path, times, fps, every=1):
    """An overlay of flat frames whose grey counts 0, 10, 20, ...; the greys that it shows."""
    frames = [np.full((32, 48, 3), 10 * t, dtype=np.uint8) for t in range(len(times))]
    source = replace(open_source(frames), fps=fps, every=every)
    output = RenderedVideo(tmp_path / "overlay", ".mp4", source, None, lambda result: result.frame)
    blank = np.zeros((32, 48), dtype=np.float32)
    for index, (frame, moment) in enumerate(zip(frames, times, strict=True)):
        output.add(result_of(frame, blank, index, time=moment), "")
    output.close(complete=True)
    capture = cv2.VideoCapture(str((tmp_path / "overlay").rename(tmp_path / "overlay.mp4")))
    rate, shown = capture.get(cv2.CAP_PROP_FPS), []
    while capture.grab():
        shown.append(round(float(capture.retrieve()[1].mean()) / 10))
    return rate, shown


def test_an_overlay_plays_as_fast_as_its_source(tmp_path):
    assert overlay(tmp_path, [0.0, 0.1, 0.2, 0.3], 10.0) == (10.0, [0, 1, 2, 3])


def test_an_overlay_of_every_second_frame_takes_as_long(tmp_path):
    rate, shown = overlay(tmp_path, [5.0, 5.2, 5.4], 10.0, every=2)
    assert (rate, shown) == (5.0, [0, 1, 2])


def test_an_overlay_without_times(tmp_path):
    assert overlay(tmp_path, [None] * 3, None) == (24.0, [0, 1, 2])


def test_an_overlay_follows_a_varying_rate(tmp_path):
    # two pictures a time step first, then one in two steps
    rate, shown = overlay(tmp_path, [0.0, 0.05, 0.1, 0.15, 0.2, 0.4, 0.6, 0.8], 10.0)
    assert rate == 10.0
    assert len(shown) in (8, 9, 10)
    assert sorted(shown) == shown and shown[-1] == 7
    assert len(set(shown)) < 8  # some were left out, others repeated
    assert max(map(shown.count, shown)) >= 2


def test_time_stamps_that_jump_do_not_fill_the_disk(tmp_path):
    _, shown = overlay(tmp_path, [0.0, 0.1, 95443.0, 95443.1], 10.0)
    assert shown == [0, 1, 2, 3]


@needs_av
def test_results_with_transparency_and_another_background(tmp_path):
    import av

    frames = [np.full((36, 52, 3), (200, 40, 60), dtype=np.uint8)] * 3
    prob = np.zeros((36, 52), dtype=np.float32)
    prob[8:28, 12:40] = 1.0
    (tmp_path / "clip").mkdir()
    cv2.imwrite(str(tmp_path / "clip" / "0.png"), frames[0])
    (video,) = find_videos(tmp_path / "clip")
    kinds = ("alpha_mov", "alpha_webm", "composite")
    settings = OutputSettings(tmp_path / "out", kinds, background=Background("#0000ff"))
    with ResultWriter(settings, video, open_source(frames)) as writer:
        for index, frame in enumerate(frames):
            writer.write(result_of(frame, prob, index, time=index / 24))
    with av.open(str(tmp_path / "out" / "alpha_mov" / "clip.mov")) as container:
        shown = [frame.to_ndarray(format="rgba") for frame in container.decode(video=0)]
    assert len(shown) == 3
    assert abs(shown[1][..., 3].astype(int) - 255 * (prob > 0.5)).mean() < 1
    assert (tmp_path / "out" / "alpha_webm" / "clip.webm").stat().st_size > 0
    capture = cv2.VideoCapture(str(tmp_path / "out" / "composite" / "clip.mp4"))
    picture = capture.read()[1][..., ::-1].astype(int)
    assert picture[2, 2, 2] > 200 > 60 > picture[2, 2, 0], "blue behind"
    assert picture[18, 26, 0] > 150 > 90 > picture[18, 26, 2], "the object before it"


def test_without_the_extra_one_line_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from pathlib import Path\n"
        "from hmhi.media.av_out import AvWriter, has_av\n"
        "assert not has_av()\n"
        "AvWriter(Path('x.webm'), 10, (4, 4))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("hmhi.errors.UserError: .webm video needs PyAV: pip install")
    )
