"""lensmith: from a folder of labelled images to a fine-tuned classifier and a classification service.

    import lensmith
    trained = lensmith.train("photos/")
    lensmith.load(trained.bundle).predict(["new.jpg"])

Each verb of the command line is a function here. Importing lensmith loads no torch and no web framework: a name is
resolved when it is first used. It turns the telemetry of libraries off (docs/security.md).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lensmith.core.library_telemetry import turn_off
from lensmith.core.version import __version__ as __version__
from lensmith.errors import LensmithError

turn_off()  # before any library is imported that reads these variables

if TYPE_CHECKING:
    from lensmith.api import (  # noqa: I001
        FeedbackFolder, Registry, Rollout, agreement, bench, check, clear_cache, demo, deploy, describe, diff,
        distill, doctor, evaluate, export, export_labels, fetch, import_annotations, label_doctor, list_cache, load,
        models, next_labels, pipeline, predict, recipe, retune, review, serve, show_pipeline, split, sync_runs, token,
        track_ui, tracked_runs, train, update, validate, verify,
    )  # fmt: skip
    from lensmith.bundle.format import Bundle
    from lensmith.inference.classifier import Classifier, Prediction

__all__ = [
    "Bundle", "Classifier", "FeedbackFolder", "LensmithError", "Prediction", "Registry", "Rollout", "agreement",
    "bench", "check", "clear_cache", "demo", "deploy", "describe", "diff", "distill", "doctor", "evaluate", "export",
    "export_labels", "fetch", "import_annotations", "label_doctor", "list_cache", "load", "models", "next_labels",
    "pipeline", "predict", "recipe", "retune", "review", "serve", "show_pipeline", "split", "sync_runs", "token",
    "track_ui", "tracked_runs", "train", "update", "validate", "verify",
]  # fmt: skip

_MODULES = {
    "Bundle": "lensmith.bundle.format",
    "Classifier": "lensmith.inference.classifier",
    "Prediction": "lensmith.inference.classifier",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_MODULES.get(name, "lensmith.api")), name)
    raise AttributeError(f"module 'lensmith' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
