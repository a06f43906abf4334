"""Disk, shared memory, open files and thread settings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from lensmith.core import machine
from lensmith.ops.doctor.findings import Finding, Status, gigabytes

FULL_DISK_BYTES = 2e8
LOW_DISK_BYTES = 5e9
LOW_SHARED_BYTES = 1e9
ENOUGH_FILES = 4096
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def look() -> list[Finding]:
    """Everything here."""
    found = [
        disk("Here", Path.cwd(), "run where there is room"),
        disk("Cache", machine.cache_dir(), "set LENSMITH_CACHE to a folder elsewhere"),
        shared_memory(),
        open_files(*_file_limits()),
        threads(os.environ, machine.allowed_cores()),
    ]
    return [finding for finding in found if finding is not None]


def disk(name: str, folder: Path, elsewhere: str) -> Finding:
    """Room in `folder`, or where it would be made, and the right to write there."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    facts = {f"disk_free_bytes_{name.lower()}": free}
    value = f"{gigabytes(free)} free in {folder}"
    if not os.access(there, os.W_OK):
        return Finding(
            "Disk", name, f"{there} cannot be written to", "note", f"Change its rights, or {elsewhere}.", facts
        )
    if free < LOW_DISK_BYTES:
        status: Status = "problem" if free < FULL_DISK_BYTES else "note"
        remedy = f"Data, checkpoints and reports take a few GB: free some, or {elsewhere}."
        return Finding("Disk", name, value, status, remedy, facts)
    return Finding("Disk", name, value, facts=facts)


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding | None:
    """Room for images on their way from data processes; None on systems that do it otherwise."""
    if not folder.is_dir():
        return None
    size = shutil.disk_usage(folder).total
    facts = {"shared_memory_bytes": size}
    value = f"{gigabytes(size)} in {folder}"
    if size < LOW_SHARED_BYTES:
        remedy = "Data processes hand images over through it: docker run --shm-size=2g, or train with --workers 0."
        return Finding("Limits", "Shared memory", value, "note", remedy, facts)
    return Finding("Limits", "Shared memory", value, facts=facts)


def open_files(soft: int | None, hard: int | None) -> Finding | None:
    """How many files and connections the process may hold; None for what has no limit."""
    if soft is None:
        return None
    facts = {"open_files": soft, "open_files_max": hard}
    if soft < ENOUGH_FILES:
        raisable = hard is None or hard >= ENOUGH_FILES
        remedy = f"ulimit -n {ENOUGH_FILES}" if raisable else f"docker run --ulimit nofile={ENOUGH_FILES}"
        return Finding("Limits", "Open files", f"{soft:,}", "note", f"A busy service needs more: {remedy}", facts)
    return Finding("Limits", "Open files", f"{soft:,}", facts=facts)


def threads(environment: Mapping[str, str], allowed: int) -> Finding:
    """Thread variables, which overrule what lensmith would choose."""
    given = {name: environment[name] for name in THREAD_VARIABLES if environment.get(name)}
    value = ", ".join(f"{name}={count}" for name, count in given.items()) or "not set"
    too_many = [name for name, count in given.items() if count.isdigit() and int(count) > allowed]
    if too_many:
        remedy = f"More threads than the {allowed} cores allowed slow one another down: unset {' '.join(too_many)}"
        return Finding("Limits", "Thread variables", value, "note", remedy)
    return Finding("Limits", "Thread variables", value)


def _file_limits() -> tuple[int | None, int | None]:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None, None
    soft, hard = (
        None if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return soft, hard
