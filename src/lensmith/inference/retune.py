"""Retune: measure a bundle's engines anew on this machine and select one again, without training or exporting."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.bundle.format import Bundle, EngineRecord, Manifest, write_manifest
from lensmith.config import ExportSettings
from lensmith.core import machine
from lensmith.core.result import Result
from lensmith.errors import BundleError
from lensmith.inference.benchmark import measure_all
from lensmith.inference.engine import lacks, open_record
from lensmith.inference.selection import DEFAULT_MAX_DROP_PP, select, summary


@dataclass(frozen=True)
class Retuned(Result):
    """A bundle whose engines were measured anew.

    Attributes:
        bundle: the bundle's folder or zip.
        manifest: new content of bundle.json.
        before: name of the engine that was selected before.
        seconds: duration of the measurement, in seconds.
    """

    bundle: Path
    manifest: Manifest
    before: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "bundle": str(self.bundle),
            **summary(self.manifest.engines),
            "before": self.before,
            "machine": self.manifest.machine,
            "seconds": self.seconds,
        }


def retune(settings: ExportSettings) -> Retuned:
    """Measure every engine of a bundle that runs here and answers the golden samples, and select one.

    Only bundle.json is written anew, whole or not at all. Accuracies are those of the export.

    Raises:
        BundleError: the bundle cannot be used, or none of its engines runs here.
    """
    started = time.perf_counter()
    assert settings.retune is not None  # the settings' validation sees to it
    path = settings.retune
    opened = Bundle.load(path)
    manifest = opened.manifest
    records = [_checked(opened, record) for record in manifest.engines]
    runnable = [record for record in records if record.graph and not record.why]
    images = opened.golden().images
    measured = {r.name: r for r in measure_all(opened.path, runnable, manifest.preprocessing, images)}
    limit = settings.max_accuracy_drop
    if limit is None:
        limit = manifest.judged.get("max_accuracy_drop", DEFAULT_MAX_DROP_PP)
    judged_on = manifest.judged.get("images")
    engines = select([measured.get(record.name, record) for record in records], limit, judged_on)
    if not engines[0].chosen:
        raise BundleError(
            f"An engine of the bundle {path} that runs here within {limit:g} percentage points was expected.",
            f"{'; '.join(f'{record.name}: {record.why}' for record in engines)}.",
            "Install what is missing, allow more with --max-accuracy-drop, or export the run on this machine.",
        )
    judged = {**manifest.judged, "max_accuracy_drop": limit}
    manifest = manifest.model_copy(update={"engines": engines, "machine": machine.description(), "judged": judged})
    _write_manifest(manifest, opened.path, path)
    return Retuned(path, manifest, opened.records()[0].name, time.perf_counter() - started)


def _checked(opened: Bundle, record: EngineRecord) -> EngineRecord:
    """The record without its old speed, and with the reason where it cannot run here or answers differently."""
    if not record.graph:
        return record
    why = lacks(record)
    if not why:
        try:
            open_record(opened, record, threads=1)
        except BundleError as error:
            why = error.arrived
    return record.model_copy(
        update={"images_per_second": None, "latency_ms": None, "load_s": None, "memory_bytes": None, "why": why}
    )


def _write_manifest(manifest: Manifest, files: Path, path: Path) -> None:
    """Write a new manifest of the bundle at `path`, a folder or a zip whose files are unpacked in `files`."""
    if path.is_dir():
        write_manifest(manifest, path)
        return
    with tempfile.TemporaryDirectory() as scratch:  # the copy in the cache stays as it was hashed
        for name in manifest.files:
            link = Path(scratch, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((files / name).resolve())
        write_manifest(manifest, Path(scratch))
        Bundle(Path(scratch), manifest).pack(path)
