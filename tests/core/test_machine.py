"""What the process may use of the machine, read from control groups of both versions."""

import os
from pathlib import Path

import pytest

from lensmith.core import machine
from lensmith.errors import SettingsError

JOBS = "5:cpu,cpuacct:/jobs/7\n4:memory:/jobs/8"


def put(root: Path, files: dict[str, str]) -> tuple[Path, Path]:
    """Write control groups, and `own` as the file that names the process's; returns both paths."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root, root / "own"


def version_1(quota: str, group: str = "cpu") -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": quota, f"{group}/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        (version_1("-1"), None),
        (version_1("50000"), 0.5),
        ({"own": JOBS, **version_1("300000", "cpu/jobs/7"), **version_1("100000", "cpu/jobs/8")}, 3.0),
        ({"own": "0::/a/b", "a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ({"own": "0::/a/b", "a/b/cpu.max": "100000 100000", "a/cpu.max": "200000 100000"}, 1.0),
    ],
)
def test_the_tightest_quota_up_to_the_root_is_a_number_of_cores(
    tmp_path: Path, files: dict[str, str], cores: float | None
) -> None:
    assert machine.quota_cores(*put(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"memory.max": "max", "memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ({"own": "0::/a/b", "a/b/memory.max": "max", "a/memory.max": "2000"}, 2000),
        ({"own": JOBS, "memory/jobs/8/memory.limit_in_bytes": "1000"}, 1000),
        # Inside a container the mount itself is the group.
        ({"own": "4:memory:/docker/0123abc", "memory/memory.limit_in_bytes": "3000"}, 3000),
        ({"own": "4:memory:/../../outside", "memory/memory.limit_in_bytes": "3000"}, 3000),
    ],
)
def test_the_tightest_memory_limit_up_to_the_root_holds(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    assert machine.memory_limit_bytes(*put(tmp_path, files)) == limit


@pytest.mark.parametrize(("quota", "cores"), [("20000 100000", 1), ("150000 100000", 2), ("9900000 100000", 8)])
def test_allowed_cores_are_the_affinity_cut_to_the_quota_rounded_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(machine, "affinity_cores", lambda: 8)
    assert machine.allowed_cores(*put(tmp_path, {"cpu.max": quota})) == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity to set")
def test_the_affinity_of_the_process_is_honoured(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.allowed_cores(tmp_path, tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


def test_instruction_sets_are_read_from_the_first_core(tmp_path: Path) -> None:
    text = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16\n\nflags\t\t: amx_tile"
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.instruction_sets(tmp_path / "cpuinfo") == ["AVX2", "AVX-512", "VNNI", "BF16"]
    assert machine.instruction_sets(tmp_path / "missing") == []


def test_the_cache_moves_with_its_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("LENSMITH_CACHE", raising=False)
    assert machine.cache_dir() == tmp_path / "xdg" / "lensmith"
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "own"))
    assert machine.cache_dir() == tmp_path / "own"
    monkeypatch.setenv("LENSMITH_CACHE", f" {tmp_path / 'own'}\r\n")
    assert machine.cache_dir() == tmp_path / "own"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LENSMITH_CACHE", "~/own")
    assert machine.cache_dir() == tmp_path / "home" / "own"
    for wrong in (" ", "\u200b", f'"{tmp_path}"', f"'{tmp_path}'"):
        monkeypatch.setenv("LENSMITH_CACHE", wrong)
        with pytest.raises(SettingsError, match="LENSMITH_CACHE"):
            machine.cache_dir()
    monkeypatch.delenv("LENSMITH_CACHE")
    for relative in ("", " ", "cache"):  # ignored, as the XDG rule says
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert machine.cache_dir() == tmp_path / "home" / ".cache" / "lensmith"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, (0, 1)), ({"RANK": "3"}, (0, 1)), ({"RANK": ""}, (0, 1)), ({"WORLD_SIZE": "", "RANK": "1"}, (0, 1)),
     ({"WORLD_SIZE": "1", "RANK": "0"}, (0, 1)), ({"WORLD_SIZE": "4", "RANK": "3"}, (3, 4)),
     ({"WORLD_SIZE": "4"}, None), ({"WORLD_SIZE": "4", "RANK": "4"}, None),
     ({"WORLD_SIZE": "many", "RANK": "0"}, None)],
)  # fmt: skip
def test_ranks_are_those_of_a_launcher_and_nothing_that_others_call_so(
    environment: dict[str, str], expected: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if expected is None:
        with pytest.raises(SettingsError, match="WORLD_SIZE"):
            machine.launched_ranks()
    else:
        assert machine.launched_ranks() == expected
