"""Sender: sends a run's events to its MLflow run, from the last offset on, so that each arrives exactly once.

A process that is killed between sending and writing the offset makes the next one send the same again: metrics with the
times of their events, which MLflow recognises as the same; everything else replaces itself.
"""

import getpass
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.core.files import sha256
from lensmith.errors import BundleError
from lensmith.registry import client
from lensmith.registry.mlflow_errors import translate_errors
from lensmith.registry.models import RUN_TAG, artifact_path
from lensmith.tracking import mlflow_events
from lensmith.tracking.mlflow_events import MAX_TAG, MetricPoint
from lensmith.tracking.run_reader import EVENTS, STARTS, is_training, read_description, read_events
from lensmith.tracking.state import TrackingState

Pairs = Iterable[tuple[str, str]]
KEY = "lensmith.key"
EVENTS_AT_ONCE = 50
"""Largest number of events in a request: MLflow takes 1,000 metrics, an epoch has up to 16, most others make a tag."""
PARAMS_AT_ONCE = 90
"""Largest number of params in a request; MLflow takes 100."""
PLOTS, REPORT = ("curves.png", "memory.png"), "report.html"


class Sender:
    """Sends one run whose folder the caller has locked (`sending_lock`); the first event creates its MLflow run."""

    def __init__(self, run: Path, state: TrackingState, uri: str) -> None:
        self.run, self.state = run, state
        self._uri = uri
        self._client = client.client(uri)

    def send(self, over: bool) -> None:
        """Send all new events.

        Args:
            over: True where no more events will come; a run without a final event has then failed.

        Raises:
            RegistryUnreachableError: MLflow does not answer; the state has what arrived before.
            RegistryError: MLflow refuses a request.
        """
        with translate_errors(self._uri):
            events = read_events(self.run, self.state.offset)
            while batch := list(islice(events, EVENTS_AT_ONCE)):
                if self.state.run_id is None and not any(event["event"] in STARTS for event, _ in batch):
                    break
                self._describe()
                self._send([event for event, _ in batch], batch[-1][1])
            if over and self.state.status == "RUNNING" and not is_training(self.run):
                self._client.set_tag(self._run_id, "failed", "its process ended without a final event")
                self._end("FAILED", round(1000 * (self.run / EVENTS).stat().st_mtime))
        self.state = self.state.write(self.run, tried_at=time.time(), problem=None)

    @property
    def _run_id(self) -> str:
        assert self.state.run_id is not None
        return self.state.run_id

    def _describe(self) -> None:
        """Create the MLflow run with settings and data, once."""
        if self.state.described:
            return
        described = read_description(self.run)
        if self.state.run_id is None:
            self.state = self.state.write(self.run, run_id=self._find_or_create(described))
        self._log(tags=mlflow_events.description_tags(described).items())
        there = self._client.get_run(self._run_id).data.params  # from a process that was killed meanwhile
        given = iter([pair for pair in mlflow_events.params(described["settings"]).items() if pair[0] not in there])
        while batch := list(islice(given, PARAMS_AT_ONCE)):
            self._log(params=batch)
        self.state = self.state.write(self.run, described=True)

    def _find_or_create(self, described: dict[str, Any]) -> str:
        # The data folder's name, also where the data is a manifest in it, as bundles are named.
        experiment = client.experiment(self._client, Path(described["data"]["root"]).name or "lensmith")
        found = self._client.search_runs([experiment], f"tags.`{KEY}` = '{self.state.key}'", max_results=1)
        if found:  # created by a process that was killed before it could write the id
            return str(found[0].info.run_id)
        tags = {KEY: self.state.key, "lensmith.run": f"{socket.gethostname()}:{self.run.resolve()}"}
        tags |= {"mlflow.source.name": "lensmith train", "mlflow.source.type": "LOCAL"}
        with suppress(Exception):  # a user without a name
            tags["mlflow.user"] = getpass.getuser()
        begun = round(1000 * self.state.begun)
        made = self._client.create_run(experiment, start_time=begun, tags=tags, run_name=self.run.resolve().name)
        return str(made.info.run_id)

    def _send(self, events: list[dict[str, Any]], offset: int) -> None:
        update = mlflow_events.translate(events, self.state.begun, self.state.epoch)
        self._log(update.points, update.tags.items())
        if update.resumed:
            self._tag_changed_settings()
        if update.status is not None and update.status != self.state.status:
            if update.status == "RUNNING":
                self._client.update_run(self._run_id, status="RUNNING")
                self.state = self.state.write(self.run, status="RUNNING")
            else:
                self._end(update.status, update.status_at_ms)
        if update.ends:
            for plot in (self.run / name for name in PLOTS):
                if plot.exists():
                    self._client.log_artifact(self._run_id, str(plot))
        if update.bundle is not None:
            self._send_bundle(self.run / update.bundle, update.bundle_at_ms)
        self.state = self.state.write(self.run, offset=offset, epoch=update.epoch)

    def _send_bundle(self, bundle: Path, at_ms: int) -> None:
        """Log a bundle, its report and its metrics; one that is missing or damaged by now is left out.

        It is logged under its own hash, where `lensmith registry push` finds it for a version: a later export of the
        same run must not change it.
        """
        if not (bundle / MANIFEST).is_file():
            return
        content = sha256(bundle / MANIFEST)
        try:
            manifest = Bundle.load(bundle).manifest
        except BundleError as error:  # a retry would fail, too
            self._client.set_tag(self._run_id, "bundle", f"left out: {error}"[:MAX_TAG])
            return
        self._client.log_artifacts(self._run_id, str(bundle), artifact_path(content))
        if (bundle / REPORT).is_file():
            self._client.log_artifact(self._run_id, str(bundle / REPORT))
        step, engine = int(manifest.recipe.get("best_epoch") or 0), manifest.engines[0]
        figures: dict[str, Any] = {**manifest.metrics, "latency_ms": engine.latency_ms, "bytes": engine.bytes}
        self._log(
            [
                MetricPoint(f"bundle/{name}", float(value), at_ms, step)
                for name, value in figures.items()
                if isinstance(value, (int, float))
            ],
            [(f"{RUN_TAG}{content[:16]}", artifact_path(content))],
        )

    def _end(self, status: str, at_ms: int) -> None:
        self._client.set_terminated(self._run_id, status, at_ms)
        self.state = self.state.write(self.run, status=status)

    def _tag_changed_settings(self) -> None:
        """Tag a resumed run with the settings that differ from its first ones: params cannot be written twice."""
        before = self._client.get_run(self._run_id).data.params
        now = mlflow_events.params(read_description(self.run)["settings"])
        changed = {name: value for name, value in now.items() if before.get(name) != value}
        self._log(tags=[(f"resumed.{name}", value) for name, value in changed.items()])

    def _log(self, points: Iterable[MetricPoint] = (), tags: Pairs = (), params: Pairs = ()) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            self._run_id,
            metrics=[Metric(*point) for point in points],
            params=[Param(name, value) for name, value in params],
            tags=[RunTag(name, value) for name, value in tags],
        )
