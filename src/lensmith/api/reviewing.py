"""The review of labels by people, in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lensmith import config
from lensmith.api.arguments import StrPath, default, documented, given, located

if TYPE_CHECKING:
    from lensmith.curation.reviewing.outcome import ReviewResult


@documented(config.ReviewSettings)
def review(
    source: StrPath, *,
    out: StrPath = default("reviewed.csv"), classes: str | Sequence[str] | None = None, bundle: StrPath | None = None,
    ignore_labels: bool = default(False), reviewer: str | None = None, host: str = default("127.0.0.1"),
    port: int = default(8008), open: bool = default(True), write: bool = default(False),
) -> ReviewResult:  # fmt: skip
    """Serve the review page until stopped, and write the manifest."""
    settings = located(config.ReviewSettings.resolve(given(locals())), "bundle")
    from lensmith.curation.reviewing.run import review as run

    return run(settings)
