"""Tasks for `hmhi.runtime.worker.WorkerProcess`, importable by the process it spawns."""

import os
import time

from hmhi.errors import UserError


def build(settings):
    def perform(task, report):
        kind, value = task
        if kind == "sum":
            for number in range(value):
                report(number)
            return settings + sum(range(value))
        if kind == "refuse":
            raise UserError(value)
        if kind == "fail":
            raise RuntimeError(value)
        if kind == "crash":
            os._exit(value)
        if kind == "hang":
            time.sleep(value)
        if kind == "forever":
            while True:
                report(os.getpid())
                time.sleep(0.01)
        return os.getpid()

    return perform
