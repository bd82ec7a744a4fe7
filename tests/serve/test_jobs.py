"""The queue, with a worker that needs no network."""

import time

import pytest
from serving import build_quick

from hmhi.runtime.worker import WorkerProcess
from hmhi.serve.jobs import Jobs, ServerFullError
from hmhi.serve.settings import JobOptions, Limits


@pytest.fixture
def start(tmp_path):
    started = []

    def make(**limits):
        started.append(Jobs(tmp_path / "jobs", Limits(**limits), WorkerProcess(build_quick, 5000)))
        return started[-1]

    yield make
    for jobs in started:
        jobs.close()


def run(jobs, image_size=None):
    job = jobs.begin("walk.mp4", JobOptions(image_size))
    jobs.submit(job)
    end = time.monotonic() + 60
    while job.state not in ("done", "failed") and time.monotonic() < end:
        time.sleep(0.02)
    return job


def test_a_crash_costs_one_job(start, caplog):
    jobs = start()
    crashed, after = run(jobs, 512), run(jobs)
    assert (crashed.state, after.state) == ("failed", "done")
    assert crashed.error == "the video cannot be segmented: the decoder or the network failed on it"
    assert jobs.describe(after)["downloads"] == ["masks.zip"]
    assert "exit code 3" in caplog.text


def test_the_oldest_jobs_make_room_on_the_disk(start, tmp_path):
    jobs = start(disk_bytes=12_000)
    made = [run(jobs) for _ in range(3)]
    kept = [jobs.get(job.id) is not None for job in made]
    assert kept == [False, True, True]
    assert {path.name for path in (tmp_path / "jobs").iterdir()} == {job.id for job in made[1:]}
    coming = jobs.begin("large.mp4", JobOptions())
    (jobs.folder(coming) / "upload.video").write_bytes(bytes(13_000))
    with pytest.raises(ServerFullError, match="disk budget"):
        jobs.begin("another.mp4", JobOptions())


def test_jobs_are_kept_for_a_stated_time(start):
    jobs = start(keep_seconds=0.2)
    job = run(jobs)
    assert jobs.describe(job)["kept_until"] == pytest.approx(time.time(), abs=5)
    time.sleep(0.3)
    jobs.sweep()
    assert jobs.get(job.id) is None and not jobs.folder(job).exists()


def test_a_full_queue_takes_no_more(start):
    jobs = start(waiting=2)
    first, second = jobs.begin("a", JobOptions()), jobs.begin("b", JobOptions())
    with pytest.raises(ServerFullError, match="too many jobs"):
        jobs.begin("c", JobOptions())
    jobs.remove(first)
    jobs.submit(first)  # its upload ended as it was cancelled
    assert jobs.get(first.id) is None and not jobs.folder(first).exists()
    jobs.begin("c", JobOptions())
    jobs.remove(second)
