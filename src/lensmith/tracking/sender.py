"""One run's events into its MLflow run, from where they were left, so that each arrives exactly once.

What is sent and not yet written down as sent when a process is killed is sent again: metrics with the times of their
events, which makes them the same; everything else replaces itself.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from lensmith.registry import client
from lensmith.tracking import mlflow_events
from lensmith.tracking.artifacts import send_bundle, send_pictures
from lensmith.tracking.run_reader import STARTS, RunReader
from lensmith.tracking.state import TrackingState

Pairs = Iterable[tuple[str, str]]
KEY = "lensmith.key"
EVENTS_AT_ONCE = 50
"""MLflow takes 1,000 metrics in a request, an epoch has up to 16, and a tag comes of most other events."""
PARAMS_AT_ONCE = 90
"""MLflow takes 100."""


class Sender:
    """Sends a run; the MLflow run is made when there is something to tell.

    Args:
        run: its folder, of which nobody else sends meanwhile (`state.sending_lock`).
        state: what has been sent.
        uri: MLflow's tracking URI, with a password if it has one.
    """

    def __init__(self, run: Path, state: TrackingState, uri: str) -> None:
        self.run, self.state = run, state
        self._reader = RunReader(run)
        self._uri = uri
        self._client = client.client(uri)

    def send(self, over: bool) -> None:
        """Send all that has happened since.

        Args:
            over: nobody is to tell more; a run that did not say how it ended has failed.

        Raises:
            UnreachableError: MLflow does not answer; what arrived before is noted.
            RegistryError: what MLflow refuses.
        """
        with client.problems(self._uri):
            self._send_all(over)
        self.state = self.state.write(self.run, tried_at=time.time(), problem=None)

    def _send_all(self, over: bool) -> None:
        events = self._reader.events(self.state.offset)
        while some := list(islice(events, EVENTS_AT_ONCE)):
            if self.state.run_id is None and not any(event["event"] in STARTS for event, _ in some):
                break
            self._describe()
            self._send([event for event, _ in some], some[-1][1])
        if over and self.state.status == "RUNNING" and not self._reader.trained_now():
            self._client.set_tag(self._run_id, "failed", "its process ended without a word")
            self._end("FAILED", self._reader.changed_at_ms())

    @property
    def _run_id(self) -> str:
        assert self.state.run_id is not None
        return self.state.run_id

    def _describe(self) -> None:
        """Make the MLflow run, with settings and data, once."""
        if self.state.described:
            return
        described = self._reader.description()
        if self.state.run_id is None:
            self.state = self.state.write(self.run, run_id=self._found_or_made(described))
        self._log(tags=mlflow_events.of_description(described).items())
        there = self._client.get_run(self._run_id).data.params  # by a process that was killed before it was done
        given = iter([pair for pair in mlflow_events.params(described["settings"]).items() if pair[0] not in there])
        while some := list(islice(given, PARAMS_AT_ONCE)):
            self._log(params=some)
        self.state = self.state.write(self.run, described=True)

    def _found_or_made(self, described: dict[str, Any]) -> str:
        # The folder, also where a manifest in it was named: so is a bundle named, too.
        experiment = client.experiment(self._client, Path(described["data"]["root"]).name or "lensmith")
        found = self._client.search_runs([experiment], f"tags.`{KEY}` = '{self.state.key}'", max_results=1)
        if found:  # made by a process that was killed before it could write the id down
            return str(found[0].info.run_id)
        tags = {KEY: self.state.key, "lensmith.run": f"{socket.gethostname()}:{self.run.resolve()}"}
        tags |= {"mlflow.source.name": "lensmith train", "mlflow.source.type": "LOCAL"}
        with suppress(Exception):  # a user without a name
            tags["mlflow.user"] = getpass.getuser()
        begun = round(1000 * self.state.begun)
        made = self._client.create_run(experiment, start_time=begun, tags=tags, run_name=self.run.resolve().name)
        return str(made.info.run_id)

    def _send(self, events: list[dict[str, Any]], offset: int) -> None:
        happened = mlflow_events.tell(events, self.state.begun, self.state.epoch)
        self._log(happened.points, happened.tags.items())
        if happened.resumed:
            self._tell_changes()
        if happened.status is not None and happened.status != self.state.status:
            if happened.status == "RUNNING":
                self._client.update_run(self._run_id, status="RUNNING")
                self.state = self.state.write(self.run, status="RUNNING")
            else:
                self._end(happened.status, happened.status_at_ms)
        if happened.ends:
            send_pictures(self._client, self._run_id, self.run)
        if happened.bundle is not None:
            self._log(send_bundle(self._client, self._run_id, self.run / happened.bundle, happened.bundle_at_ms))
        self.state = self.state.write(self.run, offset=offset, epoch=happened.epoch)

    def _end(self, status: str, at_ms: int) -> None:
        self._client.set_terminated(self._run_id, status, at_ms)
        self.state = self.state.write(self.run, status=status)

    def _tell_changes(self) -> None:
        """What a resumed run does with other settings than it began with: params cannot be written twice."""
        before = self._client.get_run(self._run_id).data.params
        now = mlflow_events.params(self._reader.description()["settings"])
        changed = {name: value for name, value in now.items() if before.get(name) != value}
        self._log(tags=[(f"resumed.{name}", value) for name, value in changed.items()])

    def _log(self, points: Iterable[mlflow_events.MetricPoint] = (), tags: Pairs = (), params: Pairs = ()) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            self._run_id,
            metrics=[Metric(point.name, point.value, point.at_ms, point.step) for point in points],
            params=[Param(name, value) for name, value in params],
            tags=[RunTag(name, value) for name, value in tags],
        )
