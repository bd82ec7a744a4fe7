import time

import pytest
import worker_tasks

from hmhi.runtime.worker import (
    TaskRefusedError,
    TaskStoppedError,
    TimeLimitError,
    WorkerDiedError,
    WorkerProcess,
)


@pytest.fixture(scope="module")
def worker():
    process = WorkerProcess(worker_tasks.build, 100)
    yield process
    process.close()


def test_results_and_notices(worker):
    notices = []
    assert worker.run(("sum", 4), notice=notices.append) == 106
    assert notices == [0, 1, 2, 3]


def test_a_task_that_fails_costs_only_itself(worker):
    before = worker.run(("pid", None))
    with pytest.raises(TaskRefusedError, match="frame 3 is bad"):
        worker.run(("refuse", "frame 3 is bad"))
    with pytest.raises(WorkerDiedError, match="RuntimeError: our fault"):
        worker.run(("fail", "our fault"))
    assert worker.run(("pid", None)) == before, "the process lives on"


def test_a_crash_is_one_error_and_the_next_task_has_a_new_process(worker):
    before = worker.run(("pid", None))
    with pytest.raises(WorkerDiedError, match="exit code 7"):
        worker.run(("crash", 7))
    assert worker.run(("pid", None)) != before


def test_a_task_that_hangs_is_ended(worker):
    with pytest.raises(TimeLimitError, match=r"longer than 0\.3 seconds"):
        worker.run(("hang", 60), time_limit=0.3)
    assert worker.run(("sum", 2), time_limit=60) == 101


def test_a_task_is_stopped_at_its_next_notice(worker):
    seen = []
    with pytest.raises(TaskStoppedError):
        worker.run(("forever", None), notice=seen.append, stopped=lambda: len(seen) > 3)
    assert worker.run(("pid", None)) == seen[0], "the process need not be killed"


def test_a_task_that_hangs_is_stopped_all_the_same(worker, monkeypatch):
    monkeypatch.setattr("hmhi.runtime.worker._GRACE", 0.2)
    begin = time.monotonic()
    with pytest.raises(TaskStoppedError):
        worker.run(("hang", 60), stopped=lambda: True)
    assert time.monotonic() - begin < 30
