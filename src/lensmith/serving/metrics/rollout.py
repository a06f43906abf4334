"""Prometheus metrics of canary releases and of the registry."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from lensmith.rollout.state import DesiredState


class RolloutMetrics:
    """Metrics of a service that follows a registry.

    Attributes:
        requests: counter with the labels `role` and `outcome`.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        what = "Requests while a canary release was under way, by role and by whether that model could answer."
        self.requests = Counter("lensmith_rollout_requests", what, ["role", "outcome"], registry=registry)
        what = "Ends of canary releases, by outcome; each process counts them."
        self._decisions = Counter("lensmith_rollout_decisions", what, ["outcome"], registry=registry)
        gauge = partial(Gauge, registry=registry)
        what = "Share of the requests that a challenger gets, or copies of them, 0..1."
        self._share = gauge("lensmith_rollout_share", what, multiprocess_mode="livemax")
        what = "Whether a canary release is under way: 1 or 0."
        self._under_way = gauge("lensmith_rollout_under_way", what, multiprocess_mode="livemax")
        what = "Whether the registry answers: 1 or 0."
        self._up = gauge("lensmith_registry_up", what, multiprocess_mode="livemin")
        self._up.set(1)
        what = "Whether the alias in the registry could be followed at the last poll: 1 or 0."
        self._followed = gauge("lensmith_registry_followed", what, multiprocess_mode="livemin")
        self._followed.set(1)
        for outcome in ("promoted", "rolled_back", "aborted"):
            self._decisions.labels(outcome)  # shown as 0 before the first

    def set_followed(self, is_followed: bool) -> None:
        """Set whether the registry is followed."""
        self._followed.set(int(is_followed))

    def update(self, before: DesiredState | None, state: DesiredState) -> None:
        """Set the metrics by a new desired state, and count a decision that came since the state before."""
        self._up.set(int(state.reachable))
        rollout = state.rollout if state.decision is None else None
        self._under_way.set(int(rollout is not None))
        self._share.set(rollout.share / 100 if rollout else 0)
        # Not a decision from before this service started.
        was_under_way = before is not None and before.rollout is not None and before.decision is None
        if was_under_way and state.decision is not None:
            self._decisions.labels(state.decision.outcome).inc()
