"""MLflow run of a rollout ledger: found, created once by several replicas, written so that the first value is kept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from lensmith.errors import RolloutError
from lensmith.registry.client import experiment
from lensmith.registry.mlflow_errors import code, translate_errors
from lensmith.registry.models import versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT, LEDGER_TAG, OF_TAG = "lensmith-rollouts", "lensmith.rollouts", "lensmith.rollouts.of"


def find_run(client: MlflowClient, name: str) -> str | None:
    """The id of a model's ledger run; None where it has none. A deleted one is restored."""
    run = str(client.get_registered_model(name).tags.get(LEDGER_TAG, ""))
    return run if _restored(client, run) else None


def create_run(client: MlflowClient, name: str) -> str:
    """Create a model's ledger run; of several that are created at once, all replicas use the same.

    A tag holds what was written last, so it cannot tell which was first. A param can: one of the oldest version's run,
    which all replicas know.
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
        for number in count(1)  # a ledger that was deleted permanently is followed by another
        if (found := write_once(client, anchor, _anchored(name, number), made.info.run_id)) == made.info.run_id
        or _restored(client, found)
    )
    if chosen != made.info.run_id:
        client.delete_run(made.info.run_id)
    retry_once(lambda: client.set_registered_model_tag(name, LEDGER_TAG, chosen))
    return chosen


def _anchored(name: str, number: int) -> str:
    return f"{LEDGER_TAG}.{name}" if number == 1 else f"{LEDGER_TAG}.{name}/{number}"  # no name holds a slash


def _stage(client: MlflowClient, run: str) -> str:
    """A run's lifecycle stage, `active` or `deleted`; empty where there is no such run."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_run(run).info.lifecycle_stage) if run else ""
    except MlflowException as error:
        if code(error) not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        return ""


def _restored(client: MlflowClient, run: str) -> bool:
    """Whether a ledger exists; a deleted one is restored, since its rollout could not end otherwise."""
    stage = _stage(client, run)
    if stage == "deleted":
        client.restore_run(run)
    return stage != ""


def write_once(client: MlflowClient, run: str, key: str, text: str) -> str:
    """Write a param unless it exists, and return its value."""
    from mlflow.exceptions import MlflowException

    with translate_errors(str(client.tracking_uri)):
        try:
            client.log_param(run, key, text)
        except MlflowException:
            standing = client.get_run(run).data.params.get(key)
            if standing is None:
                raise
            return str(standing)
    return text


def retry_once(write: Callable[[], None]) -> None:
    """Repeat a failed write: databases refuse one of two first writes of the same key at once."""
    from mlflow.exceptions import MlflowException

    try:
        write()
    except MlflowException:
        write()
