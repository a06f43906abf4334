"""What the process may use of the machine, read from control groups of both versions."""

import os
from pathlib import Path

import pytest

from lensmith.core import machine

NO_LIMIT_V1 = "9223372036854771712"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "self"


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


def test_a_quota_of_version_2_is_a_number_of_cores(root: Path, own: Path) -> None:
    put(root / "cpu.max", "150000 100000")
    assert machine.quota_cores(root, own) == 1.5


def test_a_quota_of_version_1_is_a_number_of_cores(root: Path, own: Path) -> None:
    put(root / "cpu/cpu.cfs_quota_us", "50000")
    put(root / "cpu/cpu.cfs_period_us", "100000")
    assert machine.quota_cores(root, own) == 0.5


def test_no_quota_is_none_in_either_version(root: Path, own: Path) -> None:
    assert machine.quota_cores(root, own) is None
    put(root / "cpu.max", "max 100000")
    assert machine.quota_cores(root, own) is None
    put(root / "cpu/cpu.cfs_quota_us", "-1")
    put(root / "cpu/cpu.cfs_period_us", "100000")
    assert machine.quota_cores(root, own) is None


def test_the_tightest_quota_up_to_the_root_holds(root: Path, own: Path) -> None:
    put(own, "0::/system.slice/job.scope")
    put(root / "system.slice/job.scope/cpu.max", "400000 100000")
    put(root / "system.slice/cpu.max", "200000 100000")
    assert machine.quota_cores(root, own) == 2.0
    put(root / "system.slice/job.scope/cpu.max", "100000 100000")
    assert machine.quota_cores(root, own) == 1.0


def test_the_group_is_found_by_its_controller_in_version_1(root: Path, own: Path) -> None:
    put(own, "5:cpu,cpuacct:/jobs/7\n4:memory:/jobs/8")
    put(root / "cpu/jobs/7/cpu.cfs_quota_us", "300000")
    put(root / "cpu/jobs/7/cpu.cfs_period_us", "100000")
    put(root / "memory/jobs/8/memory.limit_in_bytes", "1000")
    assert machine.quota_cores(root, own) == 3.0
    assert machine.memory_limit_bytes(root, own) == 1000


def test_inside_a_container_the_mount_itself_is_the_group(root: Path, own: Path) -> None:
    put(root / "memory/memory.limit_in_bytes", "1073741824")
    put(own, "4:memory:/docker/0123abc")
    assert machine.memory_limit_bytes(root, own) == 1 << 30
    put(own, "4:memory:/../../outside")
    assert machine.memory_limit_bytes(root, own) == 1 << 30


def test_no_memory_limit_is_none_in_either_version(root: Path, own: Path) -> None:
    assert machine.memory_limit_bytes(root, own) is None
    put(root / "memory.max", "max")
    put(root / "memory/memory.limit_in_bytes", NO_LIMIT_V1)
    assert machine.memory_limit_bytes(root, own) is None


def test_the_tightest_memory_limit_up_to_the_root_holds(root: Path, own: Path) -> None:
    put(own, "0::/a/b")
    put(root / "a/b/memory.max", "max")
    put(root / "a/memory.max", "2147483648")
    assert machine.memory_limit_bytes(root, own) == 2 << 30


@pytest.mark.parametrize(("quota", "cores"), [("20000 100000", 1), ("150000 100000", 2), ("9900000 100000", 8)])
def test_allowed_cores_are_the_affinity_cut_to_the_quota_rounded_up(
    root: Path, own: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(machine, "affinity_cores", lambda: 8)
    put(root / "cpu.max", quota)
    assert machine.allowed_cores(root, own) == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity to set")
def test_the_affinity_of_the_process_is_honoured(root: Path, own: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.allowed_cores(root, own) == 1
    finally:
        os.sched_setaffinity(0, before)


def test_instruction_sets_are_read_from_the_first_core(tmp_path: Path) -> None:
    put(
        tmp_path / "cpuinfo",
        "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16\n\nflags\t\t: amx_tile",
    )
    assert machine.instruction_sets(tmp_path / "cpuinfo") == ["AVX2", "AVX-512", "VNNI", "BF16"]
    assert machine.instruction_sets(tmp_path / "missing") == []


def test_the_cache_moves_with_its_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("LENSMITH_CACHE", raising=False)
    assert machine.cache_dir() == tmp_path / "xdg" / "lensmith"
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "own"))
    assert machine.cache_dir() == tmp_path / "own"
