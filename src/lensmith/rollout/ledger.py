"""The ledger of canary releases: one run of MLflow for each registered model, which all replicas read and write.

    param rollout.N                    what was begun; a param is written once, so the first to claim a number has it
    param rollout.N.decision           how it ended; the first decision stands
    tag   rollout.N.counts.REPLICA     what a replica has counted, each replica its own
    tag   rollout.N.applied            the aliases were moved accordingly

The run is named in the registered model's tag `lensmith.rollouts`. Several replicas may do everything here at once.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import ValidationError

from lensmith.errors import RegistryError, RolloutError
from lensmith.registry.client import code, experiment, problems
from lensmith.registry.models import versions
from lensmith.registry.references import CHALLENGER, CHAMPION, PREVIOUS
from lensmith.rollout.state import CanaryRelease, Decision

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT, LEDGER_TAG, OF_TAG = "lensmith-rollouts", "lensmith.rollouts", "lensmith.rollouts.of"
PARAM_CHARACTERS, TAG_CHARACTERS = 6000, 8000
"""MLflow's limits; beyond them it cuts values silently, which would leave broken JSON."""

_PACKED = "zlib:"
_Written = TypeVar("_Written", CanaryRelease, Decision)


@dataclass(frozen=True)
class LedgerEntry:
    """A canary release as the registry has it.

    Attributes:
        n: its number, from 1 on.
        rollout: what was begun.
        decision: how it ended; None while it is under way.
        applied: the aliases were moved by that decision.
        reports: replica → its last report; empty where it cannot be read.
    """

    n: int
    rollout: CanaryRelease
    decision: Decision | None = None
    applied: bool = False
    reports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def under_way(self) -> bool:
        """Begun and not decided."""
        return self.decision is None


class Ledger:
    """All canary releases of one registered model; made by `open`.

    Every method raises RegistryError as `lensmith.registry.client.problems` says.
    """

    def __init__(self, client: MlflowClient, name: str, run: str) -> None:
        self.client = client
        self.name = name
        self.run = run

    @classmethod
    def open(cls, client: MlflowClient, name: str, create: bool) -> Self | None:
        """The model's ledger; None where there is none yet, and `create` is off.

        Raises:
            RegistryError: no such model.
        """
        with problems(str(client.tracking_uri)):
            run = _named(client, name)
            if run and _restored(client, run):
                return cls(client, name, run)
            return cls(client, name, _agree(client, name)) if create else None

    def latest(self) -> LedgerEntry | None:
        """The last release that was begun; one call. None: there was none yet."""
        states = self._states()
        return states[-1] if states else None

    def history(self) -> list[LedgerEntry]:
        """All of them, the last one last; old reports are no longer there, their figures are in the decisions."""
        return self._states()

    def begin(self, rollout: CanaryRelease) -> CanaryRelease:
        """Claim the next number.

        Args:
            rollout: its id is made anew, from the name and the number.

        Returns:
            What the ledger now has.

        Raises:
            RolloutError: one is under way, another was quicker, or its labels' mapping is too long for MLflow.
        """
        last = self.latest()
        if last is not None:
            if last.under_way:
                raise _under_way(last.rollout)
            self.apply(last)
        n = last.n + 1 if last else 1
        begun = rollout.model_copy(update={"id": f"{self.name}-{n}"})
        text = begun.model_dump_json()
        if len(text) > PARAM_CHARACTERS:
            raise RolloutError(
                f"A canary release that takes at most {PARAM_CHARACTERS:,} characters in MLflow was expected.",
                f"This one takes {len(text):,}, {len(begun.mapping):,} mapped labels among them.",
                "Train the challenger with the champion's labels, so that no mapping is needed.",
            )
        standing = _claim(self.client, self.run, f"rollout.{n}", text)
        if standing != text:
            raise _under_way(CanaryRelease.model_validate_json(standing))
        self._forget_reports(before=n - 1)
        return begun

    def decide(self, n: int, decision: Decision) -> Decision:
        """End a release.

        Returns:
            The decision that stands, which may be another's.
        """
        standing = _claim(self.client, self.run, f"rollout.{n}.decision", _short(decision))
        return _read(Decision, standing, f"rollout.{n}.decision")

    def report(self, n: int, replica: str, report: Mapping[str, Any]) -> None:
        """Leave what a replica has counted since the release began, in the place of what it left before.

        Args:
            n: number of the release.
            replica: who it is; the same over restarts.
            report: plain values.

        Raises:
            RegistryError: longer than MLflow takes, packed.
        """
        text = json.dumps(report, separators=(",", ":"))
        if len(text) > TAG_CHARACTERS:
            text = _PACKED + base64.b85encode(zlib.compress(text.encode(), 9)).decode()
        if len(text) > TAG_CHARACTERS:
            raise RegistryError(
                f"A report of at most {TAG_CHARACTERS:,} characters was expected.",
                f"That of {replica} has {len(text):,}, packed.",
                "Leave out what is not counted.",
            )
        with problems(str(self.client.tracking_uri)):
            self.client.set_tag(self.run, f"rollout.{n}.counts.{_key(replica)}", text)

    def apply(self, state: LedgerEntry) -> None:
        """Move the aliases as a release was decided; once, so that what people set later stays.

        Promoted: `previous` names the old champion, `champion` the challenger. In any case `challenger` goes, where it
        names the challenger. Every step may be done twice, so one that died half-way is gone through again.
        """
        now = next((each for each in self._states() if each.n == state.n), state)
        rollout, decision = now.rollout, now.decision
        if decision is None or now.applied:
            return
        with problems(str(self.client.tracking_uri)):
            if decision.outcome == "promoted":
                self._point(PREVIOUS, rollout.champion)
                self._point(CHAMPION, rollout.challenger)
            aliases = self.client.get_registered_model(self.name).aliases
            if str(aliases.get(CHALLENGER, "")) == rollout.challenger:
                _twice(lambda: self.client.delete_registered_model_alias(self.name, CHALLENGER))
            _twice(lambda: self.client.set_tag(self.run, f"rollout.{now.n}.applied", decision.outcome))

    def _point(self, alias: str, version: str) -> None:
        _twice(lambda: self.client.set_registered_model_alias(self.name, alias, version))

    def _states(self) -> list[LedgerEntry]:
        with problems(str(self.client.tracking_uri)):
            data = self.client.get_run(self.run).data
        numbers = sorted(int(found[1]) for key in data.params if (found := re.fullmatch(r"rollout\.(\d+)", key)))
        reports: dict[int, dict[str, Mapping[str, Any]]] = {}
        for key, value in data.tags.items():
            if found := re.fullmatch(r"rollout\.(\d+)\.counts\.(.+)", key):
                reports.setdefault(int(found[1]), {})[found[2]] = _unpacked(value)
        states = []
        for n in numbers:
            decided = data.params.get(f"rollout.{n}.decision")
            states.append(
                LedgerEntry(
                    n,
                    _read(CanaryRelease, data.params[f"rollout.{n}"], f"rollout.{n}"),
                    _read(Decision, decided, f"rollout.{n}.decision") if decided else None,
                    f"rollout.{n}.applied" in data.tags,
                    reports.get(n, {}),
                )
            )
        return states

    def _forget_reports(self, before: int) -> None:
        """Old reports would come along whenever the state is read."""
        with problems(str(self.client.tracking_uri)):
            for key in self.client.get_run(self.run).data.tags:
                found = re.fullmatch(r"rollout\.(\d+)\.counts\..+", key)
                if found and int(found[1]) < before:
                    self.client.delete_tag(self.run, key)


def _named(client: MlflowClient, name: str) -> str:
    return str(client.get_registered_model(name).tags.get(LEDGER_TAG, ""))


def _agree(client: MlflowClient, name: str) -> str:
    """Make a ledger; of several that are made at once, all take the same.

    A tag has what was written last, so it cannot settle who was first. A param can: that of the run of the oldest
    version, which all of them know.
    """
    anchor = next((each.run for each in reversed(versions(client, name)) if _stage(client, each.run) == "active"), None)
    if anchor is None:
        raise RolloutError(
            f"A version of {name} that lensmith has pushed, and whose run is in MLflow, was expected.",
            "There is none.",
            "Push two bundles first (lensmith registry push BUNDLE), or restore a deleted run in MLflow's page.",
        )
    made = client.create_run(experiment(client, EXPERIMENT), run_name=f"rollouts of {name}", tags={OF_TAG: name})
    client.set_terminated(made.info.run_id)
    chosen = next(
        found
        for number in count(1)  # a ledger that somebody has deleted for good is followed by another
        if (found := _claim(client, anchor, _anchored(name, number), made.info.run_id)) == made.info.run_id
        or _restored(client, found)
    )
    if chosen != made.info.run_id:
        client.delete_run(made.info.run_id)
    _twice(lambda: client.set_registered_model_tag(name, LEDGER_TAG, chosen))
    return chosen


def _anchored(name: str, number: int) -> str:
    return f"{LEDGER_TAG}.{name}" if number == 1 else f"{LEDGER_TAG}.{name}/{number}"  # no name holds a slash


def _stage(client: MlflowClient, run: str) -> str:
    """`active` or `deleted`; empty where there is no such run, or none any longer."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_run(run).info.lifecycle_stage) if run else ""
    except MlflowException as error:
        if code(error) not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        return ""


def _restored(client: MlflowClient, run: str) -> bool:
    """Whether a ledger is there; one that somebody has deleted is taken back, since nothing could end otherwise."""
    stage = _stage(client, run)
    if stage == "deleted":
        client.restore_run(run)
    return stage != ""


def _claim(client: MlflowClient, run: str, key: str, text: str) -> str:
    """Write a param unless it is there; what is there then."""
    from mlflow.exceptions import MlflowException

    with problems(str(client.tracking_uri)):
        try:
            client.log_param(run, key, text)
        except MlflowException:
            standing = client.get_run(run).data.params.get(key)
            if standing is None:
                raise
            return str(standing)
    return text


def _twice(write: Callable[[], None]) -> None:
    """Databases refuse one of two that write the same for the first time at once; it finds the other's then."""
    from mlflow.exceptions import MlflowException

    try:
        write()
    except MlflowException:
        write()


def _under_way(rollout: CanaryRelease) -> RolloutError:
    return RolloutError(
        f"No canary release of {rollout.name} was expected to be under way.",
        f"{rollout.id} is: version {rollout.challenger} beside {rollout.champion}, since "
        f"{rollout.started:%Y-%m-%d %H:%M} UTC.",
        f"End it first: lensmith rollout promote {rollout.name}, or lensmith rollout abort {rollout.name}",
    )


def _short(decision: Decision) -> str:
    """As JSON that MLflow takes whole; what is too long is left out, and says so."""
    text = decision.model_dump_json()
    if len(text) > PARAM_CHARACTERS:
        text = decision.model_copy(update={"figures": {"left_out": "too long for the registry"}}).model_dump_json()
    if len(text) > PARAM_CHARACTERS:
        cut = {name: f"{getattr(decision, name)[:400]}…" for name in ("guard", "reason", "by")}
        text = decision.model_copy(update={**cut, "figures": {}}).model_dump_json()
    return text


def _unpacked(text: str) -> Mapping[str, Any]:
    """A report; empty where somebody has garbled it, which must not keep a challenger from going back."""
    try:
        if text.startswith(_PACKED):
            text = zlib.decompress(base64.b85decode(text.removeprefix(_PACKED))).decode()
        found = json.loads(text)
    except (ValueError, zlib.error):
        return {}
    return found if isinstance(found, dict) else {}


def _read(kind: type[_Written], text: str, key: str) -> _Written:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise _unreadable(key, error) from error


def _unreadable(key: str, error: Exception) -> RegistryError:
    return RegistryError(
        f"An entry that lensmith wrote was expected in the ledger's {key}.",
        f"It cannot be read ({str(error).partition(chr(10))[0]}).",
        "Somebody has changed it, or a later lensmith wrote it: upgrade, or end the release in MLflow's page.",
    )


def _key(replica: str) -> str:
    """A replica's name as MLflow takes it in a key."""
    return re.sub(r"[^\w.-]", "_", replica)[:200] or "_"
