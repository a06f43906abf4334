"""Each check of the doctor: its value, and a remedy exactly where one is needed."""

import json
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lensmith.core.machine import allowed_cores
from lensmith.ops.doctor import Diagnosis, MachineFinding, examine, hardware, limits, software

Usage = namedtuple("Usage", "total used free")


def set_disk(monkeypatch: pytest.MonkeyPatch, total: float, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(int(total), int(total - free), int(free)))


def fake_torch(
    *, cuda: str | None = "13.0", devices: int = 1, free: float = 70e9, archs: tuple[str, ...] = ("sm_80", "sm_90")
) -> Any:
    """The parts of torch that the doctor uses, with H100s."""
    return SimpleNamespace(
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(
            is_available=lambda: devices > 0,
            device_count=lambda: devices,
            get_device_name=lambda index: f"H100 number {index}",
            get_device_capability=lambda index: (9, 0),
            get_arch_list=lambda: list(archs),
            mem_get_info=lambda index: (int(free), int(80e9)),
        ),
    )


@pytest.mark.slow
def test_this_machine_is_examined_in_words_and_in_numbers() -> None:
    diagnosis = examine()
    content = json.loads(json.dumps(diagnosis.as_dict()))
    assert content["cores_allowed"] == allowed_cores()
    assert content["memory_bytes"] > 1e8
    assert content["disk_free_bytes_here"] == pytest.approx(shutil.disk_usage(".").free, rel=0.05)
    assert "CPUExecutionProvider" in content["onnxruntime"]["providers"]
    assert content["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert isinstance(content["gpus"], list)
    assert content["status"] == diagnosis.status
    for finding in diagnosis.findings:
        assert finding.value, finding.name
        assert bool(finding.remedy) == (finding.status != "ok"), finding


def test_the_worst_finding_is_the_status_of_the_whole() -> None:
    ok, note = MachineFinding("A", "a", "1"), MachineFinding("A", "b", "2", "Fix it.")
    problem = MachineFinding("B", "c", "3", "Fix it now.", problem=True)
    assert Diagnosis((ok,)).status == "ok"
    assert Diagnosis((ok, note)).status == "note"
    assert Diagnosis((problem, note, ok)).status == "problem"


def test_without_torch_all_but_training_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    content = examine().as_dict()
    assert content["extra_train"] is False
    assert "torch" not in content
    assert "weights_on_this_machine" not in content
    assert content["gpus"] == []
    assert content["onnxruntime"]["version"]


def test_a_torch_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise OSError("libcudart.so.13: cannot open shared object file\nmore")

    monkeypatch.setattr(software, "import_module", broken)
    module, finding = software.torch_build()
    assert module is None
    assert finding is not None
    assert finding.status == "problem"
    assert "libcudart.so.13: cannot open shared object file)" in finding.value


def test_an_onnxruntime_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert software.onnxruntime().status == "problem"


def test_without_weights_on_this_machine_the_remedy_is_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lensmith.training.models.weights.on_this_machine", list)
    (finding,) = software.weights()
    assert finding.status == "note"
    assert "lensmith[weights]" in finding.remedy


@pytest.mark.parametrize(("number", "words"), [(91002, "9.10.2"), (92400, "9.24.0"), (8907, "8.9.7")])
def test_cudnn_is_named_by_its_version(number: int, words: str) -> None:
    cudnn = SimpleNamespace(is_available=lambda: True, version=lambda: number)
    assert software._cudnn(SimpleNamespace(backends=SimpleNamespace(cudnn=cudnn))) == words


@pytest.mark.parametrize(
    ("finding", "status"),
    [
        (hardware.cores(64, 4, None, 4), "ok"),
        (hardware.cores(64, 64, 0.5, 1), "note"),
        (hardware.instruction_sets("x86_64", ["AVX2"]), "ok"),
        (hardware.instruction_sets("aarch64", []), "ok"),
        (hardware.instruction_sets("x86_64", []), "note"),
        (hardware.memory_free(int(64e9), int(60e9), None), "ok"),
        (hardware.memory_free(int(64e9), int(60e9), int(1e9)), "note"),
        (hardware.gpus(fake_torch(free=2e9), driver=True)[1], "note"),
        (software.extra_packages("serve", ["json", "no_such_a"]), "note"),
        (software.extra_packages("serve", ["json", "csv"]), "ok"),
        (software.extra_packages("serve", ["no_such_a", "json"]), "ok"),
        (limits.threads({}, 2), "ok"),
        (limits.threads({"OMP_NUM_THREADS": "2"}, 2), "ok"),
        (limits.threads({"OMP_NUM_THREADS": "64", "MKL_NUM_THREADS": "1"}, 2), "note"),
        (limits.open_files(20_000, 20_000), "ok"),
    ],
)
def test_what_slows_a_run_down_is_worth_a_note(finding: MachineFinding, status: str) -> None:
    assert finding.status == status


def test_a_note_names_its_reason_and_the_remedy() -> None:
    assert hardware.cores(64, 64, 8.0, 8).value == "8 of 64 (quota 8)"
    half = software.extra_packages("serve", ["json", "no_such_a"])
    assert (half.value, half.remedy) == ("lacks no_such_a", "pip install 'lensmith[serve]'")


def test_each_gpu_is_named_with_its_free_memory() -> None:
    count, first, second = hardware.gpus(fake_torch(devices=2), driver=True)
    assert [gpu["memory_free_bytes"] for gpu in count.facts["gpus"]] == [int(70e9)] * 2
    assert first.value == "H100 number 0, 70.0 GB of 80.0 GB free, compute capability 9.0"
    assert (first.status, second.name) == ("ok", "cuda:1")


@pytest.mark.parametrize(
    ("archs", "runs"),
    [
        (("sm_80", "sm_90"), True),
        (("sm_90a",), True),
        (("sm_80",), False),
        (("sm_80", "compute_80"), True),
        (("sm_100", "sm_120"), False),
        (("gfx90a",), True),
    ],
)
def test_a_torch_without_code_for_the_gpu_is_noted(archs: tuple[str, ...], runs: bool) -> None:
    assert (hardware.gpus(fake_torch(archs=archs), driver=True)[1].status == "ok") is runs


def test_a_driver_that_torch_cannot_use_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert hardware.gpus(None, driver=False)[0].status == "ok"
    assert "lensmith[train]" in hardware.gpus(None, driver=True)[0].remedy
    assert "CUDA build" in hardware.gpus(fake_torch(cuda=None, devices=0), driver=True)[0].remedy
    assert "driver is too old" in hardware.gpus(fake_torch(devices=0), driver=True)[0].remedy
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "unset CUDA_VISIBLE_DEVICES" in hardware.gpus(fake_torch(devices=0), driver=True)[0].remedy


def test_a_full_disk_is_a_problem_and_a_nearly_full_one_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for free, status in ((100e9, "ok"), (3e9, "note"), (1e8, "problem")):
        set_disk(monkeypatch, 200e9, free)
        assert limits.disk("Here", tmp_path / "not" / "yet", "go elsewhere").status == status


def test_a_folder_that_cannot_be_written_to_is_worth_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "cannot be written to" in limits.disk("Cache", tmp_path, "go elsewhere").value


def test_little_shared_memory_names_the_docker_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_disk(monkeypatch, 64 << 20, 64 << 20)
    finding = limits.shared_memory(tmp_path)
    assert finding is not None
    assert (finding.status, finding.facts["shared_memory_bytes"]) == ("note", 64 << 20)
    assert "--shm-size=2g" in finding.remedy
    assert limits.shared_memory(tmp_path / "missing") is None


def test_few_open_files_name_the_way_that_can_raise_them() -> None:
    raisable, fixed = limits.open_files(1024, 1_048_576), limits.open_files(1024, 1024)
    assert raisable is not None
    assert "ulimit -n 4096" in raisable.remedy
    assert fixed is not None
    assert "--ulimit nofile=4096" in fixed.remedy
    assert limits.open_files(None, None) is None


def test_only_the_thread_variables_that_are_too_high_are_to_be_unset() -> None:
    finding = limits.threads({"OMP_NUM_THREADS": "64", "MKL_NUM_THREADS": "1"}, 2)
    assert finding.remedy.endswith("unset OMP_NUM_THREADS")
