"""Validation of a pipeline's file as a whole: against the data, the installed packages, and the verbs that it calls."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.bundle.format import Bundle
from lensmith.config import ExportSettings
from lensmith.config.base import read_yaml
from lensmith.config.pipeline import PipelineFile
from lensmith.config.pipeline_parser import ParsedPipeline, parse_pipeline
from lensmith.config.values import parse_names
from lensmith.core.packages import TRAINING, require_packages
from lensmith.data.corrections import from_files
from lensmith.data.image_set import ImageSet
from lensmith.data.scan import scan
from lensmith.errors import DataError, LensmithError, MissingPackageError, SettingsError
from lensmith.exporting.formats.registry import packages_of
from lensmith.registry.references import parse
from lensmith.training.schedule import settings_of

RESERVED_SETTINGS = {
    "train": ("data", "layout", "group", "exclude", "relabel", "out", "split"),
    "export": ("run", "retune", "out", "overwrite"),
}
"""Settings of these verbs that the pipeline sets itself."""


@dataclass(frozen=True)
class ValidPipeline:
    """A pipeline's file without mistakes.

    Attributes:
        parsed: the parsed file, for mistakes that are found later.
        file: content of the file, validated.
        images: image set that the file names.
        train: settings of the training by name, with those of its recipe.
    """

    parsed: ParsedPipeline
    file: PipelineFile
    images: ImageSet
    train: Mapping[str, Any]


def validate_pipeline(source: Path) -> ValidPipeline:
    """Parse a pipeline's file and check all that it names; the network is built only to complete a list of mistakes.

    Raises:
        SettingsError: all mistakes in the file.
    """
    parsed = parse_pipeline(source)
    images = _scan_images(parsed)
    _check_against_data(parsed, images)
    train, export = _train_section(parsed), _section(parsed, "export")
    _collect(parsed, "train", lambda: settings_of({"data": "."}, train))
    if train.get("cv") is not None and _lacks_test_part(parsed.validated, images):
        parsed.add_mistake(
            "cv learns from all images but a test part, which gate and evaluate then need", "train", "cv"
        )
    _collect(parsed, "export", lambda: ExportSettings.resolve({"run": "."}, export))
    if parsed.mistakes:
        validate_network(parsed, train)
    file = parsed.require_valid()
    assert images is not None  # or there would be a mistake
    return ValidPipeline(parsed, file, images, train)


def _scan_images(parsed: ParsedPipeline) -> ImageSet | None:
    """The image set that the file names; what is wrong with it is a mistake of the file."""
    data = parsed.content.get("data")
    if not isinstance(data, str):
        return None
    splits = parsed.content.get("split") is not None  # without the stage, a manifest beside the images is the split
    try:
        layout = parsed.content.get("layout")
        images = scan(data, manifest=not splits, layout=layout if layout in ("parts", "classes") else "auto")
    except DataError as error:
        parsed.add_mistake(f"data = {data!r} ({error.arrived} {error.remedy.rstrip('.')})", "data")
        return None
    lists = {name: parsed.content.get(name) for name in ("exclude", "relabel")}
    for name, value in lists.items():
        if isinstance(value, str):
            with parsed.errors_as_mistakes(f"{name} = {value!r}", name):
                images = from_files(**{"exclude": None, "relabel": None, name: Path(value).expanduser()})(images)
    return images


def _lacks_test_part(file: PipelineFile | None, images: ImageSet | None) -> bool:
    """Whether gate or evaluate would find no test part."""
    if file is None or images is None or not (file.gate or file.evaluate):
        return False
    if images.parts in ((), ("train",)) and file.split is not None:
        return file.split.ratio[2] <= 0
    return "test" not in images.parts


def _check_against_data(parsed: ParsedPipeline, images: ImageSet | None) -> None:
    """Check the file against the data and against the installed packages."""
    file = parsed.validated
    if file is None or images is None:
        return
    needs_test = bool(file.gate or file.evaluate)
    if file.split is None and "train" not in images.parts:
        parsed.add_mistake("split is off, and the data has no train and val folders of its own", "split")
    elif needs_test and not {"val", "test"} & set(images.parts) and (file.split is None or file.split.ratio[2] <= 0):
        parsed.add_mistake("gate and evaluate need a test part, of which split leaves none", "split", "ratio")
    floors = file.gate.min_recall if file.gate else {}
    for label in floors.keys() - {"*", *images.labels}:
        message = f"gate.min_recall names {label!r}, which is no class of the data"
        parsed.add_mistake(message, "gate", "min_recall", label)
    for label in file.mapping.keys() - set(images.labels):
        parsed.add_mistake(f"mapping names {label!r}, which is no class of the data", "mapping", label)
    _check_champion_bundle(parsed, file, images)
    formats = parse_names(file.export.get("formats")) if file.export else None
    try:
        require_packages(*TRAINING, *packages_of(formats or ()))
    except MissingPackageError as error:
        parsed.add_mistake(f"{error.arrived.rstrip('.')}: {error.remedy.rstrip('.')}", "train")
    if file.register_:
        from lensmith.registry import client
        from lensmith.tracking.address import installed

        with parsed.errors_as_mistakes("register.tracking_uri", "register", "tracking_uri"):
            client.uri(file.tracking_uri)
        if not installed():
            missing = MissingPackageError.of(ModuleNotFoundError(name="mlflow"))
            message = f"register needs MLflow, which is not installed: {missing.remedy.rstrip('.')}"
            parsed.add_mistake(message, "register")


def _check_champion_bundle(parsed: ParsedPipeline, file: PipelineFile, images: ImageSet) -> None:
    """Check the labels of a champion that is a local bundle, before a training is spent on it."""
    wanted = file.gate.champion if file.gate else "none"
    if wanted in ("auto", "none") or parse(wanted) is not None:
        return  # a name in the registry is resolved by the gate
    from lensmith.workflows.pipeline.predictions import champion_labels, require_same_labels

    with parsed.errors_as_mistakes(f"gate.champion = {wanted!r}", "gate", "champion"):
        champion = Bundle.load(wanted)
        require_same_labels(champion_labels(images.labels, champion, file.mapping), champion, file.mapping)


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
        with parsed.errors_as_mistakes(f"train.recipe = {str(recipe)!r}", "train", "recipe"):
            base = read_yaml(Path(str(recipe)))
            reserved = RESERVED_SETTINGS["train"]
            values = {**{name: value for name, value in base.items() if name not in reserved}, **values}
    register = parsed.content.get("register")
    if isinstance(register, dict) and isinstance(register.get("tracking_uri"), str):
        values.setdefault("tracking", register["tracking_uri"])
    return values


def validate_network(parsed: ParsedPipeline, train: Mapping[str, Any]) -> None:
    """Validate the training's settings as `lensmith recipe validate` does, which builds the network."""
    from lensmith.training.recipe_file import validate_content

    _collect(parsed, "train", lambda: validate_content(parsed.source, train))


def _collect(parsed: ParsedPipeline, section: str, validate: Callable[[], object]) -> None:
    """Run a validation of another verb's settings, and add its mistakes to those of the file."""
    try:
        validate()
    except LensmithError as error:
        arrived = error.arrived.removeprefix("These arrived: ").rstrip(".")
        for mistake in arrived.split("; ") if isinstance(error, SettingsError) else [arrived]:
            setting = re.match(r"\w+", mistake)
            parsed.add_mistake(f"{section}: {mistake}", section, setting[0] if setting else "")
