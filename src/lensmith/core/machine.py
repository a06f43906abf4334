"""Resources that this process can use: cores by affinity and quota, memory limit, instruction sets.

A container sees the host's core count but can use only its quota; thread pools sized by the host's count thrash.
"""

import ipaddress
import math
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from lensmith.core.text import text_of_variable
from lensmith.errors import SettingsError

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
"""Common name → flag in /proc/cpuinfo, of x86 and of ARM."""


def cache_dir() -> Path:
    """Folder of downloads and cached results: $LENSMITH_CACHE, else ~/.cache/lensmith by the XDG rule.

    Raises:
        SettingsError: LENSMITH_CACHE is empty, or in quotation marks.
    """
    chosen = text_of_variable("LENSMITH_CACHE", "A folder")
    if chosen is not None:
        return Path(os.path.expanduser(chosen))  # noqa: PTH111 - raises nothing
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # which the rule has ignored
        try:
            base = Path.home() / ".cache"
        except RuntimeError:  # a user without a home, as in some containers
            base = Path(tempfile.gettempdir())
    return base / "lensmith"


def affinity_cores() -> int:
    """Number of cores in this process's affinity mask, ≥ 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota_cores(root: Path = CGROUP, own: Path = OWN_GROUPS) -> float | None:
    """CPU quota of this process's control groups in cores (0.5 is half a core); None without a quota."""
    quotas = [_text(group / "cpu.max").split() for group in _groups(root, own, "")]
    quotas += [
        [_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")] for group in _groups(root, own, "cpu")
    ]
    # Without a quota version 2 of control groups writes "max", and version 1 writes -1.
    limited = [pair for pair in quotas if len(pair) == 2 and all(number.isdigit() for number in pair)]
    return min((int(quota) / int(period) for quota, period in limited), default=None)


def allowed_cores(root: Path = CGROUP, own: Path = OWN_GROUPS) -> int:
    """Number of cores for thread pools: the affinity, but at most the quota rounded up, ≥ 1."""
    quota = quota_cores(root, own)
    cores = affinity_cores()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def memory_limit_bytes(root: Path = CGROUP, own: Path = OWN_GROUPS) -> int | None:
    """Memory limit of this process's control groups in bytes; None without a limit."""
    limits = [_text(group / "memory.max") for group in _groups(root, own, "")]
    limits += [_text(group / "memory.limit_in_bytes") for group in _groups(root, own, "memory")]
    # Without a limit version 2 writes "max", and version 1 a number near 2**63.
    return min((int(limit) for limit in limits if limit.isdigit() and int(limit) < 1 << 60), default=None)


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Vector instruction sets of the first core, by the names of INSTRUCTION_SETS; empty if unknown."""
    lines = _text(cpuinfo).splitlines()
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [name for name, flag in INSTRUCTION_SETS.items() if flag in flags]


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Model name of the first core; the architecture if there is none."""
    lines = _text(cpuinfo).splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def description() -> dict[str, Any]:
    """Processor, allowed cores and instruction sets as plain values, which measured speeds depend on."""
    return {"processor": processor(), "cores": allowed_cores(), "instruction_sets": instruction_sets()}


def _groups(root: Path, own: Path, controller: str) -> list[Path]:
    """The process's control group and all its parents, whose limits apply, too, as folders under `root`.

    Args:
        root: mount point of the control groups.
        own: file with the process's groups, in the format of /proc/self/cgroup.
        controller: name of the controller in version 1; empty for version 2.
    """
    lines = [line.split(":", 2) for line in _text(own).splitlines()]
    path = next((parts[2] for parts in lines if len(parts) == 3 and controller in parts[1].split(",")), "/")
    mount = root / controller
    # Inside a container the path may be the host's and not exist under the mount, which then is the group itself.
    below = [] if ".." in path else [mount / part for part in (path[1:], *map(str, Path(path[1:]).parents))]
    return list(dict.fromkeys([*below, mount]))


def _text(file: Path) -> str:
    """Content of a text file without the line end; empty if it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def launched_ranks() -> tuple[int, int]:
    """This process's rank, and the number of ranks that `torchrun` or `launch` started; (0, 1) for a process alone.

    Schedulers set RANK for purposes of their own: without a WORLD_SIZE above 1 it says nothing.

    Raises:
        SettingsError: WORLD_SIZE and RANK do not describe ranks.
    """
    size, rank = (os.environ.get(name, "").strip() for name in ("WORLD_SIZE", "RANK"))
    if size in ("", "1"):
        return 0, 1
    if not (size.isdecimal() and rank.isdecimal() and int(rank) < int(size)):
        raise SettingsError(
            "The number of processes that train together in WORLD_SIZE, and this one's in RANK, were expected.",
            f"WORLD_SIZE={size!r} and RANK={rank!r} arrived.",
            "Start them with torchrun or --processes, or unset both.",
        )
    return int(rank), int(size)


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def share_cores() -> None:
    """Let idle OpenMP threads of torch sleep, unless the environment is set otherwise; call before importing torch.

    Spinning threads occupy the cores that data-loader workers and other programs need: beside one busy process on two
    cores, training is 2 to 8 times faster with sleeping ones. GNU's OpenMP still spins briefly, which costs others
    nothing and spares a lone training most of the cost of waking up (docs/log.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
