"""The exceptions of lensmith.

    LensmithError
    ├── SettingsError, ModelError, RunError, ParityError, BundleError, OutputError, GateError
    ├── OutOfMemoryError
    ├── RolloutError ─ ObjectionError
    ├── DataError ─ ImageError
    ├── RegistryError ─ RegistryUnreachableError
    └── ServiceError, MissingPackageError

Each error is one paragraph of three sentences: what was expected, what arrived, and the remedy. The command line
prints it and exits with 2, after a gate that was not passed with 3, and with 5 where memory ran out.
"""

from __future__ import annotations

from collections.abc import Sequence

EXTRA_OF_PACKAGE = {
    "fastapi": "serve", "httptools": "serve", "starlette": "serve", "uvicorn": "serve", "prometheus_client": "serve",
    "python_multipart": "serve", "jwt": "serve", "cryptography": "serve", "limits": "redis",
    "redis": "redis",
    "torch": "train", "torchvision": "train", "timm": "train", "sklearn": "train",
    "matplotlib": "train", "jinja2": "serve", "safetensors": "train", "urllib3": "train", "scipy": "train",
    "onnx": "train", "onnx_ir": "train", "onnxscript": "train", "nncf": "export",
    "openvino": "openvino", "pyarrow": "parquet", "mangum": "lambda", "mlflow": "track",
    "pillow_heif": "heic",
    "psycopg": "postgres", "sqlalchemy": "track",
}  # fmt: skip
"""Which extra of lensmith brings which importable package."""


class LensmithError(Exception):
    """Base of every error that lensmith raises on purpose.

    Args:
        expected: Sentence about what was expected.
        arrived: Sentence about what arrived instead.
        remedy: Sentence with the remedy.
    """

    exit_code = 2

    def __init__(self, expected: str, arrived: str, remedy: str) -> None:
        super().__init__(f"{expected} {arrived} {remedy}")
        self.expected = expected
        self.arrived = arrived
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[LensmithError], tuple[str, str, str]]:
        # Errors cross process borders (data workers), and the default would call the class with one argument.
        return type(self), (self.expected, self.arrived, self.remedy)


class SettingsError(LensmithError):
    """An unusable value in a flag, an environment variable or a settings file."""


class DataError(LensmithError):
    """A folder, a label file or a set of images cannot be used."""


class ImageError(DataError):
    """One image cannot be turned into pixels."""


class ModelError(LensmithError):
    """An unknown backbone, or weights that do not fit it."""


class RunError(LensmithError):
    """A training run that cannot be resumed, or that is missing."""


class ParityError(LensmithError):
    """An exported graph that does not predict as the trained model does."""


class BundleError(LensmithError):
    """A bundle that is damaged, incomplete or of another schema."""


class OutputError(LensmithError):
    """An output path that is in use, full or closed."""


class ServiceError(LensmithError):
    """The service cannot start."""


class RegistryError(LensmithError):
    """No such model, version or alias."""


class RegistryUnreachableError(RegistryError):
    """The registry does not answer at the moment; its last answers may still be used."""


class RolloutError(LensmithError):
    """A canary release that cannot start, or that is not under way."""


class ObjectionError(RolloutError):
    """The guards of a canary release object to a promotion by hand, which nobody has forced."""


class GateError(LensmithError):
    """A new model that is not good enough to be registered."""

    exit_code = 3


class OutOfMemoryError(LensmithError):
    """More memory is needed than there is, so that a larger machine is the remedy."""

    exit_code = 5

    @classmethod
    def of(cls, error: BaseException) -> OutOfMemoryError | None:
        """Translate a library's error; None where neither its type nor its text says that memory ran out."""
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in _NO_MEMORY):
            return None
        return cls(
            "More memory was expected.",
            f"It ran out ({' '.join(str(error).split()) or type(error).__name__}).",
            "What was saved before is still there; use smaller images, or a machine with more memory.",
        )


_NO_MEMORY = ("Failed to allocate memory", "std::bad_alloc", "can't allocate memory", "out of memory")
"""Signs in messages of ONNX Runtime, OpenVINO and torch, whose exceptions have no common class."""


class FallbackWarning(UserWarning):
    """Something else is used than what was asked for: another engine, or what a registry out of reach last named."""


class UnmaintainedWarning(UserWarning):
    """An option needs a library that is no longer maintained."""


class MissingPackageError(LensmithError):
    """An optional package that this verb needs is not installed."""

    @classmethod
    def of(cls, error: ModuleNotFoundError) -> MissingPackageError:
        """Translate a failed import into the `pip install` that mends it."""
        return cls.naming([(error.name or "").partition(".")[0]])

    @classmethod
    def naming(cls, packages: Sequence[str]) -> MissingPackageError:
        """The error for importable packages that are not installed, with the `pip install` that mends it."""
        extras = dict.fromkeys(EXTRA_OF_PACKAGE.get(package, "") for package in packages)
        plain = [package for package in packages if package not in EXTRA_OF_PACKAGE]
        wanted = [f"'lensmith[{','.join(filter(None, extras))}]'"] if any(extras) else []
        several = len(packages) > 1
        return cls(
            f"This verb needs the Python package{'s' if several else ''} {', '.join(packages)}.",
            f"{', '.join(packages)} {'are' if several else 'is'} not installed in this environment.",
            f"Install {'them' if several else 'it'} with: pip install {' '.join([*wanted, *plain])}",
        )
