"""The plan of a pipeline: its file validated as a whole, and for each stage a key over all that it depends on."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.config import ExportSettings, TrainSettings
from lensmith.config.base import read_yaml
from lensmith.config.pipeline import PipelineFile
from lensmith.config.pipeline_parser import ParsedPipeline, parse_pipeline
from lensmith.config.training import MAY_CHANGE
from lensmith.core.version import __version__
from lensmith.data.scan import ImageSet, scan
from lensmith.errors import DataError, LensmithError, MissingPackageError, RegistryError, SettingsError
from lensmith.registry.references import parse
from lensmith.training.schedule import settings_of
from lensmith.workflows.pipeline import data_hashes
from lensmith.workflows.pipeline.folder import HASHES, PipelineFolder

STAGES = ("check", "split", "train", "evaluate", "export", "gate", "register", "rollout")
"""All stages, in the order in which they run."""

DEFAULT_FOLDER = Path("runs/pipelines")
SPLIT_MANIFEST = "splits.csv"
RESERVED_SETTINGS = {"train": ("data", "out", "split"), "export": ("run", "retune", "out", "overwrite")}
"""Settings of these verbs that the pipeline sets itself."""


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan.

    Attributes:
        name: one of `STAGES`.
        on: whether the stage runs; False if the file switches it off.
        needs: stages whose output is this stage's input, without those that are off.
        key: hash of the stage's settings and inputs; equal keys give equal results. Empty if the stage is off.
    """

    name: str
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
        return _split_manifest(self.stage_folder("split"), self.file) if self.file.split else self.file.data

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

    Args:
        source: path of the pipeline's file.
        out: the pipeline's folder; runs/pipelines/NAME by default.

    Raises:
        SettingsError: all mistakes in the file.
        OutputError: a file has the folder's name.
    """
    parsed = parse_pipeline(source)
    images = _scan_images(parsed)
    _check_against_data(parsed, images)
    train, export = _train_section(parsed), _section(parsed, "export")
    _collect(parsed, "train", lambda: settings_of({"data": "."}, train))
    _collect(parsed, "export", lambda: ExportSettings.resolve({"run": "."}, export))
    if parsed.mistakes:
        _validate_training(parsed, train)
    file = parsed.require_valid()
    assert images is not None  # or there would be a mistake
    plan = _plan_stages(source, file, PipelineFolder(out or DEFAULT_FOLDER / file.name), images, train)
    if plan.folder.read_record("train", plan.stages["train"].key) is None:
        _validate_training(parsed, train)
        parsed.require_valid()
    return plan


def _plan_stages(
    source: Path, file: PipelineFile, folder: PipelineFolder, images: ImageSet, train_section: Mapping[str, Any]
) -> PipelinePlan:
    folder.make()
    hashes = data_hashes.hash_images(images, folder.path / HASHES)
    data = data_hashes.digest(images, hashes)
    stages: dict[str, PlannedStage] = {}

    def add(name: str, on: bool, settings: Any, needs: Sequence[str] = (), data: str = "") -> PlannedStage:
        inputs = tuple(need for need in needs if stages[need].on)
        settings = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
        whole = [name, __version__, settings, [stages[need].key for need in inputs], data]
        key = hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:16]
        stages[name] = PlannedStage(name, on, inputs, key if on else "")
        return stages[name]

    add("check", file.check is not None, file.check, data=data)
    split = add("split", file.split is not None, file.split, data=data)
    dataset = _split_manifest(folder.stage_folder("split", split.key), file) if split.on else file.data
    settings = settings_of({"data": dataset}, train_section)
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
    return PipelinePlan(source, file, folder, images, hashes, settings, export, stages)


def _split_manifest(folder: Path, file: PipelineFile) -> Path:
    # A bundle is named after the folder of its manifest.
    return folder / file.name / SPLIT_MANIFEST


def _run_folder(folder: Path, file: PipelineFile) -> Path:
    # A bundle's version is named after its run.
    return folder / f"{file.name}-{folder.name[:8]}"


def _scan_images(parsed: ParsedPipeline) -> ImageSet | None:
    """The image set that the file names; what is wrong with it is a mistake of the file."""
    data = parsed.content.get("data")
    if not isinstance(data, str):
        return None
    splits = parsed.content.get("split") is not None  # without the stage, a manifest beside the images is the split
    try:
        return scan(data, manifest=not splits)
    except DataError as error:
        parsed.add_mistake(f"data = {data!r} ({error.arrived.rstrip('.')})", "data")
        return None


def _check_against_data(parsed: ParsedPipeline, images: ImageSet | None) -> None:
    """Check the file against the data and against the installed packages."""
    file = parsed.validated
    if file is None or images is None:
        return
    needs_test = bool(file.gate or file.evaluate)
    if file.split is None and "train" not in images.parts:
        parsed.add_mistake("split is off, and the data has no train and val folders of its own", "split")
    elif needs_test and "test" not in images.parts and (file.split is None or file.split.ratio[2] <= 0):
        parsed.add_mistake("gate and evaluate need a test part, of which split leaves none", "split", "ratio")
    floors = file.gate.min_recall if file.gate else {}
    for label in floors.keys() - {"*", *images.labels}:
        message = f"gate.min_recall names {label!r}, which is no class of the data"
        parsed.add_mistake(message, "gate", "min_recall", label)
    for label in file.mapping.keys() - set(images.labels):
        parsed.add_mistake(f"mapping names {label!r}, which is no class of the data", "mapping", label)
    _check_champion_bundle(parsed, file, images)
    if file.register_:
        from lensmith.registry import client
        from lensmith.tracking.address import installed

        try:
            client.uri(file.tracking_uri)
        except RegistryError as error:
            message = f"register.tracking_uri: {error.arrived.rstrip('.')}"
            parsed.add_mistake(message, "register", "tracking_uri")
        if not installed():
            missing = MissingPackageError.of(ModuleNotFoundError(name="mlflow"))
            message = f"register needs MLflow, which is not installed: {missing.remedy.rstrip('.')}"
            parsed.add_mistake(message, "register")


def _check_champion_bundle(parsed: ParsedPipeline, file: PipelineFile, images: ImageSet) -> None:
    """Check the labels of a champion that is a local bundle, before a training is spent on it."""
    wanted = file.gate.champion if file.gate else "none"
    if wanted in ("auto", "none") or parse(wanted) is not None:
        return  # a name in the registry is resolved by the gate
    from lensmith.workflows.pipeline.predictions import require_same_labels

    try:
        champion_label = {label: file.mapping.get(label, label) for label in images.labels}
        require_same_labels(champion_label, Bundle.load(wanted), file.mapping)
    except LensmithError as error:
        parsed.add_mistake(f"gate.champion = {wanted!r} ({error.arrived.rstrip('.')})", "gate", "champion")


def _section(parsed: ParsedPipeline, name: str) -> dict[str, Any]:
    """The settings under train or export, without those that the pipeline sets itself."""
    section = parsed.content.get(name)
    values = {str(key): value for key, value in section.items()} if isinstance(section, dict) else {}
    for reserved in RESERVED_SETTINGS[name]:
        if reserved in values:
            parsed.add_mistake(f"{name}.{reserved} is set by the pipeline itself", name, reserved)
            values.pop(reserved)
    return values


def _train_section(parsed: ParsedPipeline) -> dict[str, Any]:
    """Settings of the training: the file's section over the recipe that it names."""
    values = _section(parsed, "train")
    recipe = values.pop("recipe", None)
    if recipe is not None:
        try:
            base = read_yaml(Path(str(recipe)))
        except SettingsError as error:
            message = f"train.recipe = {str(recipe)!r} ({error.arrived.rstrip('.')})"
            parsed.add_mistake(message, "train", "recipe")
        else:
            reserved = RESERVED_SETTINGS["train"]
            values = {**{name: value for name, value in base.items() if name not in reserved}, **values}
    register = parsed.content.get("register")
    if isinstance(register, dict) and isinstance(register.get("tracking_uri"), str):
        values.setdefault("tracking", register["tracking_uri"])
    return values


def _validate_training(parsed: ParsedPipeline, train_section: Mapping[str, Any]) -> None:
    """Validate the training's settings as `lensmith recipe validate` does, which builds the network."""
    from lensmith.training.recipe_file import validate

    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        plain = json.loads(json.dumps(train_section, default=str))
        recipe.write_text(yaml.safe_dump(plain), encoding="utf-8")
        _collect(parsed, "train", lambda: validate(recipe))


def _collect(parsed: ParsedPipeline, section: str, validate: Callable[[], object]) -> None:
    """Run a validation of another verb's settings, and add its mistakes to those of the file."""
    try:
        validate()
    except LensmithError as error:
        arrived = error.arrived.removeprefix("These arrived: ").rstrip(".")
        for mistake in arrived.split("; ") if isinstance(error, SettingsError) else [arrived]:
            setting = re.match(r"\w+", mistake)
            parsed.add_mistake(f"{section}: {mistake}", section, setting[0] if setting else "")
