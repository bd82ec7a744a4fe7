"""Many videos into one folder."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_model import save_small_checkpoint
from tiny import run_ranks

from hmhi.errors import UserError
from hmhi.inference.inputs import InputVideo, find_inputs, find_videos
from hmhi.inference.outputs import OutputSettings, ResultWriter
from hmhi.inference.run_record import check_output, check_settings, write_record
from hmhi.inference.segment import Interrupted, Selection, Summary, deal_out, segment_all
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.runtime.distributed import Ranks, process_group

ONE = Ranks(0, 1, torch.device("cpu"))


def write_frames(folder, count):
    folder.mkdir(parents=True)
    for t in range(count):
        Image.new("RGB", (40, 32), (90 * t % 256, 30 * t, 0)).save(folder / f"{t:05d}.png")
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    return save_small_checkpoint(tmp_path / "best.pt")


def test_the_longest_first_to_whoever_has_least():
    lengths = {"a": 10, "b": 70, "c": 40, "d": 30, "e": 0}
    assert deal_out(lengths, 2) == [["a", "b"], ["c", "d", "e"]]
    assert deal_out(lengths, 1) == [["a", "b", "c", "d", "e"]]
    assert deal_out({}, 2) == [[], []]
    assert sorted(map(len, deal_out(dict.fromkeys("abcdef", 0), 3))) == [2, 2, 2]  # lengths that nobody knows


def test_a_failure_costs_one_video(tmp_path, checkpoint, capsys):
    for name in "acd":
        write_frames(tmp_path / "in" / name, 2)
    (tmp_path / "in" / "a" / "00001.png").write_bytes(b"not a picture")
    (tmp_path / "in" / "b.mp4").write_bytes(b"not a video")
    out = tmp_path / "out"

    def run(**options: Any) -> Summary:
        videos = find_videos(tmp_path / "in")
        return segment_all(
            VideoSegmenter(checkpoint, "cpu"), videos, Selection(), OutputSettings(out), ranks=ONE, **options
        )

    assert run() == Summary(finished=["c", "d"], failed=["a", "b"])
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in errors] == [True, True]
    assert "b.mp4" in errors[0] and "a/00001.png" in errors[1]
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["c", "d"]
    write_record(out, {"input": "x"})
    assert not (out / ".partial").exists()
    assert [entry["name"] for entry in json.loads((out / "infer.json").read_text())["sequences"]] == [
        "c",
        "d",
    ]

    # mended, only what was missing is done
    Image.new("RGB", (40, 32)).save(tmp_path / "in" / "a" / "00001.png")
    (tmp_path / "in" / "b.mp4").unlink()
    stamp = (out / "masks" / "c").stat().st_mtime_ns
    assert run() == Summary(finished=["a"], kept=["c", "d"])
    assert (out / "masks" / "c").stat().st_mtime_ns == stamp
    assert run(overwrite=True) == Summary(finished=["a", "c", "d"])
    assert (out / "masks" / "c").stat().st_mtime_ns > stamp


def test_a_bug_costs_one_video_too_and_says_so(tmp_path, checkpoint, monkeypatch, capsys):
    """Its traceback is in the record; what the user can mend has none."""
    for name in "abc":
        write_frames(tmp_path / "in" / name, 2)
    (tmp_path / "in" / "c" / "00001.png").write_bytes(b"not a picture")
    write = ResultWriter.write

    def broken(writer, result):
        if writer.record_path.stem == "a":
            return {}["no such key"]
        return write(writer, result)

    monkeypatch.setattr(ResultWriter, "write", broken)
    out, videos = tmp_path / "out", find_videos(tmp_path / "in")
    segmenter = VideoSegmenter(checkpoint, "cpu")
    done = segment_all(segmenter, videos, Selection(), OutputSettings(out), ranks=ONE)
    assert done == Summary(finished=["b"], failed=["a", "c"], bugs=["a"])
    first, second = capsys.readouterr().err.strip().splitlines()
    assert first.startswith("error: a: a bug in hmhi, not in your input: KeyError: 'no such key'")
    assert second.startswith("error: c: ") and "c/00001.png" in second
    write_record(out, {})
    a, c = json.loads((out / "infer.json").read_text())["failed"]
    assert a["name"] == "a" and a["source"] == str(tmp_path / "in" / "a")
    assert "in broken" in a["traceback"] and "KeyError" in a["traceback"]
    assert c["traceback"] is None and "00001.png" in c["error"]

    monkeypatch.undo()
    Image.new("RGB", (40, 32)).save(tmp_path / "in" / "c" / "00001.png")
    done = segment_all(segmenter, videos, Selection(), OutputSettings(out), ranks=ONE)
    assert done == Summary(finished=["a", "c"], kept=["b"])
    write_record(out, {})
    assert json.loads((out / "infer.json").read_text())["failed"] == []
    assert not (out / "failed").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["gpu", "python", "torch on the cpu"],
)
def test_out_of_memory_costs_one_video(tmp_path, checkpoint, monkeypatch, capsys, error):
    for name in "ab":
        write_frames(tmp_path / "in" / name, 2)
    write = ResultWriter.write

    def full(writer, result):
        if writer.record_path.stem == "a":
            raise error
        return write(writer, result)

    monkeypatch.setattr(ResultWriter, "write", full)
    videos, outputs = find_videos(tmp_path / "in"), OutputSettings(tmp_path / "out")
    done = segment_all(VideoSegmenter(checkpoint, "cpu"), videos, Selection(), outputs, ranks=ONE)
    assert done == Summary(finished=["b"], failed=["a"])
    assert "error: a: out of memory; try a smaller --image-size" in capsys.readouterr().err


def test_in_a_thread_that_is_not_the_main_one(tmp_path, checkpoint):
    """Such as that of a server or a notebook, where Python handles no signals."""
    videos = find_videos(write_frames(tmp_path / "clip", 2))
    segmenter, outputs = VideoSegmenter(checkpoint, "cpu"), OutputSettings(tmp_path / "out")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(segment_all, segmenter, videos, Selection(), outputs, ranks=ONE).result()
    assert done == Summary(finished=["clip"])


def interrupt_after(monkeypatch, frames):
    seen, write = [], ResultWriter.write

    def counted(writer, result):
        write(writer, result)
        seen.append(1)
        if len(seen) == frames:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ResultWriter, "write", counted)


def test_ctrl_c_keeps_what_is_finished(tmp_path, checkpoint, monkeypatch):
    for name in "ab":
        write_frames(tmp_path / "in" / name, 3)
    segmenter, videos = VideoSegmenter(checkpoint, "cpu"), find_videos(tmp_path / "in")
    outputs = OutputSettings(tmp_path / "out", ("masks", "overlay"))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(Interrupted) as stop:
            segment_all(segmenter, videos, Selection(), outputs, ranks=ONE)
    assert stop.value.number == signal.SIGINT
    write_record(tmp_path / "out", {})
    files = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    frames = [f"masks/a/0000{t}.png" for t in range(3)]
    assert files == ["infer.json", *frames, "overlay/a.mp4", "sequences/a.json"]
    assert segment_all(segmenter, videos, Selection(), outputs, ranks=ONE) == Summary(
        finished=["b"], kept=["a"]
    )


def test_ctrl_c_ends_the_recording_of_a_camera(tmp_path, checkpoint, monkeypatch):
    videos = find_videos(write_frames(tmp_path / "camera0", 5))
    monkeypatch.setattr(InputVideo, "live", True)
    interrupt_after(monkeypatch, 2)
    outputs = OutputSettings(tmp_path / "out")
    done = segment_all(VideoSegmenter(checkpoint, "cpu"), videos, Selection(), outputs, ranks=ONE)
    assert done == Summary(finished=["camera0"])
    assert len(list((tmp_path / "out" / "masks" / "camera0").iterdir())) == 2


def test_an_interrupted_overwrite_continues(tmp_path, checkpoint, monkeypatch):
    for name in "ab":
        write_frames(tmp_path / "in" / name, 2)
    segmenter, videos = VideoSegmenter(checkpoint, "cpu"), find_videos(tmp_path / "in")
    outputs = OutputSettings(tmp_path / "out")
    segment_all(segmenter, videos, Selection(), outputs, ranks=ONE)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(Interrupted):
            segment_all(segmenter, videos, Selection(), outputs, ranks=ONE, overwrite=True)
    assert segment_all(segmenter, videos, Selection(), outputs, ranks=ONE) == Summary(
        finished=["b"], kept=["a"]
    )


def test_results_of_another_video_of_the_same_name(tmp_path, checkpoint, capsys):
    segmenter, outputs = VideoSegmenter(checkpoint, "cpu"), OutputSettings(tmp_path / "out")
    for place in ("one", "other"):
        write_frames(tmp_path / place / "clip", 1)
    one, other = (find_videos(tmp_path / place) for place in ("one", "other"))
    assert segment_all(segmenter, one, Selection(), outputs, ranks=ONE).finished == ["clip"]
    assert segment_all(segmenter, other, Selection(), outputs, ranks=ONE).failed == ["clip"]
    assert str(tmp_path / "one" / "clip") in capsys.readouterr().err
    assert segment_all(segmenter, other, Selection(), outputs, ranks=ONE, overwrite=True).finished == ["clip"]


def test_a_damaged_record_is_named(tmp_path):
    record = tmp_path / "sequences" / "clip.json"
    record.parent.mkdir()
    for content in ("", "[1]", '{"name": '):
        record.write_text(content)
        with pytest.raises(ValueError, match=r"clip\.json is damaged; remove it"):
            write_record(tmp_path, {})


def segment_on_two_ranks(folder: Path) -> None:
    with process_group() as ranks:
        segmenter = VideoSegmenter(folder / "best.pt", "cpu")
        written, write = set(), ResultWriter.write

        def watched(writer: ResultWriter, result: Any) -> None:
            written.add(writer.record_path.stem)
            write(writer, result)

        ResultWriter.write = watched  # type: ignore[method-assign]
        done = segment_all(
            segmenter, find_videos(folder / "in"), Selection(), OutputSettings(folder / "out"), ranks=ranks
        )
    report = {"written": sorted(written), **vars(done)}
    (folder / f"{ranks.rank}.json").write_text(json.dumps(report))


def test_two_ranks_share_the_videos(tmp_path, checkpoint):
    counts = {"a": 1, "b": 5, "c": 2, "d": 2, "e": 1}
    for name, count in counts.items():
        write_frames(tmp_path / "in" / name, count)
    (tmp_path / "in" / "e" / "00000.png").write_bytes(b"not a picture")
    assert run_ranks(segment_on_two_ranks, tmp_path) == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first.pop("written"), second.pop("written")) == (["b"], ["a", "c", "d"])
    assert first == second == {"finished": ["a", "b", "c", "d"], "kept": [], "failed": ["e"], "bugs": []}
    for name in "abcd":
        assert len(list((tmp_path / "out" / "masks" / name).iterdir())) == counts[name]


def test_nothing_is_written_where_the_input_lies(tmp_path):
    frames = write_frames(tmp_path / "in" / "a", 1)
    inputs = find_inputs(str(tmp_path / "in"))
    check_output(tmp_path / "out", inputs)
    check_output(tmp_path / "input", inputs)
    for folder in (tmp_path / "in", frames, tmp_path / "in" / "out", tmp_path / "out" / ".." / "in"):
        with pytest.raises(ValueError, match="inside the input"):
            check_output(folder, inputs)
    check_output(frames, find_inputs(str(frames / "00000.png")))  # beside a file is another matter
    for pattern in ("in/*", "in/a/*.png", "i*/**/*.png"):
        with pytest.raises(ValueError, match="inside the input"):
            check_output(frames / "out", find_inputs(f"{tmp_path}/{pattern}"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises((UserError, OSError), match=r"circle|Too many levels"):
        check_output(tmp_path / "loop", inputs)
        (tmp_path / "loop").mkdir(parents=True)
    masks = write_frames(tmp_path / "out" / "masks" / "a", 1)
    for source in (masks, masks.parent):
        with pytest.raises(ValueError, match="among the results"):
            check_output(tmp_path / "out", find_inputs(str(source)))
    with pytest.raises(ValueError, match="inside the input"):
        check_output(
            tmp_path / "flow" / "x", find_inputs(str(frames), str(write_frames(tmp_path / "flow", 1)))
        )


def test_settings_do_not_mix(tmp_path):
    settings = {"flow": "dis", "image_size": [64, 64]}
    check_settings(tmp_path, settings)
    write_record(tmp_path, {"input": "a", **settings})
    check_settings(tmp_path, settings)
    with pytest.raises(ValueError, match=r"another flow, every;"):
        check_settings(tmp_path, {**settings, "flow": "raft", "every": 2})
    (tmp_path / "sequences").mkdir()
    for name in "ab":
        (tmp_path / "sequences" / f"{name}.json").touch()
    check_settings(tmp_path, {"flow": "raft"}, redone=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"another flow; .* redo all its videos"):
        check_settings(tmp_path, {"flow": "raft"}, redone=["a"])
    (tmp_path / "infer.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        check_settings(tmp_path, settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be 1 or more"),
        ({"every": 1.5}, "every must be 1 or more, a whole number; got 1.5"),
        ({"fps": 0.0}, "fps must be positive"),
        ({"start": "soon"}, "start must be a frame number"),
        ({"end": "-1"}, "end must be a frame number"),
    ],
)
def test_a_selection_that_makes_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Selection(**options)
