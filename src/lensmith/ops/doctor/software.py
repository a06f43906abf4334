"""Python, the packages of each extra, the engines, torch, and the weights on this machine."""

from __future__ import annotations

import platform
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from lensmith.core.version import __version__, installed_versions
from lensmith.errors import EXTRA_OF_PACKAGE
from lensmith.ops.doctor.findings import Finding

GROUP = "Software"


def look() -> tuple[Any, list[Finding]]:
    """The imported torch (None where there is none that works), and everything found."""
    torch, torch_finding = torch_build()
    found = [
        Finding(
            GROUP,
            "Python",
            f"{platform.python_version()} ({sys.executable})",
            facts={"python": platform.python_version()},
        ),
        Finding(GROUP, "lensmith", __version__, facts={"lensmith": __version__}),
        *extras(),
        onnxruntime(),
        openvino(),
        *([torch_finding] if torch_finding else []),
        *(weights() if torch is not None else []),
    ]
    return torch, found


def extras() -> list[Finding]:
    """For each extra of lensmith whether its packages are there."""
    packages: dict[str, list[str]] = {}
    for package, extra in EXTRA_OF_PACKAGE.items():
        packages.setdefault(extra, []).append(package)
    return [extra_packages(extra, names) for extra, names in packages.items()]


def extra_packages(extra: str, packages: list[str]) -> Finding:
    """Whether the importable `packages` of one extra are installed; without the first, it is simply not wanted here."""
    missing = [package for package in packages if find_spec(package) is None]
    facts = {f"extra_{extra}": not missing}
    install = f"pip install 'lensmith[{extra}]'"
    if not missing:
        return Finding(GROUP, f"lensmith[{extra}]", "installed", facts=facts)
    if packages[0] in missing:
        return Finding(GROUP, f"lensmith[{extra}]", f"not installed ({install})", facts=facts)
    return Finding(GROUP, f"lensmith[{extra}]", f"lacks {', '.join(missing)}", "note", install, facts)


def onnxruntime() -> Finding:
    """The engine that every bundle can run on."""
    try:
        ort = import_module("onnxruntime")
        providers = ort.get_available_providers()
    except Exception as error:  # a broken native library can raise anything
        remedy = "pip install --force-reinstall onnxruntime"
        return Finding("Engines", "ONNX Runtime", f"cannot be used ({_reason(error)})", "problem", remedy)
    names = ", ".join(provider.removesuffix("ExecutionProvider") for provider in providers)
    facts = {"onnxruntime": {"version": ort.__version__, "providers": providers}}
    return Finding("Engines", "ONNX Runtime", f"{ort.__version__} ({names})", facts=facts)


def openvino() -> Finding:
    """The engine that often is faster on CPUs, where it is installed."""
    if find_spec("openvino") is None:
        return Finding("Engines", "OpenVINO", "not installed")
    try:
        devices = import_module("openvino").Core().available_devices
    except Exception as error:  # a broken native library can raise anything
        remedy = "pip install --force-reinstall openvino"
        return Finding("Engines", "OpenVINO", f"cannot be used ({_reason(error)})", "note", remedy)
    version = installed_versions(["openvino"]).get("openvino", "unknown version")
    facts = {"openvino": {"version": version, "devices": devices}}
    return Finding("Engines", "OpenVINO", f"{version} ({', '.join(devices)})", facts=facts)


def torch_build() -> tuple[Any, Finding | None]:
    """The module, and what it was built for; nothing to say where it is not installed."""
    if find_spec("torch") is None:
        return None, None
    try:
        torch = import_module("torch")
        # The two come as native libraries that must match: a mismatch shows only on import.
        import_module("torchvision")
    except Exception as error:  # a broken native library can raise anything
        remedy = "Install the two together: pip install --force-reinstall torch torchvision"
        return None, Finding("Training", "PyTorch", f"cannot be used ({_reason(error)})", "problem", remedy)
    cuda, cudnn = torch.version.cuda, _cudnn(torch)
    build = f"CUDA {cuda}" + (f", cuDNN {cudnn}" if cudnn else "") if cuda else "built for the CPU alone"
    facts = {"torch": {"version": torch.__version__, "cuda": cuda, "cudnn": cudnn}}
    return torch, Finding("Training", "PyTorch", f"{torch.__version__}, {build}", facts=facts)


def weights() -> list[Finding]:
    """Pretrained weights that need no download; empty where timm is not installed."""
    if find_spec("timm") is None:
        return []
    from lensmith.training.models.weights import on_this_machine

    names = on_this_machine()
    facts = {"weights_on_this_machine": names}
    if names:
        return [Finding("Training", "Weights", ", ".join(names), facts=facts)]
    remedy = "Without a network, training needs some: pip install 'lensmith[weights]'"
    return [Finding("Training", "Weights", "none on this machine", "note", remedy, facts)]


def _cudnn(torch: Any) -> str | None:
    number: int | None = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    # 91002 is 9.10.2; before version 9 it was 8907 for 8.9.7.
    if number is None:
        return None
    thousand = 10_000 if number >= 10_000 else 1_000
    return f"{number // thousand}.{number % thousand // 100}.{number % 100}"


def _reason(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".")
