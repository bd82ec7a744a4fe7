import os
import subprocess
import sys

import pytest

from hmhi.runtime.allocator import keep_pages

PROGRAM = """
import resource, sys
import torch
from hmhi.runtime.allocator import keep_pages

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_pages()
for _ in range(20):  # until freed pieces of the heap are as large as the buffers
    torch.ones(10 << 20).add(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(10 << 20).add(1)  # two buffers of 40 MiB
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() >> 20)
"""


def fetched_mib(mode):
    command = [sys.executable, "-c", PROGRAM, mode]
    plain = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    return int(subprocess.run(command, env=plain, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_pages_are_fetched_once():
    assert fetched_mib("keep") < 4
    assert fetched_mib("default") > 100  # so that the other number means something


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_pages()
