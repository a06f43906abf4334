"""A pipeline's file → its stages, each under the key of all that it depends on; every mistake told before one runs."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.config import ExportSettings, TrainSettings
from lensmith.config.base import read_yaml
from lensmith.config.pipeline import PipelineFile, Written, named_first, read
from lensmith.core.version import __version__
from lensmith.data.scan import ImageSet, scan
from lensmith.errors import DataError, LensmithError, MissingPackageError, RegistryError, SettingsError
from lensmith.registry.references import parse
from lensmith.training.schedule import settings_of
from lensmith.workflows.pipeline import contents
from lensmith.workflows.pipeline.results import CONTENTS, Results

STAGES = ("check", "split", "train", "evaluate", "export", "gate", "register", "rollout")
"""In the order in which they run."""

FOLDER = Path("runs/pipelines")

SPLITS = "splits.csv"

OWN = {"train": ("data", "out", "split"), "export": ("run", "retune", "out", "overwrite")}
"""Settings of these verbs that the pipeline says itself."""

WHERE_AND_HOW_FAST = frozenset(
    {
        "data", "out", "workers", "device", "processes", "memory_fraction", "min_chunk", "checkpointing",
        "save_minutes", "on_nan", "tracking",
    }
)  # fmt: skip
"""Settings of a training that change nothing of what comes out: `train.folder.difference.MAY_CHANGE`, whose room needs
torch to be loaded, which takes longer than a whole run that has nothing to do."""


@dataclass(frozen=True)
class Stage:
    """One stage as it is to run.

    Attributes:
        name: of `STAGES`.
        on: False: the file switches it off.
        needs: stages that it is made of, those that are off left out.
        key: of its settings and inputs; the same key has the same result. Empty where it is off.
    """

    name: str
    on: bool
    needs: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class Plan:
    """What a pipeline's file comes to on the data as it lies there.

    Attributes:
        source: the file.
        file: what it says.
        results: the pipeline's folder.
        images: the data, with the parts that it brings.
        hashes: SHA-256 of each image, by path.
        train: settings of the training.
        export: settings of the export; None: it is off.
        stages: by name, in the order of `STAGES`.
    """

    source: Path
    file: PipelineFile
    results: Results
    images: ImageSet
    hashes: Mapping[str, str]
    train: TrainSettings
    export: ExportSettings | None
    stages: Mapping[str, Stage]

    def place(self, stage: str) -> Path:
        """Folder of a stage."""
        return self.results.place(stage, self.stages[stage].key)

    @property
    def parts(self) -> Path:
        """The images with their parts: the manifest that the pipeline writes, or the data itself."""
        return _manifest(self.place("split"), self.file) if self.file.split else self.file.data

    @property
    def bundle(self) -> Path:
        """Of the new model, as it will be registered."""
        return self.place("export") / "bundle" if self.export else self.run / "bundle"

    def made(self, stage: str) -> Path | None:
        """The file without which a finished stage is of no use to the next; None: it leaves none."""
        files = {"split": self.parts, "train": self.run / "bundle" / MANIFEST, "export": self.bundle / MANIFEST}
        return files.get(stage)

    @property
    def run(self) -> Path:
        """Run folder of the training."""
        return _run(self.place("train"), self.file)


def plan(source: Path, out: Path | None = None) -> Plan:
    """Look a pipeline's file over, with all that it names, and put its stages under their keys.

    Args:
        source: the file.
        out: the pipeline's folder; runs/pipelines/NAME by default.

    Raises:
        SettingsError: all that is wrong with it.
        OutputError: a file is in the folder's place.
    """
    written = read(source)
    images = _images(written)
    _others(written, images)
    said, export = _train_section(written), _section(written, "export")
    _try(written, "train", lambda: settings_of({"data": "."}, said))
    _try(written, "export", lambda: ExportSettings.resolve({"run": "."}, export))
    if written.mistakes:
        _validate(written, said)
    file = written.require_right()
    assert images is not None  # or there would be a mistake
    made = _keyed(source, file, Results(out or FOLDER / file.name), images, said)
    if made.results.read("train", made.stages["train"].key) is None:
        _validate(written, said)
        written.require_right()
    return made


def _keyed(source: Path, file: PipelineFile, results: Results, images: ImageSet, said: Mapping[str, Any]) -> Plan:
    results.make()
    hashes = contents.hashes(images, results.folder / CONTENTS)
    data = contents.digest(images, hashes)
    stages: dict[str, Stage] = {}

    def add(name: str, on: bool, settings: Any, needs: Sequence[str] = (), data: str = "") -> Stage:
        inputs = tuple(need for need in needs if stages[need].on)
        settings = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
        whole = [name, __version__, settings, [stages[need].key for need in inputs], data]
        key = hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:16]
        stages[name] = Stage(name, on, inputs, key if on else "")
        return stages[name]

    add("check", file.check is not None, file.check, data=data)
    split = add("split", file.split is not None, file.split, data=data)
    manifest = _manifest(results.place("split", split.key), file) if split.on else file.data
    settings = settings_of({"data": manifest}, said)
    what = {name: value for name, value in settings.model_dump(mode="json").items() if name not in WHERE_AND_HOW_FAST}
    trained = add("train", True, what, ("split",), "" if split.on else data)
    run = _run(results.place("train", trained.key), file)
    settings = settings.model_copy(update={"out": run})
    add("evaluate", file.evaluate is not None, {}, ("train",))
    export = None if file.export is None else ExportSettings.resolve({"run": run}, {"name": file.name, **file.export})
    what = {} if export is None else export.model_dump(mode="json", exclude={"run", "out", "overwrite"})
    add("export", export is not None, what, ("train",))
    bundle = "train" if export is None else "export"
    if export is not None:
        out = results.place("export", stages["export"].key) / "bundle"
        export = export.model_copy(update={"out": out, "overwrite": True})
    gate = file.gate and [file.gate.model_dump(mode="json"), file.mapping, file.model, _uri(file)]
    add("gate", file.gate is not None, gate, (bundle,))
    registered = file.register_ and [file.register_.model_dump(mode="json"), file.model]
    add("register", file.register_ is not None, registered, (bundle, "gate"))
    rollout = file.rollout and [file.rollout.model_dump(mode="json"), file.mapping]
    add("rollout", file.rollout is not None, rollout, ("register",))
    return Plan(source, file, results, images, hashes, settings, export, stages)


def _manifest(place: Path, file: PipelineFile) -> Path:
    # A bundle is named after the folder of its manifest.
    return place / file.name / SPLITS


def _run(place: Path, file: PipelineFile) -> Path:
    # A bundle's version is named after its run.
    return place / f"{file.name}-{place.name[:8]}"


def _uri(file: PipelineFile) -> str | None:
    return file.register_.tracking_uri if file.register_ else None


def _images(written: Written) -> ImageSet | None:
    """The data as it lies there; what is wrong with it is a mistake of the file."""
    data = written.content.get("data")
    if not isinstance(data, str):
        return None
    splits = written.content.get("split") is not None  # a manifest beside the images is the split that is wanted
    try:
        return scan(data, manifest=not splits)
    except DataError as error:
        written.add(f"data = {data!r} ({error.arrived.rstrip('.')})", "data")
        return None


def _others(written: Written, images: ImageSet | None) -> None:
    """What the file says against the data, and against what is installed."""
    file = written.checked
    if file is None or images is None:
        return
    judges = bool(file.gate or file.evaluate)
    if file.split is None and "train" not in images.parts:
        written.add("split is off, and the data has no train and val folders of its own", "split")
    elif judges and "test" not in images.parts and (file.split is None or file.split.ratio[2] <= 0):
        written.add("gate and evaluate need a test part, of which split leaves none", "split", "ratio")
    floors = file.gate.min_recall if file.gate else {}
    for label in floors.keys() - {"*", *images.labels}:
        written.add(f"gate.min_recall names {label!r}, which is no class of the data", "gate", "min_recall", label)
    for label in file.mapping.keys() - set(images.labels):
        written.add(f"mapping names {label!r}, which is no class of the data", "mapping", label)
    _champion(written, file, images)
    if file.register_:
        from lensmith.registry import client
        from lensmith.tracking.address import installed

        try:
            client.uri(file.register_.tracking_uri)
        except RegistryError as error:
            written.add(f"register.tracking_uri: {error.arrived.rstrip('.')}", "register", "tracking_uri")
        if not installed():
            lacking = MissingPackageError.of(ModuleNotFoundError(name="mlflow"))
            written.add(f"register needs MLflow, which is not installed: {lacking.remedy.rstrip('.')}", "register")


def _champion(written: Written, file: PipelineFile, images: ImageSet) -> None:
    """What can be said of a champion that is a bundle here, before a training is spent on it."""
    wanted = file.gate.champion if file.gate else "none"
    if wanted in ("auto", "none"):
        return
    if parse(wanted) is not None:
        return  # the gate asks the registry
    from lensmith.workflows.pipeline.answers import require_known

    try:
        require_known(
            {label: file.mapping.get(label, label) for label in images.labels}, Bundle.load(wanted), file.mapping
        )
    except LensmithError as error:
        written.add(f"gate.champion = {wanted!r} ({error.arrived.rstrip('.')})", "gate", "champion")


def _section(written: Written, name: str) -> dict[str, Any]:
    said = written.content.get(name)
    said = {str(key): value for key, value in said.items()} if isinstance(said, dict) else {}
    for own in OWN[name]:
        if own in said:
            written.add(f"{name}.{own} is what the pipeline says itself", name, own)
            said.pop(own)
    return said


def _train_section(written: Written) -> dict[str, Any]:
    """Settings of the training: the file's section over the recipe that it names."""
    said = _section(written, "train")
    recipe = said.pop("recipe", None)
    if recipe is not None:
        try:
            beneath = read_yaml(Path(str(recipe)))
        except SettingsError as error:
            written.add(f"train.recipe = {str(recipe)!r} ({error.arrived.rstrip('.')})", "train", "recipe")
        else:
            said = {**{name: value for name, value in beneath.items() if name not in OWN["train"]}, **said}
    register = written.content.get("register")
    if isinstance(register, dict) and isinstance(register.get("tracking_uri"), str):
        said.setdefault("tracking", register["tracking_uri"])
    return said


def _validate(written: Written, said: Mapping[str, Any]) -> None:
    """Look the training over as `lensmith recipe validate` does, which builds its network."""
    from lensmith.training.recipe_file import validate

    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        plain = json.loads(json.dumps(said, default=str))
        recipe.write_text(yaml.safe_dump(plain), encoding="utf-8")
        _try(written, "train", lambda: validate(recipe))


def _try(written: Written, section: str, validate: Any) -> None:
    try:
        validate()
    except LensmithError as error:
        arrived = error.arrived.removeprefix("These arrived: ").rstrip(".")
        mistakes = arrived.split("; ") if isinstance(error, SettingsError) else [arrived]
        for mistake in mistakes:
            written.add(f"{section}: {mistake}", section, named_first(mistake))
