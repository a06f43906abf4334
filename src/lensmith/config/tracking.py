"""Where runs and models are written down, for all verbs."""

from __future__ import annotations

from pydantic import Field

from lensmith.config.base import Settings


class TrackingSettings(Settings):
    """Where MLflow keeps runs and models; every verb that needs it asks here."""

    verb = "tracking"

    uri: str | None = Field(
        None,
        description="MLflow's tracking URI: sqlite:///FILE, postgresql://…, or http(s)://HOST:PORT of an `mlflow "
        "server`; else MLFLOW_TRACKING_URI, else runs/mlflow.db.",
    )
    artifacts: str | None = Field(
        None,
        description="Folder that all machines reach, or s3://BUCKET/PATH, for the files of a database without server; "
        "mlartifacts beside a SQLite file by default.",
    )


class TrackSettings(Settings):
    """`lensmith track ui`; where runs are is said by `TrackingSettings`."""

    verb = "track_ui"

    host: str = Field("127.0.0.1", description="Address to bind; MLflow asks nobody who they are.")
    port: int = Field(5000, ge=0, le=65535, description="Port to bind; 0 picks a free one.")
