"""Settings of `lensmith update`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from lensmith.config.base import Settings
from lensmith.config.values import EXCLUDE, RELABEL


class UpdateSettings(Settings):
    """`lensmith update`."""

    verb = "update"
    positional = ("data",)

    data: Path = Field(description="Image folder or manifest with the old pictures and the new ones.")
    model: str | None = Field(
        None, pattern=r"^\w[\w. -]*$", description="Registered model whose champion is trained again, such as flowers."
    )
    bundle: Path | None = Field(
        None, description="Bundle to train again and to replace, where there is no registry: a folder."
    )
    out: Path | None = Field(None, description="Folder for runs and pages; runs/updates/NAME by default.")
    exclude: Path | None = Field(None, description=EXCLUDE)
    relabel: Path | None = Field(None, description=RELABEL)
    canary: bool | None = Field(
        None,
        description="Promote by a canary release; by default where services have reported requests of an earlier one.",
    )
    tracking_uri: str | None = Field(
        None, description="MLflow server or database of the registry; that of the `tracking` settings by default."
    )
    yes: bool = Field(False, description="Promote without asking, if the gate lets the new model pass.")

    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "neither model nor bundle, one of which names what is trained again": (
            lambda model, bundle: model is None and bundle is None
        ),
        "model and bundle, only one of which can be trained again": (
            lambda model, bundle: model is not None and bundle is not None
        ),
    }
