"""Signals become a wish to stop."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

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


def test_in_another_thread_it_does_nothing():
    """Python sets handlers in the main thread only; servers and notebooks train in another one."""

    def use() -> int:
        with StopSignal() as stop:
            return stop.number

    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(use).result() == 0
    assert signal.getsignal(signal.SIGTERM) == before
