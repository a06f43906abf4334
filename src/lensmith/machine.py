"""What this process may use of the machine: cores, memory, instruction sets.

A container sees the host's core count but may use only its quota; thread pools sized by the host's count thrash.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
INSTRUCTION_SETS = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "VNNI": "avx512_vnni",
    "AVX-VNNI": "avx_vnni",
    "BF16": "avx512_bf16",
    "AMX": "amx_tile",
    "AMX-BF16": "amx_bf16",
    "AMX-INT8": "amx_int8",
}
"""Name that people use → flag in /proc/cpuinfo."""


def cache_dir() -> Path:
    """Where downloads and unpacked files are kept: $LENSMITH_CACHE, else ~/.cache/lensmith by the XDG rule."""
    chosen = os.environ.get("LENSMITH_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lensmith"


def affinity_cores() -> int:
    """Cores that the scheduler lets this process run on, ≥ 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota_cores(root: Path = CGROUP) -> float | None:
    """CPU quota of this process's control group in cores (0.5 = half a core); None where there is none."""
    try:
        v2 = root / "cpu.max"
        if v2.exists():
            quota, period = v2.read_text().split()
            return None if quota == "max" else int(quota) / int(period)
        quota_us = int((root / "cpu/cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu/cpu.cfs_period_us").read_text())
        return None if quota_us <= 0 else quota_us / period_us
    except (OSError, ValueError):
        return None


def allowed_cores(root: Path = CGROUP) -> int:
    """Cores to size thread pools by: the affinity, cut to the quota rounded up, ≥ 1."""
    quota = quota_cores(root)
    cores = affinity_cores()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def memory_limit_bytes(root: Path = CGROUP) -> int | None:
    """Memory limit of this process's control group in bytes; None where there is none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        # Version 1 writes "no limit" as a number near 2**63.
        return None if text == "max" or int(text) >= 1 << 60 else int(text)
    return None


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Vector instruction sets of the first core, by the names of INSTRUCTION_SETS; empty where it cannot be read."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return []
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    return [name for name, flag in INSTRUCTION_SETS.items() if flag in flags]
