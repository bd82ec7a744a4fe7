"""Many videos on Ray Data, whose driver is killed half-way; skipped where Ray is not installed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from serving import make_video
from small_model import save_small_checkpoint

ray = pytest.importorskip("ray", reason="pip install 'ray[data]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# A machine with two CPUs: two actors on half a one each leave one for the writers.
DRIVER = """
import sys
from pathlib import Path
import ray
ray.init("local", num_cpus=2, object_store_memory=200 << 20, include_dashboard=False)
from hmhi.scale.ray import segment_videos
videos, output, checkpoint = sys.argv[1:]
print("videos:", segment_videos(Path(videos), Path(output), actors=2, cpus=0.5, checkpoint=checkpoint, device="cpu"))
"""


def test_a_killed_run_is_resumed_by_the_same_call(repository, tmp_path):
    import pyarrow.parquet

    from hmhi.scale.ray import finished

    checkpoint = save_small_checkpoint(tmp_path / "small.pt")
    paths = [make_video(tmp_path / f"{index}.avi", 5 if index < 3 else 150) for index in range(6)]
    (tmp_path / "damaged.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom" + bytes(200))
    names = [str(tmp_path / "damaged.mp4"), *map(str, paths)]
    listed, output = tmp_path / "videos.txt", tmp_path / "out"
    listed.write_text("\n".join(names))
    command = [sys.executable, "-c", DRIVER, str(listed), str(output), str(checkpoint)]
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}

    log = tmp_path / "first.log"
    with (
        log.open("w") as said,
        subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT) as driver,
    ):
        while not any(output.glob("*.parquet")):
            assert driver.poll() is None, log.read_text()
            time.sleep(0.2)
        driver.send_signal(signal.SIGKILL)
    time.sleep(5)  # Ray's processes end with their driver
    before = finished(output)
    assert 0 < len(before) < len(names)
    whole = next(output.glob("*.parquet")).read_bytes()
    (output / "half.parquet").write_bytes(whole[:-20])
    (output / "hole.parquet").write_bytes(whole[:10] + bytes(10) + whole[20:])

    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"videos: {len(names) - len(before)}\n" in done.stdout
    damaged = {path.name for path in output.glob("*.damaged")}
    assert damaged == {"half.parquet.damaged", "hole.parquet.damaged"}
    rows = [row for path in output.glob("*.parquet") for row in pyarrow.parquet.read_table(path).to_pylist()]
    assert sorted(row["video"] for row in rows) == sorted(names), "each once"
    assert {row["video"] for row in rows if row["error"]} == {names[0]}
    long = next(row for row in rows if row["video"] == names[-1])
    assert (long["frames"], len(json.loads(long["record"])["masks"])) == (150, 150)
