"""Rollout controller: brings one process to the desired state: a new champion, a challenger, a rollback."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from lensmith.errors import LensmithError
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.rollout.state import CanaryRelease, DesiredState
from lensmith.serving.execution.admission import AdmissionControl
from lensmith.serving.execution.loaded_model import ModelVersion
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.metrics.rollout import RolloutMetrics
from lensmith.serving.metrics.telemetry import Telemetry
from lensmith.serving.rollout.canary import Canary
from lensmith.serving.rollout.split import CanarySplit

logger = logging.getLogger(__name__)

POLL_S = 0.25
"""Seconds between two reads of the channel."""
SILENT_S = 120.0
"""Seconds without a poll of the sidecar, beyond its interval, after which the registry counts as not followed."""
RETRY_S = 60.0
"""Seconds after which loading a champion is tried again: memory may have been short."""


class RolloutController:
    """Follows the desired state of the sidecar channel, which the sidecar polls every `poll_s` seconds.

    Attributes:
        state: the desired state that was read last.
        split: the canary split of the requests.
    """

    def __init__(
        self,
        models: ModelManager,
        channel: SidecarChannel,
        admission: AdmissionControl,
        telemetry: Telemetry,
        poll_s: float,
    ) -> None:
        self._metrics = RolloutMetrics(telemetry.registry)
        self._silence_s = poll_s + SILENT_S
        self.state = channel.desired_state()
        self.split = CanarySplit(models, admission, self._metrics)
        self._models = models
        self._channel = channel
        self._admission = admission
        self._telemetry = telemetry
        self._refused: tuple[ModelVersion, Path] | None = None
        self._retry_at = 0.0
        self._written_report: dict[str, Any] = {}
        self._write_error = ""
        self._last_poll, self._polled_at = 0, time.monotonic()

    @property
    def problem(self) -> str:
        """The reason why the registry is not followed; empty: it is."""
        silent_s = time.monotonic() - self._polled_at
        if self.state is not None and self.state.problem:
            return self.state.problem
        return f"The registry sidecar has not polled for {silent_s:.0f} s." if silent_s > self._silence_s else ""

    async def follow(self) -> None:
        """Read the channel and carry out its state until cancelled."""
        while True:
            try:
                if (state := self._channel.desired_state()) is not None:
                    self._metrics.update(self.state, state)
                    self.state = state
                    await self._update_champion(state)
                    await self._update_challenger(state)
                self._note_polls()
                await self._write_report()
            except Exception as error:  # the present models stay in service
                self._telemetry.failures.note("rollout", error)
            await asyncio.sleep(POLL_S)

    async def _update_champion(self, state: DesiredState) -> None:
        wanted, active = ModelVersion(state.name, state.version), self._models.active
        # In a registry that was replaced the same version may be another bundle.
        if (wanted, state.path) == (active.identity, active.path):
            return
        if (wanted, state.path) == self._refused and time.monotonic() < self._retry_at:
            return
        challenger = self.split.canary.challenger if self.split.canary else None
        try:
            if challenger is not None and (challenger.identity, challenger.path) == (wanted, state.path):
                # In a thread, with the reading of the sample: requests are answered meanwhile.
                image_s = await asyncio.to_thread(lambda: challenger.classify(challenger.sample()))
                model = challenger
            else:
                model, image_s = await self._models.load_and_warm(state.path, self._admission.pool.warm, wanted)
        except Exception as error:
            self._refused, self._retry_at = (wanted, state.path), time.monotonic() + RETRY_S
            logger.error("%s cannot be served, %s stays in service: %s", wanted, active.identity, error)
            return
        self._refused = None
        self._models.active = model
        self._admission.set_image_time(image_s)
        logger.info("%s is in service", wanted)
        self._telemetry.describe_models()

    async def _update_challenger(self, state: DesiredState) -> None:
        rollout, canary = state.rollout, self.split.canary
        if rollout is None:
            self._end_canary()
        elif state.decision is not None:
            # A promoted challenger keeps its share until the alias names it, and then need not be loaded again.
            if state.decision.outcome != "promoted" or state.version != rollout.champion:
                self._end_canary()
        elif (canary is None or canary.rollout.id != rollout.id) and state.challenger_path is not None:
            self._end_canary()
            await self._begin_canary(rollout, state.challenger_path)

    async def _begin_canary(self, rollout: CanaryRelease, path: Path) -> None:
        champion, identity = self._models.active, ModelVersion(rollout.name, rollout.challenger)
        try:
            model, _ = await self._models.load_and_warm(path, self._admission.pool.warm, identity)
        except Exception as error:
            self.split.canary = Canary(rollout, champion, None)
            self.split.canary.stop("load", str(error) if isinstance(error, LensmithError) else repr(error))
            return
        self.split.canary = Canary(rollout, champion, model)
        self._models.challenger = model
        logger.info("%s gets %g %% of the requests%s", identity, rollout.share, " as copies" * rollout.shadow)
        for each in (champion, model):
            if not each.has_image_hashes:
                logger.warning(
                    "%s does not know all images that it learnt from: feedback on them flatters it", each.identity
                )
        self._telemetry.describe_models()

    def _end_canary(self) -> None:
        if self.split.canary is not None:
            self.split.canary = self._models.challenger = None
            self._telemetry.describe_models()

    def _note_polls(self) -> None:
        """Notice whether the sidecar still polls; by this process's clock, as the system's may jump."""
        last_poll = self._channel.last_poll()
        if last_poll != self._last_poll:
            self._last_poll, self._polled_at = last_poll, time.monotonic()
        self._metrics.set_followed(not self.problem)

    async def _write_report(self) -> None:
        """Write this process's counts to the channel where they have changed, or were removed."""
        if self.split.canary is None:
            return
        report = self.split.canary.report.as_dict()
        if report == self._written_report and self._channel.has_report():
            return
        try:
            await asyncio.to_thread(self._channel.write_report, report)
        except OSError as error:  # such as a full disk; the next report has these counts, too
            if str(error) != self._write_error:
                logger.error("the counts of a canary release cannot be written: %s", error)
            self._write_error = str(error)
        else:
            self._written_report, self._write_error = report, ""
