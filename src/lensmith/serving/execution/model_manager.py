"""The models of a service: the active one, another beside it, a challenger; loading in the background (hot reload)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lensmith.config import ServeSettings
from lensmith.errors import MissingPackageError
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.serving.execution.loaded_model import LoadedModel, ModelVersion
from lensmith.serving.formats import formats_note

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ModelManager:
    """The loaded models. Changed on the event loop only; a request uses the model that it began with to its end.

    Attributes:
        active: the model for requests that name none.
        beside: a second model, for requests that name it.
        channel: sidecar channel, from which the registry's desired state is read; None: the settings name the bundles.
        challenger: the challenger of a canary release under way; None: there is none.
    """

    def __init__(
        self,
        active: LoadedModel,
        settings: ServeSettings,
        beside: LoadedModel | None = None,
        channel: SidecarChannel | None = None,
    ) -> None:
        self.active = active
        self.beside = beside
        self.challenger: LoadedModel | None = None
        self.channel = channel
        self._settings = settings

    @classmethod
    def load(
        cls,
        settings: ServeSettings,
        channel: SidecarChannel | None = None,
        located: Callable[[Path], Path] = lambda path: path,
    ) -> ModelManager:
        """Open the bundles that the settings name, or for the active model the one that the registry names.

        Args:
            settings: the service's settings.
            channel: sidecar channel; None: the settings name the bundles.
            located: path of a bundle → path to read it from, which is another where a snapshot was taken.

        Raises:
            BundleError: one is damaged, or answers differently from the exporter.
        """
        path, named = settings.bundle, None
        if channel is not None and (known := channel.desired_state()) is not None:
            path, named = known.path, ModelVersion(known.name, known.version)
        active = LoadedModel.load(located(path), settings.engine, settings.max_pixels, named=named)
        active.path = path
        beside = None
        if settings.beside is not None:
            beside = LoadedModel.load(located(settings.beside), settings.engine, settings.max_pixels)
        return cls(active, settings, beside, channel)

    @classmethod
    def start_loading(
        cls,
        settings: ServeSettings,
        channel: SidecarChannel | None = None,
        located: Callable[[Path], Path] = lambda path: path,
    ) -> Future[ModelManager]:
        """`load` in a thread: the web framework takes as long to import, and is imported meanwhile."""
        return _in_thread(lambda: cls.load(settings, channel, located))

    @property
    def all(self) -> tuple[LoadedModel, ...]:
        """All loaded models, the active one first."""
        return tuple(each for each in (self.active, self.challenger, self.beside) if each is not None)

    def find(self, name: str, version: str | None = None) -> LoadedModel | None:
        """The model of that name (and version), the active one first; None where there is none."""
        return next((each for each in self.all if each.name == name and version in (None, each.version)), None)

    async def load_and_warm(
        self, path: Path, warm: Callable[[LoadedModel], None], named: ModelVersion | None = None
    ) -> tuple[LoadedModel, float]:
        """Open, verify and warm a model in a thread of its own, while others answer.

        A note on formats that it was trained on and the service does not take goes to the log.

        Returns:
            The model, and the seconds that one image takes alone.

        Raises:
            BundleError: the bundle is damaged, or its answers differ from the exporter's.
            MissingPackageError: an engine's package is not installed.
        """

        def work() -> tuple[LoadedModel, float]:
            try:
                model = LoadedModel.load(
                    path, self._settings.engine, self._settings.max_pixels, low_priority=True, named=named
                )
            except ModuleNotFoundError as error:
                raise MissingPackageError.of(error) from error
            warm(model)
            if note := formats_note(model.trained_formats, self._settings.formats):
                logger.warning("%s: %s", model.identity, note)
            return model, model.classify(model.sample())

        return await asyncio.wrap_future(_in_thread(work))


def _in_thread(work: Callable[[], T]) -> Future[T]:
    """Start work in a thread of its own, which ends with it."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="load")
    future = thread.submit(work)
    thread.shutdown(wait=False)
    return future
