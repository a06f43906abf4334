"""The verbs as Python functions: what the command line does, returned instead of printed.

Each function takes the settings of its class in `lensmith.config` as keywords, resolves them as the command line does,
turns `NAME@ALIAS` into a path, and imports its room when it is called.
"""

from lensmith.api.bundles import describe, diff, evaluate, export, load, predict, retune, verify
from lensmith.api.data import (
    agreement,
    check,
    export_labels,
    fetch,
    import_annotations,
    label_doctor,
    next_labels,
    split,
)
from lensmith.api.registry import Registry, Rollout, sync_runs, track_ui, tracked_runs
from lensmith.api.reviewing import review
from lensmith.api.serving import FeedbackFolder, bench, deploy, serve, token
from lensmith.api.training import clear_cache, distill, list_cache, models, recipe, train, validate
from lensmith.api.workflows import demo, doctor, pipeline, show_pipeline, update

__all__ = [
    "FeedbackFolder", "Registry", "Rollout", "agreement", "bench", "check", "clear_cache", "demo", "deploy",
    "describe", "diff", "distill", "doctor", "evaluate", "export", "export_labels", "fetch", "import_annotations",
    "label_doctor", "list_cache", "load", "models", "next_labels", "pipeline", "predict", "recipe", "retune", "review",
    "serve", "show_pipeline", "split", "sync_runs", "token", "track_ui", "tracked_runs", "train", "update", "validate",
    "verify",
]  # fmt: skip
