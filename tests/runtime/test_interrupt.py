"""Signals become a wish to stop."""

import os
import signal

import pytest

from hmhi.runtime.interrupt import StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_is_noted_and_the_second_one_acts(number: int):
    before = signal.getsignal(number)
    arrived = []
    signal.signal(number, lambda *_: arrived.append(number))
    try:
        with StopSignal() as stop:
            assert stop.number == 0
            os.kill(os.getpid(), number)
            assert stop.number == number and arrived == []
            os.kill(os.getpid(), number)
            assert arrived == [number]
    finally:
        signal.signal(number, before)


def test_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignal():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
