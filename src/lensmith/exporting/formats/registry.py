"""The formats by name, and writing some of them: all that were asked for, or nothing."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lensmith.core.files import replace_directory, sha256, staging_directory
from lensmith.errors import LensmithError, MissingPackageError, ModelError, OutputError, SettingsError
from lensmith.exporting.formats import edge, openvino, pt2, safetensors, tensorrt, torchscript, triton
from lensmith.exporting.formats.base import Outcome, Source, Written, write_json
from lensmith.exporting.formats.pages import write_overview, write_readme
from lensmith.training.models.state_dict import first_sentence

FORMATS: dict[str, Callable[[Source, Path], Outcome]] = {
    "pt2": pt2.write,
    "torchscript": torchscript.write,
    "safetensors": safetensors.write,
    "openvino": openvino.write,
    "tensorrt": tensorrt.write,
    "triton": triton.write,
    "edge": edge.write,
}
"""Name → what writes it into an empty folder, loads it back and compares."""

INDEX = "formats.json"


def write_formats(names: Sequence[str], source: Source, folder: Path, *, replace: bool = False) -> tuple[Written, ...]:
    """Write each format into a folder of its own below `folder`, with a README.md and formats.json above them.

    Args:
        names: of FORMATS; each once, in the order given.
        source: what they are made from.
        folder: where they go; must not exist, unless `replace`.
        replace: put them in the place of older formats, once they are finished.

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
    # Validation has put the weights into the order of memory that is fastest here, and files should not have that.
    plain = copy.deepcopy(source.model).to(memory_format=torch.contiguous_format).eval()
    source = dataclasses.replace(source, model=plain)
    with staging_directory(folder) as staging:
        outcomes = {name: _write(name, source, staging / name) for name in names}
        written = tuple(_written(outcomes[name], staging / name, folder / name) for name in names)
        _index(staging, source, written)
        terms = {term: value for outcome in outcomes.values() for term, value in outcome.terms.items()}
        write_overview(staging, source, written, terms)
        replace_directory(staging, folder)
    return written


def require_free(folder: Path, replace: bool) -> None:
    """Refuse a folder that is taken, unless `replace` and it holds formats.

    Raises:
        OutputError: it is taken.
    """
    if folder.exists() and not (replace and (folder / INDEX).is_file()):
        raise OutputError(
            f"A free path was expected for the formats in {folder}.",
            "Something is there.",
            "Move it away, or replace older formats with --overwrite.",
        )


def _write(name: str, source: Source, folder: Path) -> Outcome:
    folder.mkdir()
    try:
        outcome = FORMATS[name](source, folder)
    except (LensmithError, OSError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise MissingPackageError.of(error) from error
    except Exception as error:  # each runtime has exceptions of its own
        raise ModelError(
            f"A backbone that can be written as {name} was expected.",
            f"{source.architecture} cannot ({first_sentence(str(error)) or type(error).__name__}).",
            f"Leave {name} out of --formats, or train another backbone; nothing was written.",
        ) from error
    write_readme(folder, name, source, outcome.terms)
    return outcome


def _written(outcome: Outcome, folder: Path, path: Path) -> Written:
    """What lies in `folder` now, and will be at `path`."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    size = sum(file.stat().st_size for file in files)
    return Written(path.name, path, names, size, outcome.difference, outcome.note)


def _index(staging: Path, source: Source, written: Sequence[Written]) -> None:
    formats = {
        one.format: {
            "difference": one.difference,
            "note": one.note,
            "files": {file: sha256(staging / one.format / file) for file in one.files},
        }
        for one in written
    }
    write_json(staging / INDEX, {**source.describe(), "formats": formats})
