"""The models of a service: the one that answers, another beside it, and how one takes the other's place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lensmith.config import ServeSettings
from lensmith.errors import MissingPackageError
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.serving.execution.loaded_model import LoadedModel, ModelVersion


class ModelManager:
    """What is loaded. Changed on the event loop; a request keeps the model that it began with to its end.

    Args:
        active: answers where a request names no model.
        settings: engine and limits of models to come.
        beside: a second model, for requests that name it.
        channel: where the desired state of the registry is read; None: the settings name the bundles.

    Attributes:
        challenger: of a canary release that is under way.
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
    def load(cls, settings: ServeSettings, channel: SidecarChannel | None = None) -> ModelManager:
        """Open the bundles that the settings name, or in the place of the first what the registry says.

        Raises:
            BundleError: one is damaged, or answers differently from the exporter.
        """
        path, named = settings.bundle, None
        if channel is not None and (known := channel.desired_state()) is not None:
            path, named = known.path, ModelVersion(known.name, known.version)
        active = LoadedModel.load(path, settings.engine, settings.max_pixels, named=named)
        beside = None
        if settings.beside is not None:
            beside = LoadedModel.load(settings.beside, settings.engine, settings.max_pixels)
        return cls(active, settings, beside, channel)

    @classmethod
    def start_loading(cls, settings: ServeSettings, channel: SidecarChannel | None = None) -> Future[ModelManager]:
        """`load` in a thread: the web framework takes as long to import, and can be so meanwhile."""
        with closing_without_waiting() as thread:
            return thread.submit(cls.load, settings, channel)

    @property
    def all(self) -> tuple[LoadedModel, ...]:
        """The active one first."""
        return tuple(each for each in (self.active, self.challenger, self.beside) if each is not None)

    def find(self, name: str, version: str | None = None) -> LoadedModel | None:
        """The model of that name (and version), the active one first; None where there is none."""
        fitting = (each for each in self.all if each.name == name and version in (None, each.version))
        return next(fitting, None)

    async def load_and_warm(
        self, path: Path, warm: Callable[[LoadedModel], None], named: ModelVersion | None = None
    ) -> tuple[LoadedModel, float]:
        """Open, prove and warm a model that is to become the active one, in a thread of its own.

        Args:
            path: its bundle.
            warm: makes it ready for how images are worked on.
            named: what it is called; as the bundle says by default.

        Returns:
            The model, and the seconds that one image takes alone.

        Raises:
            BundleError: it is damaged, or answers differently from the exporter.
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
            started = time.perf_counter()
            model.answer(model.sample())
            return model, time.perf_counter() - started

        with closing_without_waiting() as thread:
            return await asyncio.get_running_loop().run_in_executor(thread, work)


@contextmanager
def closing_without_waiting() -> Iterator[ThreadPoolExecutor]:
    """A thread that ends with its work."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="load")
    try:
        yield pool
    finally:
        pool.shutdown(wait=False)
