"""Rollback and promotion by one replica: assesses the counts of all replicas, and writes its decision to the ledger."""

from collections.abc import Callable

from lensmith.rollout.assessment import Assessment
from lensmith.rollout.guards import RolloutGuards
from lensmith.rollout.ledger import Ledger, LedgerEntry
from lensmith.rollout.report import SEEN, RolloutReport, read_reports
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.rollout.state import CanaryRelease, Decision, DesiredState, now


class RolloutDecider:
    """Ends rollouts, in the name of a replica; warns of other replicas' reports that cannot be read."""

    def __init__(self, channel: SidecarChannel, replica: str, warn: Callable[[str], None]) -> None:
        self._channel = channel
        self._replica = replica
        self._warn = warn
        self._guards: RolloutGuards | None = None
        self._other_reports: list[RolloutReport] = []
        self._pending: dict[str, Decision] = {}  # rollout → decision that was made offline and is not in the ledger yet

    def own_report(self, rollout: CanaryRelease) -> RolloutReport:
        """The sum of the reports of this service's processes."""
        return RolloutReport.merge(rollout.id, self._channel.read_reports())

    def decide(
        self, ledger: Ledger, entry: LedgerEntry, state: DesiredState, champion: str
    ) -> tuple[DesiredState, bool]:
        """Report this service's counts to the latest entry of the ledger, assess all counts, and carry out a decision.

        Returns:
            The state with decision and comparison, and whether aliases were moved now.

        Raises:
            RegistryError: the ledger cannot be written.
        """
        rollout, decision = entry.rollout, entry.decision
        if decision is None:
            own = self.own_report(rollout)
            others = {replica: report for replica, report in entry.reports.items() if replica != self._replica}
            self._other_reports = read_reports(others, self._warn)
            wanted, assessment = self._assess(rollout, own, state, champion)
            # With what this replica's guards see: the windows of latency are known here only.
            report = {**own.as_dict(), "at": now().isoformat(), SEEN: assessment.seen}
            ledger.report(entry.n, self._replica, report)
            state = state.model_copy(update={"comparison": assessment.figures})
            wanted = self._pending.get(rollout.id, wanted)
            if wanted is None:
                return state, False
            decision = ledger.decide(entry.n, wanted)
        self._pending.clear()
        if not entry.applied:
            ledger.apply(entry)
        comparison = state.comparison or decision.figures
        return state.model_copy(update={"decision": decision, "comparison": comparison}), not entry.applied

    def decide_offline(self, state: DesiredState, champion: str) -> DesiredState:
        """Roll a failing challenger back while the registry is unreachable; nothing is promoted then."""
        rollout = state.rollout
        if rollout is None or state.decision is not None:
            return state
        decision, assessment = self._assess(rollout, self.own_report(rollout), state, champion)
        if decision is not None and decision.outcome == "rolled_back":
            self._pending.setdefault(rollout.id, decision)
        decision = self._pending.get(rollout.id)
        return state.model_copy(update={"decision": decision, "comparison": assessment.figures})

    def _assess(
        self, rollout: CanaryRelease, own: RolloutReport, state: DesiredState, champion: str
    ) -> tuple[Decision | None, Assessment]:
        """The decision that the counts call for; None: the rollout continues."""
        if self._guards is None or self._guards.rollout.id != rollout.id:
            self._guards = RolloutGuards(rollout)
        total = RolloutReport.merge(rollout.id, [own, *self._other_reports])
        assessment = self._guards.assess(total.champion, total.challenger)
        outcome, guard, reason = None, assessment.guard, assessment.reason
        if total.stop is not None:
            outcome, guard, reason = "rolled_back", total.stop.guard, total.stop.reason
        elif state.trouble:
            outcome, guard, reason = "rolled_back", "load", state.trouble
        elif champion != rollout.champion:
            outcome, guard = "aborted", "champion"
            reason = f"the champion changed from version {rollout.champion} to {champion} meanwhile"
        elif assessment.action != "hold":
            outcome = "promoted" if assessment.action == "promote" else "rolled_back"
        if outcome is None:
            return None, assessment
        decision = Decision.model_validate(
            {"outcome": outcome, "guard": guard, "reason": reason, "by": self._replica, "figures": assessment.figures}
        )
        return decision, assessment
