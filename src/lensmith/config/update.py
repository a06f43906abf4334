"""Settings of `lensmith update`."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

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

    @model_validator(mode="after")
    def _require_one_model(self) -> Self:
        if (self.model is None) == (self.bundle is None):
            raise ValueError("one of model and bundle names what is trained again")
        return self
