import threading
import time

import pytest

from hmhi.runtime import pipeline
from hmhi.runtime.pipeline import run_ahead


def ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("test stage")]


def stages(items, depth=2):
    return run_ahead(run_ahead(iter(items), depth, "test stage 1"), depth, "test stage 2")


def test_order_is_kept_and_threads_end():
    assert list(stages(range(50))) == list(range(50))
    assert ours() == []


def test_work_is_done_in_other_threads():
    seen = {threading.current_thread().name for _ in range(3)}
    made = (threading.current_thread().name for _ in range(3))
    assert set(run_ahead(made, 1, "test stage 0")) == {"test stage 0"}
    assert "test stage 0" not in seen


@pytest.mark.parametrize("depth", [1, 3])
def test_never_further_ahead_than_asked(depth):
    taken = []

    def source():
        for number in range(40):
            taken.append(number)
            yield number

    for got in run_ahead(source(), depth, "test stage"):
        time.sleep(0.002)  # leaves the thread time to run too far
        assert len(taken) <= got + 1 + depth


def test_an_error_comes_after_what_was_made_before_it():
    def source():
        yield from range(3)
        raise ValueError("frame 3 is damaged")

    got = []
    with pytest.raises(ValueError, match="frame 3"):
        got.extend(stages(source()))  # extend keeps what came first
    assert got == [0, 1, 2]
    assert ours() == []


def test_closing_ends_all_threads_and_closes_the_source():
    closed = threading.Event()

    def source():
        try:
            yield from range(10**9)
        finally:
            closed.set()

    stream = stages(source())
    assert next(stream) == 0
    assert len(ours()) == 2
    stream.close()
    assert closed.is_set()
    assert ours() == []


def test_an_error_of_the_consumer_ends_all_threads():
    def consume():
        for _ in stages(range(10**9)):
            raise KeyError("consumer")

    with pytest.raises(KeyError):
        consume()
    assert ours() == []


def test_closing_does_not_wait_for_a_blocked_source(monkeypatch, caplog):
    """Such as a camera that gives no picture; its thread ends once it does."""
    monkeypatch.setattr(pipeline, "PATIENCE", 0.2)
    blocked, closed = threading.Event(), threading.Event()

    def source():
        try:
            yield 0
            blocked.wait()
            yield 1
        finally:
            closed.set()

    stream = stages(source())
    assert next(stream) == 0
    stream.close()
    assert not closed.is_set()
    assert "is still busy" in caplog.text
    blocked.set()
    assert closed.wait(10)
    for thread in ours():
        thread.join(10)
    assert ours() == []
