"""Hot reload: another bundle takes the place of the active model while requests go on (model swap)."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from lensmith.errors import LensmithError
from lensmith.serving.auth import audit
from lensmith.serving.auth.jwt import Authenticator
from lensmith.serving.execution.admission import RETRY, AdmissionControl
from lensmith.serving.execution.loaded_model import ModelVersion
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.metrics.telemetry import Telemetry
from lensmith.serving.problems import ProblemError


class HotReload:
    """Swaps the active model, one swap at a time.

    Attributes:
        swap_everywhere: swaps in all processes of the service; None: this is the only one.
        keys: authenticator whose secrets and keys are read again, too; None: no authentication.
    """

    def __init__(self, models: ModelManager, admission: AdmissionControl, telemetry: Telemetry) -> None:
        self.swap_everywhere: Callable[[Path], Awaitable[ModelVersion]] | None = None
        self.keys: Authenticator | None = None
        self._models = models
        self._admission = admission
        self._telemetry = telemetry
        self._lock = asyncio.Lock()
        self._reloading: asyncio.Task[None] | None = None
        self._hangups = 0

    async def swap(self, path: Path) -> ModelVersion:
        """Load a bundle beside the active model, verify and warm it, and make it the active one in every process.

        Returns:
            Name and version of the new active model.

        Raises:
            BundleError: the bundle cannot be served; the active model stays.
            ServiceError: other processes cannot be started for it, or another swap is in progress there.
            ProblemError: another swap is under way, or the registry decides what is served.
        """
        self._refuse_registry()
        if self._lock.locked():
            raise ProblemError("swap-under-way", "Wait until the other one has ended.", RETRY)
        return await self._swap(path)

    async def _swap(self, path: Path | None) -> ModelVersion:
        """Swap once no other swap is under way; None: to the bundle that is then at the active model's path."""
        async with self._lock:
            path = path or self._models.active.path
            if self.swap_everywhere is not None:
                return await self.swap_everywhere(path)
            model, image_s = await self._models.load_and_warm(path, self._admission.pool.warm)
            self._models.active = model
            self._admission.set_image_time(image_s)
            self._telemetry.describe_models()
            return model.identity

    def on_hangup(self, arrived: Callable[[], bool] = lambda: False) -> None:
        """Let SIGHUP reload keys and the active model's bundle from where they were. Called on the event loop.

        Args:
            arrived: returns whether one arrived before this handles it; that is answered now.
        """
        with suppress(RuntimeError, ValueError, AttributeError):  # not in the main thread, or a system without it
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.hang_up)
        if arrived():
            self.hang_up()

    def hang_up(self) -> None:
        """Reload now, or once more after the reload that is under way: what is on disk may have changed since."""
        self._hangups += 1
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    def reload_keys(self) -> None:
        """Read secrets and keys again; those that cannot be used change nothing, and are reported."""
        if self.keys is None:
            return
        outcome, details = "done", {}
        try:
            details["keys"] = str(self.keys.reload_keys())
        except LensmithError as error:
            outcome, details["reason"] = "refused", str(error)
        audit.record("SIGHUP", None, "", outcome, **details)

    async def _reload(self) -> None:
        answered = 0
        while answered < self._hangups:
            answered = self._hangups  # several that arrived meanwhile are one
            self.reload_keys()
            outcome, details = "failed", {"bundle": str(self._models.active.path)}
            try:
                self._refuse_registry()
                outcome, details["model"] = "done", str(await self._swap(None))
            except (LensmithError, ProblemError) as error:
                outcome, details["reason"] = "refused", str(error)
            finally:
                audit.record("SIGHUP", None, "", outcome, **details)

    def _refuse_registry(self) -> None:
        if self._models.channel is not None:
            raise ProblemError(
                "follows-registry",
                f"{self._models.active.identity} comes from the registry. Change its alias there; the service follows.",
            )
