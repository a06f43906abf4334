"""Doctor: processor, memory and GPUs."""

import os
import platform
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from lensmith.core import machine
from lensmith.core.text import first_line
from lensmith.ops.doctor.findings import MachineFinding, gigabytes

LOW_MEMORY_BYTES = 2e9
MIN_FREE_GPU_SHARE = 0.2
"""Share of a GPU's memory that should be free before a run."""


def check_hardware(torch: Any) -> list[MachineFinding]:
    """Run all checks of this file; `torch` is the imported module, or None."""
    memory, name = psutil.virtual_memory(), machine.processor()
    driver = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    return [
        MachineFinding("Processor", "Name", name, facts={"processor": name}),
        cores(os.cpu_count() or 1, machine.affinity_cores(), machine.quota_cores(), machine.allowed_cores()),
        instruction_sets(platform.machine(), machine.instruction_sets()),
        memory_free(memory.total, memory.available, machine.memory_limit_bytes()),
        *gpus(torch, driver),
    ]


def cores(host: int, affinity: int, quota: float | None, allowed: int) -> MachineFinding:
    """Number of cores that thread pools are sized by, with the reason."""
    reasons = [f"affinity {affinity}"] if affinity < host else []
    reasons += [f"quota {quota:g}"] if quota is not None else []
    facts = {"cores_host": host, "cores_affinity": affinity, "cores_quota": quota, "cores_allowed": allowed}
    value = f"{allowed} of {host}" + (f" ({', '.join(reasons)})" if reasons else "")
    remedy = ""
    if quota is not None and quota < 1:
        remedy = "Less than one core makes every step wait; give the container one or more (docker run --cpus 2)."
    return MachineFinding("Processor", "Cores allowed", value, remedy, facts)


def instruction_sets(architecture: str, found: list[str]) -> MachineFinding:
    """Vector instructions of the processor; the engines are slow on x86 without AVX2."""
    facts = {"architecture": architecture, "instruction_sets": found}
    value = f"{architecture}: {', '.join(found)}" if found else architecture
    remedy = ""
    if architecture.lower() in ("x86_64", "amd64") and Path("/proc/cpuinfo").exists() and "AVX2" not in found:
        remedy = "Without AVX2 inference is several times slower; in a virtual machine, pass the host's CPU through."
    return MachineFinding("Processor", "Instructions", value, remedy, facts)


def memory_free(total: int, available: int, limit: int | None) -> MachineFinding:
    """Memory of the machine, and the limit on this process's control group, in bytes."""
    facts = {"memory_bytes": total, "memory_available_bytes": available, "memory_limit_bytes": limit}
    value = f"{gigabytes(available)} of {gigabytes(total)} available"
    if limit is not None:
        value += f", limited to {gigabytes(limit)}"
    remedy = ""
    if min(available, limit or available) < LOW_MEMORY_BYTES:
        remedy = "Training needs 2 GB or more: end other programs or raise the limit, or lower --batch-size."
    return MachineFinding("Memory", "Memory", value, remedy, facts)


def gpus(torch: Any, driver: bool) -> list[MachineFinding]:
    """One finding for each GPU that torch can use, or one with the reason why there is none."""
    if torch is not None and torch.cuda.is_available():
        found = [_gpu(torch, index) for index in range(torch.cuda.device_count())]
        count = MachineFinding("GPU", "Count", str(len(found)), facts={"gpus": [finding.facts for finding in found]})
        return [count, *(replace(finding, facts={}) for finding in found)]
    if not driver:
        value, remedy = "none: training runs on the CPU", ""
    elif torch is None:
        value, remedy = "an NVIDIA driver, but no torch", "To train on it: pip install 'lensmith[train]'"
    elif torch.version.cuda is None:
        value = "an NVIDIA driver, but this torch is built for the CPU alone"
        remedy = "Install a CUDA build of torch and torchvision: https://pytorch.org/get-started/locally"
    elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        value, remedy = "hidden by CUDA_VISIBLE_DEVICES", "To use it: unset CUDA_VISIBLE_DEVICES"
    else:
        value = f"an NVIDIA driver, but torch (CUDA {torch.version.cuda}) cannot use it"
        remedy = "Usually the driver is too old: update it, or install a torch built for an older CUDA."
    return [MachineFinding("GPU", "GPU", value, remedy, {"gpus": []})]


def _gpu(torch: Any, index: int) -> MachineFinding:
    name: str = torch.cuda.get_device_name(index)
    major, minor = torch.cuda.get_device_capability(index)
    facts: dict[str, Any] = {"index": index, "name": name, "compute_capability": f"{major}.{minor}"}
    remedy = ""
    if not _has_kernels(torch.cuda.get_arch_list(), major, minor):
        value = f"{name}, compute capability {major}.{minor}, which this torch was not built for"
        remedy = "Install a torch that was (https://pytorch.org/get-started/locally), or use --device cpu."
    else:
        try:
            free, total = torch.cuda.mem_get_info(index)
        except RuntimeError as error:
            value = f"{name} does not answer ({first_line(error)})"
            remedy = "See with nvidia-smi which process uses it, or use --device cpu."
        else:
            facts |= {"memory_bytes": total, "memory_free_bytes": free}
            value = f"{name}, {gigabytes(free)} of {gigabytes(total)} free, compute capability {major}.{minor}"
            if free < MIN_FREE_GPU_SHARE * total:
                remedy = "Other programs use most of it: see nvidia-smi, or choose another with --device cuda:N."
    return MachineFinding("GPU", f"cuda:{index}", value, remedy, facts)


def _has_kernels(built_for: list[str], major: int, minor: int) -> bool:
    """Whether a torch built for architectures such as `sm_90` and `compute_90` runs on a capability.

    Machine code (sm) runs on its major version, from its minor version on; PTX (compute) runs on all newer ones.
    """
    built = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name) for name in built_for]
    if not any(built):  # AMD builds have other names for their architectures
        return True
    capabilities = [(found[1], int(found[2]), int(found[3])) for found in built if found]
    return any(
        (kind == "sm" and own_major == major and own_minor <= minor)
        or (kind == "compute" and (own_major, own_minor) <= (major, minor))
        for kind, own_major, own_minor in capabilities
    )
