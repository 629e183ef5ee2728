"""Properties of the host machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_BFLOAT16_FLAGS = {"avx512bw", "avx512_bf16", "amx_bf16", "avx_ne_convert"}


def has_bfloat16() -> bool:
    """Whether this processor supports bfloat16 in hardware; True if this cannot be determined.

    Without AVX-512 PyTorch emulates it: a training step of ``quickstart`` takes fourteen times as long as in float32.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), None)
    return flags is None or not flags.isdisjoint(_BFLOAT16_FLAGS)


def usable_cores() -> int:
    """Number of cores this process may run on; ``taskset``, systemd and cpusets may allow fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """Name of the processor, as far as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
