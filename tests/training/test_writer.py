"""Checkpoints are written beside the training: in order, from copies, and never silently lost."""

import logging
import threading

import pytest
import torch

from hmhi.training.writer import CheckpointWriter, cpu_copy


def test_writes_run_beside_the_caller_and_one_after_the_other():
    gate, order = threading.Event(), []

    def first() -> None:
        gate.wait(60)
        order.append(1)

    with CheckpointWriter() as writer:
        writer.start(first)
        writer.check()  # does not wait
        assert order == []
        gate.set()
        writer.start(lambda: order.append(2))
        assert order[0] == 1
    assert order == [1, 2]


def fail() -> None:
    raise OSError("no space")


def test_a_failed_write_is_raised_once_by_whatever_comes_next():
    for call in (CheckpointWriter.wait, lambda writer: writer.start(lambda: None)):
        with CheckpointWriter() as writer:
            writer.start(fail)
            with pytest.raises(OSError, match="no space"):
                call(writer)
            writer.check()
    with pytest.raises(OSError, match="no space"), CheckpointWriter() as writer:
        writer.start(fail)


def test_a_failed_write_does_not_hide_what_ended_the_run(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR), pytest.raises(KeyError), CheckpointWriter() as writer:
        writer.start(fail)
        raise KeyError
    assert "no space" in caplog.text


def test_the_copy_does_not_follow_the_original():
    original = {"a": [torch.ones(2), (torch.zeros(1), "text")], "n": 3}
    copy = cpu_copy(original)
    original["a"][0].fill_(7)
    original["a"][1][0].fill_(7)
    assert copy["a"][0].tolist() == [1, 1] and copy["a"][1] == (torch.zeros(1), "text") and copy["n"] == 3
