"""Settings of each verb: typed, frozen, and refused with every mistake together.

Where a value comes from is decided here and nowhere else, first match wins:

    flag (or keyword)  >  LENSMITH_<VERB>_<NAME>  >  --recipe FILE, preset (train)  >  lensmith.yaml  >  default

The command line is made from these classes, so a setting, its type, its default and its help stand in one place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lensmith.errors import SettingsError
from lensmith.image import ResizeMode

SETTINGS_FILE = "lensmith.yaml"


def parse_ratio(value: Any) -> Any:
    """`5:3:2`, `0.5,0.3,0.2` or a sequence → a tuple of numbers."""
    if isinstance(value, str):
        return tuple(float(part) for part in re.split(r"[:,/]", value))
    return value


Share = Annotated[float, Field(ge=0)]
Ratio = Annotated[tuple[Share, Share, Share], BeforeValidator(parse_ratio)]


class Settings(BaseModel):
    """Base of every verb's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verb: ClassVar[str]
    positional: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def resolve(cls, given: Mapping[str, Any], recipe: Mapping[str, Any] | None = None) -> Self:
        """Put the layers together and check them.

        Args:
            given: flags or keywords; None means not given.
            recipe: the content of a recipe file, between the environment and lensmith.yaml.

        Raises:
            SettingsError: one paragraph with all that is wrong.
        """
        prefix = f"LENSMITH_{cls.verb.upper()}_"
        environment = {
            name: os.environ[prefix + name.upper()] for name in cls.model_fields if prefix + name.upper() in os.environ
        }
        flags = {name: value for name, value in given.items() if value is not None}
        values = {**_file_section(cls.verb), **(recipe or {}), **environment, **flags}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _as_settings_error(cls, error) from error


class FetchSettings(Settings):
    """`lensmith data fetch`."""

    verb = "fetch"
    positional = ("name", "folder")

    name: str = Field(description="fashion-mnist, cifar10, flowers102, pets or digits")
    folder: Path = Field(description="Where the image folder goes.")
    max_train: int | None = Field(
        None, ge=1, description="At most so many training images, drawn evenly from the classes."
    )
    max_test: int | None = Field(None, ge=1, description="At most so many test images.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the drawing.")


class SplitSettings(Settings):
    """`lensmith data split`."""

    verb = "split"
    positional = ("folder",)

    folder: Path = Field(description="Image folder, or a CSV of path,label.")
    ratio: Ratio = Field((5, 3, 2), description="train:val:test")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the shuffle.")
    out: Path | None = Field(None, description="Manifest to write; FOLDER/splits.csv by default.")
    overwrite: bool = Field(False, description="Replace an older manifest.")


class TrainSettings(Settings):
    """`lensmith train`."""

    verb = "train"
    positional = ("data",)

    data: Path = Field(description="Image folder, or a CSV of path,label[,split].")
    model: str = Field("tf_efficientnet_lite0", description="Backbone; `lensmith models` lists them.")
    pretrained: bool = Field(True, description="Start from pretrained weights.")
    weights: Path | None = Field(None, description="Start from this state dict (.pth or .safetensors) instead.")
    preset: Literal["fast", "balanced"] = Field(
        "balanced", description="fast: head only, 5 epochs; balanced: head, then all."
    )
    image_size: int | None = Field(None, ge=16, le=2048, description="Pixels a side; the backbone's own by default.")
    resize: ResizeMode = Field("crop", description="How a picture becomes a square.")
    split: Ratio = Field((5, 3, 2), description="train:val:test for folders that bring no parts of their own.")
    epochs: int = Field(20, ge=1, description="Epochs at most, both stages together.")
    head_epochs: int = Field(2, ge=0, description="Epochs of them with the backbone frozen, first.")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many steps, whatever the epoch.")
    batch_size: int = Field(32, ge=1, description="Images in a step.")
    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="Optimizer.")
    lr: float = Field(1e-3, gt=0, description="Peak learning rate of the head.")
    backbone_lr_ratio: float = Field(0.1, gt=0, description="The backbone's rate as a share of the head's.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay; none on biases and normalisation.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps that warm up before the cosine.")
    batch_norm: Literal["frozen", "train"] = Field(
        "frozen", description="While fine-tuning: keep BatchNorm's statistics, or learn them from the batches."
    )
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the head.")
    augment: Literal["none", "light", "standard"] = Field(
        "standard", description="none; light: crop, flip; standard: stronger crop, flip, colour."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto measures which is fastest here."
    )
    patience: int = Field(5, ge=1, description="Stop after so many epochs without a better one.")
    monitor: Literal["loss", "accuracy"] = Field(
        "loss", description="What makes an epoch the best, on the validation part."
    )
    workers: int | None = Field(None, ge=0, description="Data processes; from the cores allowed by default.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of everything random.")
    out: Path | None = Field(None, description="Run folder; runs/DATA-MODEL-TIME by default.")


class ExportSettings(Settings):
    """`lensmith export`."""

    verb = "export"
    positional = ("run",)

    run: Path = Field(description="Run folder that `lensmith train` made.")
    out: Path | None = Field(
        None, description="Bundle to write; RUN/bundle by default. A name ending in .zip is packed."
    )
    name: str | None = Field(None, description="Name in the bundle; the data folder's by default.")
    overwrite: bool = Field(False, description="Replace an older bundle.")
    tolerance: float = Field(1e-3, gt=0, description="Largest allowed difference of a probability from PyTorch.")
    min_agreement: float = Field(
        0.999, gt=0, le=1, description="Smallest allowed share of images with the same top class."
    )


class EvaluateSettings(Settings):
    """`lensmith evaluate`."""

    verb = "evaluate"
    positional = ("bundle", "data")

    bundle: Path = Field(description="Bundle folder or zip.")
    data: Path = Field(description="Labelled images: a folder, or a CSV of path,label.")
    part: Literal["auto", "train", "val", "test", "all"] = Field(
        "auto", description="auto: the test part where there is one, else all."
    )
    engine: str | None = Field(None, description="Another of the bundle's engines than the chosen one.")
    out: Path | None = Field(None, description="Where the HTML report and JSON go; evaluation/ by default.")


class PredictSettings(Settings):
    """`lensmith predict`."""

    verb = "predict"
    positional = ("bundle", "images")

    bundle: Path = Field(description="Bundle folder or zip.")
    images: list[str] = Field(min_length=1, description="Image files, folders, or - for paths on standard input.")
    top_k: int = Field(1, ge=1, description="Classes to name for each image.")
    format: Literal["csv", "jsonl", "parquet"] | None = Field(
        None, description="Output format; by the ending of --out, else csv."
    )
    out: Path | None = Field(None, description="File to write; standard output by default.")
    engine: str | None = Field(None, description="Another of the bundle's engines than the chosen one.")


class ServeSettings(Settings):
    """`lensmith serve`."""

    verb = "serve"
    positional = ("bundle",)

    bundle: Path = Field(description="Bundle folder or zip.")
    host: str = Field("127.0.0.1", description="Address to bind.")
    port: int = Field(8000, ge=0, le=65535, description="Port to bind; 0 picks a free one.")
    threads: int | None = Field(None, ge=1, description="Images worked on at once; the cores allowed by default.")
    max_bytes: int = Field(5_000_000, ge=1, description="Largest upload, in bytes.")
    max_pixels: int = Field(50_000_000, ge=1, description="Largest picture, in pixels, checked before decoding.")
    grace_s: float = Field(10.0, ge=0, description="Seconds to finish what is under way after SIGTERM.")
    engine: str | None = Field(None, description="Another of the bundle's engines than the chosen one.")


class DemoSettings(Settings):
    """`lensmith demo`."""

    verb = "demo"

    out: Path = Field(Path("runs/demo"), description="Folder for data, run and report; used again by a second demo.")
    train_images: int = Field(6000, ge=100, description="Training images.")
    test_images: int = Field(2000, ge=20, description="Held-out images.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of everything random.")
    port: int = Field(0, ge=0, le=65535, description="Port of the service; 0 picks a free one.")
    keep_serving: bool = Field(False, description="Leave the service up at the end.")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping.

    Raises:
        SettingsError: it cannot be read, or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(
            f"A readable YAML file was expected at {path}.",
            f"{' '.join(str(error).split())}.",
            "Check the path and its syntax.",
        ) from error
    if not isinstance({} if content is None else content, dict):
        raise SettingsError(
            f"Settings of the form `name: value` were expected in {path}.",
            "Something else is there.",
            "See docs/settings.md.",
        )
    return {str(name): value for name, value in (content or {}).items()}


def _file_section(verb: str) -> dict[str, Any]:
    named = os.environ.get("LENSMITH_CONFIG")
    path = Path(named or SETTINGS_FILE)
    if not named and not path.exists():
        return {}
    section = read_yaml(path).get(verb) or {}
    if not isinstance(section, dict):
        raise SettingsError(
            f"Settings of the form `name: value` were expected under {verb} in {path}.",
            f"{section!r} is there.",
            "See docs/settings.md.",
        )
    return section


def _as_settings_error(cls: type[Settings], error: ValidationError) -> SettingsError:
    found = []
    for mistake in error.errors():
        name = str(mistake["loc"][0]) if mistake["loc"] else ""
        if mistake["type"] == "extra_forbidden":
            found.append(f"{name} is no setting of {cls.verb}")
        elif mistake["type"] == "missing":
            found.append(f"{name} is missing")
        else:
            reason = mistake["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            found.append(f"{name} = {mistake['input']!r} (should be {reason})")
    return SettingsError(
        f"Usable settings were expected for `lensmith {cls.verb}`.",
        f"These arrived: {'; '.join(found)}.",
        "Correct them where they were given: flag, environment, recipe or lensmith.yaml.",
    )
