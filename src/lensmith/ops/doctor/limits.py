"""Doctor: disk space, shared memory, open files and thread variables."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from lensmith.core import machine
from lensmith.ops.doctor.findings import MachineFinding, gigabytes

FULL_DISK_BYTES = 2e8
LOW_DISK_BYTES = 5e9
LOW_SHARED_BYTES = 1e9
MIN_OPEN_FILES = 4096
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def check_limits() -> list[MachineFinding]:
    """Run all checks of this file."""
    found = [
        disk("Here", Path.cwd(), "run in a folder with more space"),
        disk("Cache", machine.cache_dir(), "set LENSMITH_CACHE to another folder"),
        shared_memory(),
        open_files(*_file_limits()),
        threads(os.environ, machine.allowed_cores()),
    ]
    return [finding for finding in found if finding is not None]


def disk(name: str, folder: Path, alternative: str) -> MachineFinding:
    """Free space in `folder`, or in the folder where it would be made, and the permission to write there."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    facts = {f"disk_free_bytes_{name.lower()}": free}
    value, remedy, problem = f"{gigabytes(free)} free in {folder}", "", False
    if not os.access(existing, os.W_OK):
        value, remedy = f"{existing} cannot be written to", f"Change its permissions, or {alternative}."
    elif free < LOW_DISK_BYTES:
        remedy = f"Data, checkpoints and reports take a few GB: free some, or {alternative}."
        problem = free < FULL_DISK_BYTES
    return MachineFinding("Disk", name, value, remedy, facts, problem)


def shared_memory(folder: Path = Path("/dev/shm")) -> MachineFinding | None:
    """Size of the shared memory through which data-loader workers pass images; None on systems without it."""
    if not folder.is_dir():
        return None
    size = shutil.disk_usage(folder).total
    remedy = ""
    if size < LOW_SHARED_BYTES:
        remedy = "Data-loader workers pass images through it: docker run --shm-size=2g, or train --loader-workers 0."
    value = f"{gigabytes(size)} in {folder}"
    return MachineFinding("Limits", "Shared memory", value, remedy, {"shared_memory_bytes": size})


def open_files(soft: int | None, hard: int | None) -> MachineFinding | None:
    """Limits on open files and connections of a process; None for no limit."""
    if soft is None:
        return None
    remedy = ""
    if soft < MIN_OPEN_FILES:
        can_raise = hard is None or hard >= MIN_OPEN_FILES
        command = f"ulimit -n {MIN_OPEN_FILES}" if can_raise else f"docker run --ulimit nofile={MIN_OPEN_FILES}"
        remedy = f"A busy service needs more: {command}"
    return MachineFinding("Limits", "Open files", f"{soft:,}", remedy, {"open_files": soft, "open_files_max": hard})


def threads(environment: Mapping[str, str], allowed: int) -> MachineFinding:
    """Thread variables, which override lensmith's own choice."""
    given = {name: environment[name] for name in THREAD_VARIABLES if environment.get(name)}
    too_many = [name for name, count in given.items() if count.isdigit() and int(count) > allowed]
    remedy = ""
    if too_many:
        remedy = f"More threads than the {allowed} cores allowed slow one another down: unset {' '.join(too_many)}"
    value = ", ".join(f"{name}={count}" for name, count in given.items()) or "not set"
    return MachineFinding("Limits", "Thread variables", value, remedy)


def _file_limits() -> tuple[int | None, int | None]:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None, None
    soft, hard = (
        None if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return soft, hard
