"""Export formats by name, and `write_formats`, which writes all that were asked for or nothing."""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from lensmith.core.files import replace_directory, sha256, staging_directory
from lensmith.core.text import first_sentence
from lensmith.errors import LensmithError, MissingPackageError, ModelError, OutputError, SettingsError
from lensmith.exporting.formats import edge, from_onnx, from_torch
from lensmith.exporting.formats.base import FormatCheck, FormatExport, TrainedNetwork, write_json

FORMATS: dict[str, Callable[[TrainedNetwork, Path], FormatCheck]] = {
    "pt2": from_torch.write_pt2,
    "torchscript": from_torch.write_torchscript,
    "safetensors": from_torch.write_safetensors,
    "openvino": from_onnx.write_openvino,
    "tensorrt": from_onnx.write_tensorrt,
    "triton": from_onnx.write_triton,
    "edge": edge.write_edge,
}
"""Format's name → function that writes it into an empty folder, loads it back and checks its answers."""

TITLES = {
    "pt2": "torch.export program",
    "torchscript": "TorchScript",
    "safetensors": "safetensors weights",
    "openvino": "OpenVINO IR",
    "tensorrt": "TensorRT build recipe",
    "triton": "Triton model repository",
    "edge": "edge folder",
}

INDEX = "formats.json"
_PACKAGES = {"openvino": "openvino"}


def write_formats(
    names: Sequence[str], network: TrainedNetwork, folder: Path, *, replace: bool = False
) -> tuple[FormatExport, ...]:
    """Write each format into a folder of its own below `folder`, with a README.md and formats.json above them.

    Args:
        names: formats to write, keys of FORMATS; each is written once, in this order.
        network: the trained network.
        folder: the folder to make; must not exist, unless `replace`.
        replace: replace older formats once the new ones are finished.

    Raises:
        SettingsError: an unknown name, or none.
        OutputError: `folder` is taken.
        ModelError: the backbone cannot be written in one of the formats.
        ParityError: a file answers otherwise than PyTorch.
        MissingPackageError: a format's own package is not installed.
    """
    names = tuple(dict.fromkeys(names))
    if not names or any(name not in FORMATS for name in names):
        raise SettingsError(
            f"Names of formats were expected: {', '.join(FORMATS)}.",
            f"{', '.join(name for name in names if name not in FORMATS) or 'None'} arrived.",
            "Give some of those with --formats, separated by commas.",
        )
    require_free(folder, replace)
    # Validation has put the weights into the fastest memory format here, which files should not have.
    plain = copy.deepcopy(network.model).to(memory_format=torch.contiguous_format).eval()
    network = dataclasses.replace(network, model=plain)
    with staging_directory(folder) as staging:
        checks = {name: _write(name, network, staging / name) for name in names}
        written = tuple(_written(checks[name], staging / name, folder / name) for name in names)
        _index(staging, network, written)
        terms = {term: value for check in checks.values() for term, value in check.terms.items()}
        network.write_page(staging / "README.md", "all.md", written=written, titles=TITLES, **terms)
        replace_directory(staging, folder)
    return written


def packages_of(names: Iterable[str]) -> list[str]:
    """Importable packages that formats need besides those of every export."""
    return [package for name, package in _PACKAGES.items() if name in names]


def require_free(folder: Path, replace: bool) -> None:
    """Refuse a folder that is taken, unless `replace` and it holds formats.

    Raises:
        OutputError: the folder is taken.
    """
    if folder.exists() and not (replace and (folder / INDEX).is_file()):
        raise OutputError(
            f"A free path was expected for the formats in {folder}.",
            "Something is there.",
            "Move it away, or replace older formats with --overwrite.",
        )


def _write(name: str, network: TrainedNetwork, folder: Path) -> FormatCheck:
    folder.mkdir()
    write_json(folder / "config.json", network.describe())
    try:
        check = FORMATS[name](network, folder)
    except (LensmithError, OSError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise MissingPackageError.of(error) from error
    except Exception as error:  # each runtime has exceptions of its own
        raise ModelError(
            f"A backbone that can be written as {name} was expected.",
            f"{network.architecture} cannot ({first_sentence(str(error)) or type(error).__name__}).",
            f"Leave {name} out of --formats, or train another backbone; nothing was written.",
        ) from error
    network.write_page(folder / "README.md", "one.md", format=name, title=TITLES[name], **check.terms)
    return check


def _written(check: FormatCheck, folder: Path, path: Path) -> FormatExport:
    """A written format whose files are in `folder` now, and will be at `path`."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    size = sum(file.stat().st_size for file in files)
    return FormatExport(path.name, path, names, size, check.difference, check.note)


def _index(staging: Path, network: TrainedNetwork, written: Sequence[FormatExport]) -> None:
    formats = {
        one.format: {
            "difference": one.difference,
            "note": one.note,
            "files": {file: sha256(staging / one.format / file) for file in one.files},
        }
        for one in written
    }
    write_json(staging / INDEX, {**network.describe(), "formats": formats})
