"""Doctor: Python, the packages of each extra, inference engines, torch, and pretrained weights."""

import platform
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from lensmith.core.text import first_line
from lensmith.core.version import __version__, installed_versions
from lensmith.errors import EXTRA_OF_PACKAGE
from lensmith.ops.doctor.findings import MachineFinding

GROUP = "Software"


def check_software() -> tuple[Any, list[MachineFinding]]:
    """Run all checks of this file; returns the imported torch, or None, and the findings."""
    torch, torch_finding = torch_build()
    python = platform.python_version()
    found = [
        MachineFinding(GROUP, "Python", f"{python} ({sys.executable})", facts={"python": python}),
        MachineFinding(GROUP, "lensmith", __version__, facts={"lensmith": __version__}),
        *extras(),
        onnxruntime(),
        openvino(),
        *([torch_finding] if torch_finding else []),
        *(weights() if torch is not None else []),
    ]
    return torch, found


def extras() -> list[MachineFinding]:
    """A finding for each extra of lensmith: whether its packages are installed."""
    packages: dict[str, list[str]] = {}
    for package, extra in EXTRA_OF_PACKAGE.items():
        packages.setdefault(extra, []).append(package)
    return [extra_packages(extra, names) for extra, names in packages.items()]


def extra_packages(extra: str, packages: list[str]) -> MachineFinding:
    """Whether the importable packages of an extra are installed; without the first, the extra counts as unwanted."""
    missing = [package for package in packages if find_spec(package) is None]
    install = f"pip install 'lensmith[{extra}]'"
    value, remedy = "installed", ""
    if packages[0] in missing:
        value = f"not installed ({install})"
    elif missing:
        value, remedy = f"lacks {', '.join(missing)}", install
    return MachineFinding(GROUP, f"lensmith[{extra}]", value, remedy, {f"extra_{extra}": not missing})


def onnxruntime() -> MachineFinding:
    """ONNX Runtime, the engine that can run every bundle."""
    try:
        ort = import_module("onnxruntime")
        providers = ort.get_available_providers()
    except Exception as error:  # a broken native library can raise anything
        remedy = "pip install --force-reinstall onnxruntime"
        value = f"cannot be used ({first_line(error)})"
        return MachineFinding("Engines", "ONNX Runtime", value, remedy, problem=True)
    names = ", ".join(provider.removesuffix("ExecutionProvider") for provider in providers)
    facts = {"onnxruntime": {"version": ort.__version__, "providers": providers}}
    return MachineFinding("Engines", "ONNX Runtime", f"{ort.__version__} ({names})", facts=facts)


def openvino() -> MachineFinding:
    """OpenVINO, an optional engine that is often faster on CPUs."""
    if find_spec("openvino") is None:
        return MachineFinding("Engines", "OpenVINO", "not installed")
    try:
        devices = import_module("openvino").Core().available_devices
    except Exception as error:  # a broken native library can raise anything
        remedy = "pip install --force-reinstall openvino"
        return MachineFinding("Engines", "OpenVINO", f"cannot be used ({first_line(error)})", remedy)
    version = installed_versions(["openvino"]).get("openvino", "unknown version")
    facts = {"openvino": {"version": version, "devices": devices}}
    return MachineFinding("Engines", "OpenVINO", f"{version} ({', '.join(devices)})", facts=facts)


def torch_build() -> tuple[Any, MachineFinding | None]:
    """The torch module and a finding on its build; neither if torch is not installed."""
    if find_spec("torch") is None:
        return None, None
    try:
        torch = import_module("torch")
        # The two come as native libraries that must match: a mismatch shows only on import.
        import_module("torchvision")
    except Exception as error:  # a broken native library can raise anything
        remedy = "Install the two together: pip install --force-reinstall torch torchvision"
        value = f"cannot be used ({first_line(error)})"
        return None, MachineFinding("Training", "PyTorch", value, remedy, problem=True)
    cuda, cudnn = torch.version.cuda, _cudnn(torch)
    build = f"CUDA {cuda}" + (f", cuDNN {cudnn}" if cudnn else "") if cuda else "built for the CPU alone"
    facts = {"torch": {"version": torch.__version__, "cuda": cuda, "cudnn": cudnn}}
    return torch, MachineFinding("Training", "PyTorch", f"{torch.__version__}, {build}", facts=facts)


def weights() -> list[MachineFinding]:
    """Pretrained weights on this machine, which need no download; no finding without timm."""
    if find_spec("timm") is None:
        return []
    from lensmith.training.models.weights import on_this_machine

    names = on_this_machine()
    remedy = "" if names else "Without a network, training needs some: pip install 'lensmith[weights]'"
    value = ", ".join(names) or "none on this machine"
    return [MachineFinding("Training", "Weights", value, remedy, {"weights_on_this_machine": names})]


def _cudnn(torch: Any) -> str | None:
    number: int | None = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    # 91002 is 9.10.2; before version 9 it was 8907 for 8.9.7.
    if number is None:
        return None
    thousand = 10_000 if number >= 10_000 else 1_000
    return f"{number // thousand}.{number % thousand // 100}.{number % 100}"
