"""Hot reload: another bundle takes the place of the active model while requests go on (model swap)."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from lensmith.errors import LensmithError
from lensmith.serving.auth import audit
from lensmith.serving.execution.admission import RETRY, AdmissionControl
from lensmith.serving.execution.loaded_model import ModelVersion
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.metrics.telemetry import Telemetry
from lensmith.serving.problems import ProblemError


class HotReload:
    """Swaps the active model, one swap at a time.

    Attributes:
        swap_everywhere: swaps in all processes of the service; None: this is the only one.
    """

    def __init__(self, models: ModelManager, admission: AdmissionControl, telemetry: Telemetry) -> None:
        self.swap_everywhere: Callable[[Path], Awaitable[ModelVersion]] | None = None
        self._models = models
        self._admission = admission
        self._telemetry = telemetry
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def swap(self, path: Path) -> ModelVersion:
        """Load a bundle beside the active model, verify and warm it, and make it the active one in every process.

        Returns:
            Name and version of the new active model.

        Raises:
            BundleError: the bundle cannot be served; the active model stays.
            ServiceError: other processes cannot be started for it, or another swap is in progress there.
            ProblemError: another swap is under way, or the registry decides what is served.
        """
        if self._models.channel is not None:
            raise ProblemError(
                "follows-registry",
                f"{self._models.active.identity} comes from the registry. Change its alias there; the service follows.",
            )
        if self._lock.locked():
            raise ProblemError("swap-under-way", "Wait until the other one has ended.", RETRY)
        async with self._lock:
            if self.swap_everywhere is not None:
                return await self.swap_everywhere(path)
            model, image_s = await self._models.load_and_warm(path, self._admission.pool.warm)
            self._models.active = model
            self._admission.set_image_time(image_s)
            self._telemetry.describe_models()
            return model.identity

    def on_hangup(self) -> None:
        """Let SIGHUP reload the active model's bundle from where it was. Called on the event loop."""
        with suppress(RuntimeError, ValueError):  # not in the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._start_reload)

    def _start_reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload())
        self._tasks.add(task)  # the loop itself holds only a weak reference
        task.add_done_callback(self._tasks.discard)

    async def _reload(self) -> None:
        path = self._models.active.path
        outcome, details = "failed", {"bundle": str(path)}
        try:
            outcome, details["model"] = "done", str(await self.swap(path))
        except (LensmithError, ProblemError) as error:
            outcome, details["reason"] = "refused", str(error)
        finally:
            audit.record("SIGHUP", None, "", outcome, **details)
