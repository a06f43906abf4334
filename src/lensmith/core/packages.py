"""Optional packages that a verb needs at any time of its work, looked for before the work begins."""

from importlib.util import find_spec

from lensmith.errors import MissingPackageError

TRAINING = (
    "torch", "torchvision", "timm", "sklearn", "scipy", "matplotlib", "jinja2", "safetensors", "onnx", "onnx_ir",
    "onnxscript",
)  # fmt: skip
"""Packages of a training with the bundle at its end; the last of them is first imported after the last step."""

SERVING = ("fastapi", "httptools", "uvicorn", "prometheus_client", "python_multipart", "jwt", "jinja2")
"""Packages of the service."""


def require_packages(*packages: str) -> None:
    """Refuse to begin without packages that will be needed.

    Raises:
        MissingPackageError: all of them that are not installed.
    """
    missing = [package for package in packages if not _is_installed(package)]
    if missing:
        raise MissingPackageError.naming(missing)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:
        return False
