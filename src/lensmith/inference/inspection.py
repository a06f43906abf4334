"""Inspection of bundles: describe one, verify its engines on this machine, and compare two.

Nothing is changed, and torch is not needed. `lensmith bundle` prints the results.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from lensmith.bundle.format import MANIFEST, Bundle, EngineRecord, Manifest
from lensmith.core.machine import allowed_cores
from lensmith.errors import BundleError
from lensmith.inference.engine import lacks, open_record


@dataclass(frozen=True)
class Description:
    """The content of a bundle.

    Attributes:
        path: the bundle's folder or zip.
        manifest: the content of bundle.json.
        bytes: size of each file, including bundle.json.
        golden_samples: number of images that every engine has to answer when it is opened.
    """

    path: Path
    manifest: Manifest
    bytes: Mapping[str, int]
    golden_samples: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the manifest's fields, and the attributes beside it."""
        content = self.manifest.model_dump(mode="json")
        return {"path": str(self.path), **content, "bytes": dict(self.bytes), "golden_samples": self.golden_samples}


@dataclass(frozen=True)
class EngineCheck:
    """The check of one engine of a bundle.

    Attributes:
        engine: engine and precision, such as `openvino-int8`.
        state: `right`: answers the golden samples as in the export; `wrong`: answers differently, or does not load;
            `unavailable`: this machine cannot run it; `absent`: the bundle has no graph for it.
        reason: why the state is not `right`, for people.
    """

    engine: str
    state: Literal["right", "wrong", "unavailable", "absent"]
    reason: str = ""


@dataclass(frozen=True)
class Verified:
    """A bundle with correct schema and hashes, and the checks of its engines.

    Attributes:
        path: the bundle's folder or zip.
        manifest: the content of bundle.json.
        golden_samples: number of images that every engine had to answer.
        answers: checks of the manifest's engines, in its order.
    """

    path: Path
    manifest: Manifest
    golden_samples: int
    answers: tuple[EngineCheck, ...]

    @property
    def problem(self) -> BundleError | None:
        """The error if an engine answered wrongly or none could run; else None."""
        if wrong := [f"{answer.engine}: {answer.reason}" for answer in self.answers if answer.state == "wrong"]:
            return BundleError(
                f"Every engine of the bundle {self.path} was expected to answer its golden samples as when exported.",
                " ".join(wrong),
                "Export the run again on this machine, or name another engine.",
            )
        if all(answer.state != "right" for answer in self.answers):
            return BundleError(
                f"An engine of the bundle {self.path} that runs on this machine was expected.",
                f"{'; '.join(f'{answer.engine}: {answer.reason}' for answer in self.answers)}.",
                "Install what is missing, or verify it on the machine where it will serve.",
            )
        return None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `error` and `message` only where there is a problem."""
        problem = self.problem
        error = {"error": type(problem).__name__, "message": str(problem)} if problem else {}
        return {
            "path": str(self.path),
            "name": self.manifest.name,
            "version": self.manifest.version,
            "schema_version": self.manifest.schema_version,
            "files": len(self.manifest.files),
            "golden_samples": self.golden_samples,
            "engines": [vars(answer) for answer in self.answers],
            "verified": problem is None,
            **error,
        }


@dataclass(frozen=True)
class ManifestChange:
    """One field in which two bundles differ.

    Attributes:
        section: section of bundle.json, such as `metrics`; `bundle` for fields at its top.
        what: name of the field in the section, with dots between levels: `onnxruntime-fp32.latency_ms`.
        a: plain value in the first bundle; None where it is missing.
        b: plain value in the second bundle; None where it is missing.
    """

    section: str
    what: str
    a: Any
    b: Any

    @property
    def delta(self) -> float | None:
        """B minus A where both are numbers."""
        numbers = all(isinstance(side, (int, float)) and not isinstance(side, bool) for side in (self.a, self.b))
        return self.b - self.a if numbers else None


@dataclass(frozen=True)
class Difference:
    """All fields in which two bundles differ, in the order of bundle.json."""

    a: Path
    b: Path
    changes: tuple[ManifestChange, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: section → name → `a`, `b` and, of numbers, `delta`."""
        sections: dict[str, dict[str, Any]] = {}
        for change in self.changes:
            delta = {} if change.delta is None else {"delta": change.delta}
            sections.setdefault(change.section, {})[change.what] = {"a": change.a, "b": change.b, **delta}
        return {"a": str(self.a), "b": str(self.b), "equal": not self.changes, "differences": sections}


def describe(path: str | PathLike[str]) -> Description:
    """Describe the bundle at `path`; its hashes are verified, its engines are not run.

    Raises:
        BundleError: as in `Bundle.load`.
    """
    bundle = Bundle.load(path)
    sizes = {name: (bundle.path / name).stat().st_size for name in (MANIFEST, *bundle.manifest.files)}
    return Description(Path(path), bundle.manifest, sizes, len(bundle.golden().images))


def verify(path: str | PathLike[str]) -> Verified:
    """Verify schema and hashes, and run every engine that this machine can on the golden samples.

    Engines that answer wrongly raise nothing; see `Verified.problem`.

    Raises:
        BundleError: as in `Bundle.load`; or the golden samples cannot be read.
    """
    bundle = Bundle.load(path)
    samples = len(bundle.golden().images)
    checks = tuple(_check(bundle, record) for record in bundle.manifest.engines)
    return Verified(Path(path), bundle.manifest, samples, checks)


def _check(bundle: Bundle, record: EngineRecord) -> EngineCheck:
    if record.graph is None:
        return EngineCheck(record.name, "absent", record.why.rstrip("."))
    if lack := lacks(record):
        return EngineCheck(record.name, "unavailable", lack)
    try:
        open_record(bundle, record, allowed_cores())
    except BundleError as error:
        return EngineCheck(record.name, "wrong", error.arrived)
    return EngineCheck(record.name, "right")


def diff(a: str | PathLike[str], b: str | PathLike[str]) -> Difference:
    """Compare two bundles: every field of bundle.json, and so every file by its hash.

    Raises:
        BundleError: as in `Bundle.load`, for either bundle.
    """
    first, second = (_sections(Bundle.load(path).manifest) for path in (a, b))
    changes = _relabelled(first["bundle"].pop("labels"), second["bundle"].pop("labels"))
    for section in {**first, **second}:
        changes += _changes(section, first.get(section, {}), second.get(section, {}))
    return Difference(Path(a), Path(b), tuple(changes))


def _sections(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """The manifest as section → name → plain value; fields that are no sections are in `bundle`."""
    content = manifest.model_dump(mode="json")
    content["engines"] = {record.name: record.model_dump(mode="json") for record in manifest.engines}
    sections = {name: value for name, value in content.items() if isinstance(value, dict)}
    return {"bundle": {name: value for name, value in content.items() if name not in sections}, **sections}


def _changes(section: str, a: Mapping[str, Any], b: Mapping[str, Any], above: str = "") -> list[ManifestChange]:
    changes = []
    for name in {**a, **b}:
        left, right = a.get(name), b.get(name)
        # A mapping that only one bundle has is one change, however many fields it contains.
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            changes += _changes(section, left, right, f"{above}{name}.")
        elif left != right:
            changes.append(ManifestChange(section, above + name, left, right))
    return changes


def _relabelled(a: list[str], b: list[str]) -> list[ManifestChange]:
    """Labels that only one bundle has; and the order of common ones, which is the order of the outputs."""
    common = {*a} & {*b}
    found = {
        "only there": [[label for label in side if label not in common] for side in (a, b)],
        "order": [[label for label in side if label in common] for side in (a, b)],
    }
    return [ManifestChange("labels", what, left, right) for what, (left, right) in found.items() if left != right]
