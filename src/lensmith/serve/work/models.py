"""The models of a service: the one that answers, another beside it, and how one takes the other's place."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from lensmith.config import ServeSettings
from lensmith.serve.work.model import Model

POLITE = 10
"""Niceness of the thread that loads a model, so that the requests of the meantime come first."""


class Models:
    """What is loaded. Changed on the event loop; a request keeps the model that it began with to its end.

    Args:
        active: answers where a request names no model.
        settings: engine and limits of models to come.
        beside: answers where a request names it.
    """

    def __init__(self, active: Model, settings: ServeSettings, beside: Model | None = None) -> None:
        self.active = active
        self.beside = beside
        self._settings = settings

    @classmethod
    def load(cls, settings: ServeSettings) -> Models:
        """Open the bundles that the settings name.

        Raises:
            BundleError: one is damaged, or answers differently from the exporter.
        """
        loaded = [
            Model.load(path, settings.engine, settings.max_pixels)
            for path in (settings.bundle, settings.beside)
            if path is not None
        ]
        return cls(loaded[0], settings, loaded[1] if len(loaded) > 1 else None)

    @classmethod
    def begin_loading(cls, settings: ServeSettings) -> Future[Models]:
        """`load` in a thread: the web framework takes as long to import, and can be so meanwhile."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="load")
        loading = pool.submit(cls.load, settings)
        pool.shutdown(wait=False)
        return loading

    @property
    def all(self) -> tuple[Model, ...]:
        """The active one first."""
        return (self.active,) if self.beside is None else (self.active, self.beside)

    def find(self, name: str, version: str | None = None) -> Model | None:
        """The model of that name (and version), the active one first; None where there is none."""
        fitting = (each for each in self.all if each.name == name and version in (None, each.version))
        return next(fitting, None)

    def prepare(self, path: Path) -> Model:
        """Open, prove and warm a model that is to become the active one, in the caller's thread.

        Raises:
            BundleError: it is damaged, or answers differently from the exporter.
        """
        if hasattr(os, "setpriority"):  # of this thread alone, on Linux
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), POLITE)
        model = Model.load(path, self._settings.engine, self._settings.max_pixels)
        for _ in range(2):
            model.answer(model.sample())
        return model

    def activate(self, model: Model) -> None:
        """Let `model` answer from now on. The one before ends with its last request."""
        self.active = model
