"""What this process may use of the machine: cores, memory, instruction sets.

A container sees the host's core count but may use only its quota; thread pools sized by the host's count thrash.
"""

from __future__ import annotations

import math
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
INSTRUCTION_SETS = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "VNNI": "avx512_vnni",
    "AVX-VNNI": "avx_vnni",
    "BF16": "avx512_bf16",
    "AMX": "amx_tile",
    "AMX-BF16": "amx_bf16",
    "AMX-INT8": "amx_int8",
    "NEON-DOT": "asimddp",
    "NEON-BF16": "bf16",
}
"""Name that people use → flag in /proc/cpuinfo, of x86 and of ARM."""


def cache_dir() -> Path:
    """Where downloads and unpacked files are kept: $LENSMITH_CACHE, else ~/.cache/lensmith by the XDG rule."""
    chosen = os.environ.get("LENSMITH_CACHE")
    if chosen:
        return Path(chosen)
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home, as in some containers
        base = Path(tempfile.gettempdir())
    return base / "lensmith"


def affinity_cores() -> int:
    """Cores that the scheduler lets this process run on, ≥ 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota_cores(root: Path = CGROUP, own: Path = OWN_GROUPS) -> float | None:
    """CPU quota of this process's control groups in cores (0.5 = half a core); None where there is none."""
    quotas = [_text(group / "cpu.max").split() for group in _groups(root, own, "")]
    quotas += [
        [_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")] for group in _groups(root, own, "cpu")
    ]
    # Version 2 writes "max" and version 1 writes -1 where there is no quota.
    said = [pair for pair in quotas if len(pair) == 2 and all(number.isdigit() for number in pair)]
    return min((int(quota) / int(period) for quota, period in said), default=None)


def allowed_cores(root: Path = CGROUP, own: Path = OWN_GROUPS) -> int:
    """Cores to size thread pools by: the affinity, cut to the quota rounded up, ≥ 1."""
    quota = quota_cores(root, own)
    cores = affinity_cores()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def memory_limit_bytes(root: Path = CGROUP, own: Path = OWN_GROUPS) -> int | None:
    """Memory limit of this process's control groups in bytes; None where there is none."""
    limits = [_text(group / "memory.max") for group in _groups(root, own, "")]
    limits += [_text(group / "memory.limit_in_bytes") for group in _groups(root, own, "memory")]
    # Version 2 writes "max" and version 1 a number near 2**63 where there is no limit.
    return min((int(limit) for limit in limits if limit.isdigit() and int(limit) < 1 << 60), default=None)


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Vector instruction sets of the first core, by the names of INSTRUCTION_SETS; empty where it cannot be read."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return []
    flags = next(
        (set(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))), set()
    )
    return [name for name, flag in INSTRUCTION_SETS.items() if flag in flags]


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the first core calls itself; the architecture where it says nothing."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def description() -> dict[str, Any]:
    """Processor, cores allowed and instruction sets as plain values: what speeds depend on."""
    return {"processor": processor(), "cores": allowed_cores(), "instruction_sets": instruction_sets()}


def _groups(root: Path, own: Path, controller: str) -> list[Path]:
    """The process's control group and all above it, whose limits hold too, as folders under `root`.

    Args:
        root: where control groups are mounted.
        own: lists the process's groups, as /proc/self/cgroup does.
        controller: of version 1; empty for version 2.
    """
    lines = [line.split(":", 2) for line in _text(own).splitlines()]
    path = next((parts[2] for parts in lines if len(parts) == 3 and controller in parts[1].split(",")), "/")
    mount = root / controller
    # Inside a container the path may be the host's and lead nowhere under the mount, which then is the group itself.
    below = [] if ".." in path else [mount / part for part in (path[1:], *map(str, Path(path[1:]).parents))]
    return list(dict.fromkeys([*below, mount]))


def _text(file: Path) -> str:
    """Content without the line's end; empty where it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def share_cores() -> None:
    """Let torch's waiting threads soon sleep, unless the environment says otherwise; call before torch is loaded.

    Threads that spin hold the cores that data workers and other programs need: beside one busy process on two cores,
    training measured twice to 8 times faster with sleeping ones. GNU's OpenMP spins briefly before, which costs the
    others nothing and spares a lone training most of the price of waking up (docs/log.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
