"""Settings of `lensmith track`."""

from __future__ import annotations

from pydantic import Field

from lensmith.settings import Settings


class TrackSettings(Settings):
    """`lensmith track ui`; where runs are is said by `TrackingSettings`."""

    verb = "track_ui"

    host: str = Field("127.0.0.1", description="Address to bind; MLflow asks nobody who they are.")
    port: int = Field(5000, ge=0, le=65535, description="Port to bind; 0 picks a free one.")
