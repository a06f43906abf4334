"""Settings of `lensmith review`."""

from pathlib import Path

from pydantic import Field

from lensmith.config.base import Settings
from lensmith.config.values import Host, Names


class ReviewSettings(Settings):
    """`lensmith review`."""

    verb = "review"
    positional = ("source",)

    source: Path = Field(
        description="Image folder, manifest, work list (suspects.csv, contested.csv), evaluation, folder of "
        "`lensmith serve --keep`, or pictures without labels."
    )
    out: Path = Field(Path("reviewed.csv"), description="Manifest to write; journal and history are written beside it.")
    classes: Names | None = Field(
        None, description="The only classes, with commas; by default those of SOURCE and new ones."
    )
    bundle: Path | None = Field(
        None, description="Bundle whose suggestions are shown: a folder or zip, or NAME@ALIAS in the registry."
    )
    ignore_labels: bool = Field(False, description="Take no labels from the names of SOURCE's folders.")
    reviewer: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Reviewer's name that the page begins with; the user's login name by default.",
    )
    host: Host = Field("127.0.0.1", description="Address to bind; any other than this machine's own needs the token.")
    port: int = Field(8008, ge=0, le=65535, description="Port to bind; 0 picks a free one.")
    open: bool = Field(
        True, description="Open the page in a browser, where standard output is a terminal of a desktop."
    )
    write: bool = Field(False, description="Write the manifest from the journal, and exit without the page.")
