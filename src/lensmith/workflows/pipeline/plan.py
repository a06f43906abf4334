"""The plan of a pipeline: its stages, each under a key over all that its result depends on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lensmith.bundle.format import MANIFEST
from lensmith.config import ExportSettings, TrainSettings
from lensmith.config.pipeline import PipelineFile
from lensmith.config.training import MAY_CHANGE
from lensmith.core.version import __version__
from lensmith.data.image_set import ImageSet
from lensmith.training.schedule import settings_of
from lensmith.workflows.pipeline import data_hashes
from lensmith.workflows.pipeline.folder import PipelineFolder
from lensmith.workflows.pipeline.validation import ValidPipeline, validate_network, validate_pipeline

STAGES = ("check", "split", "train", "evaluate", "export", "gate", "register", "rollout")
"""All stages, in the order in which they run."""


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan.

    Attributes:
        on: whether the stage runs; False if the file switches it off.
        needs: stages whose output is this stage's input, without those that are off.
        key: hash of the stage's settings and inputs; equal keys give equal results. Empty if the stage is off.
    """

    on: bool
    needs: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class PipelinePlan:
    """A validated pipeline with the keys of its stages for the data as it is now.

    Attributes:
        source: path of the pipeline's file.
        file: content of the file, validated.
        folder: the pipeline's folder.
        images: the image set, with the parts that it brings.
        hashes: SHA-256 of each image, by path.
        train: settings of the training.
        export: settings of the export; None if that stage is off.
        stages: planned stages by name, in the order of `STAGES`.
    """

    source: Path
    file: PipelineFile
    folder: PipelineFolder
    images: ImageSet
    hashes: Mapping[str, str]
    train: TrainSettings
    export: ExportSettings | None
    stages: Mapping[str, PlannedStage]

    def stage_folder(self, stage: str) -> Path:
        """The folder for a stage's output."""
        return self.folder.stage_folder(stage, self.stages[stage].key)

    @property
    def dataset(self) -> Path:
        """The images with their parts: the manifest that the split stage writes, or the data itself."""
        return split_manifest(self.stage_folder("split"), self.file) if self.file.split else self.file.data

    @property
    def run_folder(self) -> Path:
        """Run folder of the training."""
        return _run_folder(self.stage_folder("train"), self.file)

    @property
    def bundle(self) -> Path:
        """Bundle of the new model, as it will be registered."""
        return self.stage_folder("export") / "bundle" if self.export else self.run_folder / "bundle"

    def main_output(self, stage: str) -> Path | None:
        """The file of a finished stage that later stages cannot do without; None if there is no such file."""
        files = {
            "split": self.dataset, "train": self.run_folder / "bundle" / MANIFEST, "export": self.bundle / MANIFEST,
        }  # fmt: skip
        return files.get(stage)

    def has_output(self, stage: str) -> bool:
        """Whether a finished stage's main output, if it has one, is still on disk."""
        file = self.main_output(stage)
        return file is None or file.is_file()


def make_plan(source: Path, out: Path | None = None) -> PipelinePlan:
    """Validate a pipeline's file with all that it names, and compute the keys of its stages.

    Raises:
        SettingsError: all mistakes in the file.
        OutputError: a file has the folder's name.
    """
    valid = validate_pipeline(source)
    plan = _plan_stages(valid, PipelineFolder(out or Path("runs/pipelines") / valid.file.name))
    if plan.folder.read_record("train", plan.stages["train"].key) is None:
        validate_network(valid.parsed, valid.train)
        valid.parsed.require_valid()
    return plan


def _plan_stages(valid: ValidPipeline, folder: PipelineFolder) -> PipelinePlan:
    file, images = valid.file, valid.images
    folder.make()
    hashes = data_hashes.hash_images(images)
    data = data_hashes.digest(images, hashes)
    stages: dict[str, PlannedStage] = {}

    def add(name: str, on: bool, settings: Any, needs: Sequence[str] = (), data: str = "") -> PlannedStage:
        inputs = tuple(need for need in needs if stages[need].on)
        settings = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
        whole = [name, __version__, settings, [stages[need].key for need in inputs], data]
        key = hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:16]
        stages[name] = PlannedStage(on, inputs, key if on else "")
        return stages[name]

    add("check", file.check is not None, [file.check and file.check.model_dump(mode="json"), file.group], data=data)
    split = add("split", file.split is not None, split_settings(file), data=data)
    dataset = split_manifest(folder.stage_folder("split", split.key), file) if split.on else file.data
    # The split stage's manifest has groups, and is corrected already.
    reading = {"layout": file.layout} if split.on else file.reading
    settings = settings_of({"data": dataset, **reading}, valid.train)
    trained = add(
        "train", True, settings.model_dump(mode="json", exclude=set(MAY_CHANGE)), ("split",), "" if split.on else data
    )
    run = _run_folder(folder.stage_folder("train", trained.key), file)
    settings = settings.model_copy(update={"out": run})
    add("evaluate", file.evaluate is not None, {}, ("train",))
    export = None if file.export is None else ExportSettings.resolve({"run": run}, {"name": file.name, **file.export})
    values = {} if export is None else export.model_dump(mode="json", exclude={"run", "out", "overwrite"})
    add("export", export is not None, values, ("train",))
    bundle = "train" if export is None else "export"
    if export is not None:
        out = folder.stage_folder("export", stages["export"].key) / "bundle"
        export = export.model_copy(update={"out": out, "overwrite": True})
    gate = file.gate and [file.gate.model_dump(mode="json"), file.mapping, file.model, file.tracking_uri]
    add("gate", file.gate is not None, gate, (bundle,))
    registered = file.register_ and [file.register_.model_dump(mode="json"), file.model]
    add("register", file.register_ is not None, registered, (bundle, "gate"))
    rollout = file.rollout and [file.rollout.model_dump(mode="json"), file.mapping]
    add("rollout", file.rollout is not None, rollout, ("register",))
    return PipelinePlan(valid.parsed.source, file, folder, images, hashes, settings, export, stages)


def split_settings(file: PipelineFile) -> dict[str, Any]:
    """Plain values of all that decides how images are divided, where none is in a part yet; empty if that is off."""
    return {} if file.split is None else {**file.split.model_dump(mode="json"), "group": file.group}


def split_manifest(folder: Path, file: PipelineFile) -> Path:
    """The manifest in a folder of the split stage; a bundle is named after the folder that the manifest is in."""
    return folder / file.name / "splits.csv"


def _run_folder(folder: Path, file: PipelineFile) -> Path:
    # A bundle's version is named after its run.
    return folder / f"{file.name}-{folder.name[:8]}"
