"""lensmith: from a folder of labelled images to a fine-tuned classifier and a classification service.

    import lensmith
    trained = lensmith.train("photos/")
    lensmith.load(trained.bundle).predict(["new.jpg"])

Each verb of the command line is a function here. Importing lensmith loads no torch and no web framework: a name is
resolved when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lensmith.core.version import __version__ as __version__

if TYPE_CHECKING:
    from lensmith.api import bench as bench
    from lensmith.api import cached as cached
    from lensmith.api import check as check
    from lensmith.api import clear_cache as clear_cache
    from lensmith.api import clear_feedback as clear_feedback
    from lensmith.api import demo as demo
    from lensmith.api import deploy as deploy
    from lensmith.api import describe as describe
    from lensmith.api import diff as diff
    from lensmith.api import distill as distill
    from lensmith.api import doctor as doctor
    from lensmith.api import evaluate as evaluate
    from lensmith.api import export as export
    from lensmith.api import export_feedback as export_feedback
    from lensmith.api import fetch as fetch
    from lensmith.api import kept_uploads as kept_uploads
    from lensmith.api import load as load
    from lensmith.api import models as models
    from lensmith.api import pipeline as pipeline
    from lensmith.api import pipeline_show as pipeline_show
    from lensmith.api import predict as predict
    from lensmith.api import pull as pull
    from lensmith.api import push as push
    from lensmith.api import recipe as recipe
    from lensmith.api import registered as registered
    from lensmith.api import registered_version as registered_version
    from lensmith.api import retune as retune
    from lensmith.api import rollback as rollback
    from lensmith.api import rollout as rollout
    from lensmith.api import rollout_abort as rollout_abort
    from lensmith.api import rollout_promote as rollout_promote
    from lensmith.api import rollout_status as rollout_status
    from lensmith.api import rollout_watch as rollout_watch
    from lensmith.api import serve as serve
    from lensmith.api import set_alias as set_alias
    from lensmith.api import split as split
    from lensmith.api import sync as sync
    from lensmith.api import token as token
    from lensmith.api import track_ui as track_ui
    from lensmith.api import tracked as tracked
    from lensmith.api import train as train
    from lensmith.api import validate as validate
    from lensmith.api import verify as verify
    from lensmith.bundle.format import Bundle as Bundle
    from lensmith.errors import LensmithError as LensmithError
    from lensmith.inference.classifier import Classifier as Classifier
    from lensmith.inference.classifier import Prediction as Prediction


_VERBS: tuple[str, ...] = ("bench", "cached", "check", "clear_cache", "clear_feedback", "demo", "deploy", "describe")
_VERBS += ("diff", "distill", "doctor", "evaluate", "export", "export_feedback", "fetch", "kept_uploads", "load")
_VERBS += ("models", "pipeline", "pipeline_show", "predict", "pull", "push", "recipe", "registered")
_VERBS += ("registered_version", "retune", "rollback", "rollout_abort", "rollout_promote", "rollout_status")
_VERBS += ("rollout_watch", "serve", "set_alias", "split", "sync", "token", "track_ui", "tracked", "train")
_VERBS += ("validate", "verify")
_ROOMS = ("rollout",)
_TYPES = {
    "Bundle": "lensmith.bundle.format",
    "Classifier": "lensmith.inference.classifier",
    "LensmithError": "lensmith.errors",
    "Prediction": "lensmith.inference.classifier",
}

__all__ = ["Bundle", "Classifier", "LensmithError", "Prediction", "bench", "cached", "check", "clear_cache"]
__all__ += ["clear_feedback", "demo", "deploy", "describe", "diff", "distill", "doctor", "evaluate", "export"]
__all__ += ["export_feedback", "fetch", "kept_uploads", "load", "models", "pipeline", "pipeline_show", "predict"]
__all__ += ["pull", "push", "recipe", "registered", "registered_version", "retune", "rollback", "rollout"]
__all__ += ["rollout_abort", "rollout_promote", "rollout_status", "rollout_watch", "serve", "set_alias", "split"]
__all__ += ["sync", "token", "track_ui", "tracked", "train", "validate", "verify"]


class _Room(ModuleType):
    """A module that can be called: `lensmith.train(...)` is the verb, `lensmith.rollout.guards` a part of its room."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return getattr(import_module("lensmith.api"), self.__name__.rpartition(".")[2])(*args, **settings)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # The import system binds a room here once it is imported, over the verb of the same name; so let it be both.
        if name in _ROOMS and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"lensmith.{name}")
    if name in _VERBS:
        return getattr(import_module("lensmith.api"), name)
    if name in _TYPES:
        return getattr(import_module(_TYPES[name]), name)
    raise AttributeError(f"module 'lensmith' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
