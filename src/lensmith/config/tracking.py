"""Settings of MLflow tracking and of `lensmith track ui`."""

from pydantic import Field

from lensmith.config.base import Settings
from lensmith.config.values import Host


class TrackingSettings(Settings):
    """Address of the MLflow server or database, for all verbs that use it."""

    verb = "tracking"

    uri: str | None = Field(
        None,
        description="MLflow tracking URI: sqlite:///FILE, postgresql://…, or http(s)://HOST:PORT of an `mlflow "
        "server`; by default MLFLOW_TRACKING_URI, else runs/mlflow.db.",
    )
    artifacts: str | None = Field(
        None,
        description="Artifact folder shared by all machines, or s3://BUCKET/PATH, for a database without a server; by "
        "default mlartifacts beside a SQLite file.",
    )


class TrackSettings(Settings):
    """`lensmith track ui`; `TrackingSettings` has the address of the runs."""

    verb, command = "track_ui", "track ui"

    host: Host = Field("127.0.0.1", description="Address to bind; MLflow has no authentication.")
    port: int = Field(5000, ge=0, le=65535, description="Port to bind; 0 picks a free one.")
