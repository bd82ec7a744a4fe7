"""Videos of a list, in shards that may die: `hmhi segment --list`, as users and schedulers start it."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from serving import make_video
from small_model import save_small_checkpoint

from hmhi.commands import segment
from hmhi.commands.main import main
from hmhi.errors import UserError
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.media.rle import encode_mask
from hmhi.scale import SegmentVideo
from hmhi.scale.run import Network, read_result, read_status, segment_list
from hmhi.scale.shards import Shard, find_shard


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_small_checkpoint(tmp_path_factory.mktemp("model") / "small.pt")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A list of four videos, of which the third is damaged."""
    folder = tmp_path_factory.mktemp("videos")
    paths = [make_video(folder / f"{name}.avi", frames) for name, frames in (("a", 3), ("b", 4), ("d", 2))]
    (folder / "c.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom" + bytes(200))
    paths.insert(2, folder / "c.mp4")
    listed = folder / "videos.txt"
    listed.write_text("# four\n" + "".join(f"{path}\n\n" for path in paths))
    return listed, [str(path) for path in paths]


def test_a_video_becomes_plain_data(checkpoint, videos):
    segment = SegmentVideo(checkpoint, "cpu")
    path = videos[1][0]
    frames = []
    record = segment(path, frames.append)
    assert frames == [1, 2, 3]
    assert json.loads(json.dumps(record)) == record
    assert (record["frames"], record["fps"], record["size"], record["ids"]) == (3, 12.0, [64, 96], [1])
    expected = list(VideoSegmenter(checkpoint, "cpu").stream(path))
    for codes, scores, result in zip(record["masks"], record["scores"], expected, strict=True):
        assert codes == [encode_mask(result.mask) if result.mask.any() else None]
        assert scores[0] == pytest.approx(float(np.mean(result.prob[result.mask])), abs=1e-3)
    assert record["error"] is None and record["seconds"]["total"] > 0

    with open(path, "rb") as stream:
        again = segment(stream.read())
    assert again["masks"] == record["masks"], "bytes are as good as a path"
    damaged = segment(videos[1][2])
    assert damaged["error"] and damaged["frames"] == 0 and damaged.keys() == record.keys()


def test_each_line_is_in_one_shard(tmp_path):
    listed = tmp_path / "videos.txt"
    listed.write_text("\n".join(map(str, range(10))))
    assert list(Shard(1, 4).lines(listed)) == ["1", "5", "9"]
    parts = [list(Shard(index, 4).lines(listed)) for index in range(4)]
    assert sorted(int(line) for part in parts for line in part) == list(range(10))


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        (None, {}, (0, 1)),
        ("2/8", {"SLURM_ARRAY_TASK_ID": "1"}, (2, 8)),
        (
            None,
            {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"},
            (2, 4),
        ),
        (None, {"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "5"}, (0, 5)),
        (None, {"JOB_COMPLETION_INDEX": "4", "JOB_COMPLETIONS": "5"}, (4, 5)),
    ],
)
def test_the_shard_is_the_schedulers(text, environment, shard):
    assert find_shard(text, environment) == Shard(*shard)


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("8/8", {}, "0 <= i < n"),
        ("1", {}, "must be i/n"),
        (None, {"JOB_COMPLETION_INDEX": "4"}, "not JOB_COMPLETIONS"),
    ],
)
def test_shards_that_make_no_sense(text, environment, message):
    with pytest.raises(UserError, match=message):
        find_shard(text, environment)


def test_shards_fill_one_folder_and_a_second_run_keeps_all(checkpoint, videos, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["segment", "--list", str(videos[0]), "--output", str(out), "--checkpoint", str(checkpoint)]
    assert main([*words, "--shard", "1/2"]) == 0
    assert "2 videos (6 frames)" in capsys.readouterr().out
    assert main([*words, "--shard", "0/2"]) == 2, "the damaged one is in it"
    assert "1 videos (3 frames)" in capsys.readouterr().out
    found = {status["video"]: status for status in read_status(out)}
    assert set(found) == set(videos[1])
    assert [bool(found[video]["error"]) for video in videos[1]] == [False, False, True, False]
    record = read_result(out, found[videos[1][1]])
    assert (record["video"], record["frames"], len(record["masks"])) == (videos[1][1], 4, 4)
    assert main([*words, "--shard", "0/1"]) == 0, "other shards of the same list keep what is done"
    assert "0 videos (0 frames)" in (said := capsys.readouterr().out) and "4 from an earlier run" in said
    assert main([*words, "--shard", "0/1", "--retry"]) == 2
    assert main([*words, "infer.threshold=0.7"]) == 2
    assert "made with another overrides" in capsys.readouterr().err
    assert main([*words, "--overlay"]) == 2
    assert "knows no --overlay" in capsys.readouterr().err


@pytest.mark.slow
def test_half_a_line_is_cut_off_and_a_shard_has_one_worker(checkpoint, videos, tmp_path):
    arguments = (videos[0], tmp_path, Shard(1, 2), Network(checkpoint, "cpu"), {})
    assert segment_list(*arguments).done == 2
    status = tmp_path / "status" / f"{Shard(1, 2)}.jsonl"
    lines = status.read_bytes().splitlines(keepends=True)
    status.write_bytes(lines[0] + lines[1][:20])  # killed while it wrote
    assert [one["video"] for one in read_status(tmp_path)] == [videos[1][1]]
    counts = segment_list(*arguments)
    assert (counts.done, counts.kept) == (1, 1)
    assert [read_result(tmp_path, one)["frames"] for one in read_status(tmp_path)] == [4, 2]

    import fcntl

    with status.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process works on shard"):
            segment_list(*arguments)


@pytest.mark.slow
def test_a_video_that_takes_too_long_costs_only_itself(checkpoint, videos, tmp_path):
    long = make_video(tmp_path / "long.avi", frames=2000)
    listed = tmp_path / "videos.txt"
    listed.write_text(f"{long}\n{videos[1][3]}\n")
    counts = segment_list(listed, tmp_path / "out", Shard(), Network(checkpoint, "cpu"), {}, time_limit=4)
    assert (counts.done, counts.failed) == (1, 1)
    errors = [status["error"] for status in read_status(tmp_path / "out")]
    assert errors == ["it took longer than 4 seconds", None]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_shard_that_dies_is_resumed_by_the_same_command(repository, checkpoint, tmp_path, number, code):
    paths = [make_video(tmp_path / f"{index}.avi", 10 if index < 2 else 200) for index in range(3)]
    listed = tmp_path / "videos.txt"
    listed.write_text("".join(f"{path}\n" for path in paths))
    words = ["--list", listed, "--output", tmp_path / "out", "--checkpoint", checkpoint]
    command = [sys.executable, str(repository / "tools" / "infer.py"), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment) as process:
        while len(list(read_status(tmp_path / "out"))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
    assert process.returncode == code
    before = list(read_status(tmp_path / "out"))
    assert [status["video"] for status in before] == [str(path) for path in paths[:2]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 videos (200 frames)" in done.stdout and "2 from an earlier run" in done.stdout
    assert list(read_status(tmp_path / "out"))[:2] == before


def test_a_stream_of_bytes_needs_no_file(checkpoint, videos):
    with open(videos[1][0], "rb") as stream:
        content = io.BytesIO(stream.read())
    results = list(VideoSegmenter(checkpoint, "cpu").stream(content))
    assert len(results) == 3


@pytest.mark.slow
def test_the_cluster_files_call_the_command_as_it_is(repository, checkpoint, videos, tmp_path):
    """The SLURM script with the variables that SLURM sets; the Kubernetes job by what it says."""
    script = repository / "scripts" / "slurm" / "infer.sbatch"
    words = [videos[0], tmp_path / "out", "--checkpoint", checkpoint]
    environment = {
        **os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "SLURM_SUBMIT_DIR": str(repository),
        "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "4",
    }  # fmt: skip
    done = subprocess.run(["bash", script, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [status["video"] for status in read_status(tmp_path / "out")] == [videos[1][1]]

    job = yaml.safe_load((repository / "scripts" / "cluster" / "kubernetes_job.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert {"name": "JOB_COMPLETIONS", "value": str(job["completions"])} in container["env"]
    assert container["command"][:2] == ["hmhi", "segment"]
    parsed = segment.parse_arguments(container["command"][2:])
    assert (str(parsed.list), parsed.time_limit) == ("/data/videos.txt", 1800)
