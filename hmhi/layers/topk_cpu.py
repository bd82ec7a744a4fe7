"""Builds topk_cpu.cpp for this machine's processor at its first use, and calls it.

The library is kept in the user's cache folder. Where there is no compiler, no AVX2 or no place to write, there is
none, and callers go on without. ``HMHI_KERNELS=off`` in the environment says so, too.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("topk_cpu.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-shared")
CHANNELS = 32  # of which the widths must be multiples


def can_search(q: Tensor, k: Tensor) -> bool:
    """Whether `search` takes these tensors on this machine; builds the library at the first call."""
    return (
        q.device.type == k.device.type == "cpu"
        and q.dtype == k.dtype
        and q.dtype in (torch.float32, torch.bfloat16)
        and q.shape[-1] % CHANNELS == 0
        and library() is not None
    )


def search(q: Tensor, k: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """What `hmhi.layers.topk.search` gives, without a matrix of scores; bfloat16 products are summed in float32.

    Args:
        q: (B, N, C), as `can_search` takes it.
        k: (B, M, C), M >= topk.
        topk: K.

    Returns:
        Scaled scores, float32 (B, N, K), and keys, int64 (B, N, K).

    Raises:
        MemoryError: A copy of the keys does not fit.
    """
    (batch, n, channels), m = q.shape, k.shape[1]
    q, k = q.contiguous(), k.contiguous()
    scores, index = (
        q.new_empty((batch, n, topk), dtype=torch.float32),
        q.new_empty((batch, n, topk), dtype=torch.int64),
    )
    built = library()
    assert built is not None, "ask can_search first"
    failed = built.hmhi_topk(
        q.data_ptr(), k.data_ptr(), q.dtype == torch.bfloat16, batch, n, m, channels, topk,
        channels**-0.5, scores.data_ptr(), index.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    if failed:
        raise MemoryError(f"no memory for the search among {batch} x {m} keys")
    return scores, index


@functools.cache
def library() -> ctypes.CDLL | None:
    """The built source, from the cache or the compiler; None where neither is to be had."""
    try:
        return load(FLAGS)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        log.debug("top-k search runs in PyTorch: %s", reason)
        return None


def load(flags: tuple[str, ...]) -> ctypes.CDLL:
    """Load the source as built with these flags, and build it where the cache has no such file.

    Raises:
        OSError: It is turned off, or there is no such processor, compiler or cache folder.
        subprocess.CalledProcessError: The compiler fails.
    """
    if os.environ.get("HMHI_KERNELS") == "off":
        raise OSError("HMHI_KERNELS=off")
    features = _processor()
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise OSError("no C++ compiler")
    identity = "\n".join((SOURCE.read_text(encoding="utf-8"), compiler, *flags, features))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmhi"
    path = folder / f"topk-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if not path.exists():
        _build(compiler, flags, path)
    built = ctypes.CDLL(str(path))
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    built.hmhi_topk.argtypes = [
        pointer, pointer, ctypes.c_int, number, number, number, number, ctypes.c_int,
        ctypes.c_float, pointer, pointer, ctypes.c_int,
    ]  # fmt: skip
    return built


def _processor() -> str:
    """The instructions that the processor has, which ``-march=native`` looks at."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        raise OSError(f"not written for {platform.machine()} with {platform.system()}")
    found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    features = found[1].split() if found else []
    if not {"avx2", "fma"} <= set(features):
        raise OSError("the processor has no AVX2")
    return " ".join(sorted(features))


def _build(compiler: str, flags: tuple[str, ...], path: Path) -> None:
    """Compile to `path`, whole or not at all; of several processes one does, and the others wait for it."""
    import fcntl  # Linux only, as all here

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (path.parent / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            command = [compiler, *flags, str(SOURCE), "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            made.replace(path)
    log.debug("built %s", path)
