"""What a benchmark asks of the machine: its name, its memory, and that it has finished."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

import torch


def memory_now(device: str) -> float | None:
    """MiB that this process holds, or its CUDA tensors on a GPU; None where the system does not tell."""
    if torch.device(device).type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return _proc_status("VmRSS")


def memory_peak(device: str) -> float | None:
    """The most that `memory_now` has been since `reset_peak`."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return _proc_status("VmHWM")


def reset_peak(device: str) -> bool:
    """Begin a new peak; False where the system cannot."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _proc_status(key: str) -> float | None:
    """A field of Linux's /proc/self/status in MiB."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    match = re.search(rf"^{key}:\s+(\d+) kB", status, re.MULTILINE)
    return None if match is None else int(match[1]) / 1024


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    extras = [flag for flag in ("avx512_bf16", "amx_bf16") if f" {flag}" in info]
    return " ".join([match[1] if match else platform.machine(), *extras])


def synchronise(device: str) -> None:
    """Wait until the device has done what it was told."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
