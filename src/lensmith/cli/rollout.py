"""`lensmith rollout`: canary releases; a challenger beside the champion, on a share of its requests."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from lensmith import api
from lensmith.cli import VERBS
from lensmith.cli.options import Json, Output, function_for, group
from lensmith.cli.output import can_ask, is_confirmed, make_table, print_json, print_line, show
from lensmith.cli.registry import Uri
from lensmith.config import RolloutSettings
from lensmith.errors import ObjectionError

if TYPE_CHECKING:
    from lensmith.rollout.state import CanaryRelease, Decision
    from lensmith.rollout.status import RolloutStatus

WATCH_S = 2.0
"""Seconds between two updates of --watch; replicas report as often as they poll, every 5 s by default."""

_STYLES = {
    "fine": "green", "watching": "yellow", "not compared": "yellow", "over": "red", "promoted": "green",
    "rolled_back": "red", "aborted": "yellow", "under way": "cyan",
}  # fmt: skip

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Registered model, as flowers.")]
_Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit trail.", show_default=False)]


def start(given: dict[str, Any]) -> Output:
    """Start a canary release of a version.

    The version answers a share of the champion's requests. Every service that follows NAME@champion takes part. Guards
    roll the version back automatically; `lensmith rollout promote` or `--auto-promote` promotes it. Both bundles are
    verified first.

    Example: `lensmith rollout start flowers --version 7 --share 10 --auto-promote`
    """
    release = api.Rollout(given.pop("name"), given.pop("tracking_uri", None))
    started = release.start(**given)
    yield started
    what = f"works on copies of {started.share:g} %" if started.shadow else f"gets {started.share:g} %"
    print_line(
        (started.id, "bold"), f": version {started.challenger} {what} of the requests of version {started.champion}."
    )
    print_line(f"Next: lensmith rollout status {started.name} --watch")


def status(
    name: _Name,
    watch: Annotated[bool, typer.Option("--watch", help="Update every two seconds until it has ended.")] = False,
    tracking_uri: Uri = None,
    as_json: Json = False,
) -> None:
    """Compare champion and challenger.

    Shows the figures of both with 95 % intervals, guards, replicas and earlier rollouts.
    With `--watch` and `--json` each update is one line.
    """
    release = api.Rollout(name, tracking_uri)
    found = _until_ended(release) if watch else iter([release.status()])
    if as_json:
        for each in found:
            print_json(each)
    elif not watch:
        show(_render(next(found)))
    else:
        from rich.live import Live

        with Live(auto_refresh=False) as live:
            for each in found:
                live.update(_render(each), refresh=True)


def promote(
    name: _Name,
    reason: _Reason = "",
    force: Annotated[bool, typer.Option("--force", help="Promote it although the guards object.")] = False,
    tracking_uri: Uri = None,
) -> Output:
    """End the rollout: the challenger becomes the champion.

    Where the guards object, a terminal is asked; elsewhere `--force` is needed. The alias `previous` then names the old
    champion.
    """
    release = api.Rollout(name, tracking_uri)
    try:
        ended = release.promote(reason, force)
    except ObjectionError as objection:
        if not can_ask() or not is_confirmed(f"{objection.arrived}\nPromote it all the same?"):
            raise
        ended = release.promote(reason, force=True)
    yield from _end(*ended)


def abort(name: _Name, reason: _Reason = "", tracking_uri: Uri = None) -> Output:
    """End the rollout: the champion answers all requests again."""
    yield from _end(*api.Rollout(name, tracking_uri).abort(reason))


def _until_ended(release: api.Rollout) -> Iterator[RolloutStatus]:
    """The status every `WATCH_S` seconds, until no release is under way."""
    for found in release.watch():
        yield found
        if found.rollout is None or found.decision is not None:
            return
        time.sleep(WATCH_S)


def _end(rollout: CanaryRelease, decision: Decision) -> Output:
    yield {"rollout": rollout, "decision": decision}
    stays = rollout.challenger if decision.outcome == "promoted" else rollout.champion
    print_line((rollout.id, "bold"), f" is {decision.outcome}: version {stays} is the champion of {rollout.name}.")


def _render(found: RolloutStatus) -> RenderableType:
    rollout, decision = found.rollout, found.decision
    if rollout is None:
        return Text(
            f"There has been no canary release of {found.name}; its champion is version {found.champion or 'none'}."
        )
    how = "copies of " if rollout.shadow else ""
    parts: list[RenderableType] = [
        Text.assemble(
            (rollout.id, "bold"),
            f": version {rollout.challenger} beside champion {rollout.champion}, {how}{rollout.share:g} % of requests, "
            f"shared out by {rollout.sticky}, since {_dated(rollout)} UTC, started by {rollout.by or 'somebody'}",
        ),
        _outcome(decision),
        Text(),
        _compared(found.comparison, rollout),
    ]
    if guards := found.comparison.get("guards"):
        rows = [
            (name, Text(guard["state"], _STYLES.get(guard["state"], "")), _evidence(guard), guard["reason"])
            for name, guard in guards.items()
        ]
        parts += [Text(), make_table(("guard", "state", "evidence", "why"), rows)]
        if windows := found.comparison.get("latency_windows"):
            parts += [Text(), _windows(windows)]
        if decision is None:
            seen_by = found.comparison.get("seen_by")
            action = str(found.comparison.get("action", "hold")).replace("_", " ")
            parts += [Text(), Text(f"{action}: {found.comparison.get('reason', '')}")]
            parts.append(
                Text(f"as the guards of {seen_by} see it" if seen_by else "no replica has reported its guards")
            )
    if found.replicas:
        replicas = [
            (each.name, _age(each.age_s), each.champion, each.challenger, each.stopped) for each in found.replicas
        ]
        parts += [Text(), make_table(("replica", "reported", "to champion", "to challenger", "stopped by"), replicas)]
    elif decision is None:
        parts += [Text(), Text(f"No service that follows {found.name}@champion has reported yet.", "yellow")]
    if found.history:
        earlier = [
            (each.id, f"{each.challenger} beside {each.champion}", _dated(each), end and end.outcome, _why(end))
            for each, end in found.history
        ]
        parts += [Text(), make_table(("earlier", "versions", "started", "outcome", "why"), earlier)]
    return Group(*parts)


def _outcome(decision: Decision | None) -> Text:
    if decision is None:
        return Text("under way", _STYLES["under way"])
    details = f" {decision.at:%Y-%m-%d %H:%M} UTC by {decision.by or 'somebody'} ({decision.guard}): {decision.reason}"
    return Text.assemble((decision.outcome.replace("_", " "), _STYLES[decision.outcome]), details)


def _compared(comparison: Mapping[str, Any], rollout: CanaryRelease) -> RenderableType:
    sides = [comparison.get(role, {}) for role in ("champion", "challenger")]
    lines: list[tuple[Any, ...]] = [
        ("requests", *(f"{side.get('requests', 0):,}" for side in sides)),
        ("failed", *(_share(side, "error_rate") for side in sides)),
        ("P50", *(_ms(side, "p50_ms") for side in sides)),
        ("P99", *(_ms(side, "p99_ms") for side in sides)),
        ("P99 of its own work", *(_ms(side, "work_p99_ms") for side in sides)),
        ("answers with feedback", *(f"{side.get('labels', 0):,}" for side in sides)),
        ("correct by feedback", *(_share(side, "accuracy") for side in sides)),
    ]
    if comparison.get("class_shift") is not None:
        lines.append(("answers of another class", "", f"{comparison['class_shift']:.1%}"))
    if comparison.get("compared"):
        lines.append(("both agree", "", f"{_share(comparison, 'agreement')} of {comparison['compared']:,} images"))
    return make_table(("", f"champion {rollout.champion}", f"challenger {rollout.challenger}"), lines)


def _evidence(guard: Mapping[str, Any]) -> str:
    """Evidence against the challenger, and the limit from which on it is rolled back."""
    evidence, limit = guard.get("evidence"), guard.get("limit")
    return "–" if evidence is None or limit is None else f"{evidence:g} of {limit:g}"


def _windows(windows: Sequence[Mapping[str, Any]]) -> RenderableType:
    rows = [
        (
            f"{each['requests']:,}",
            f"{each['late']:.1%}",
            "not compared" if each["slow"] is None else f"{each['slow']:.1%}",
            "over" if each["over"] else "fine",
        )
        for each in windows
    ]
    return make_table(("latency window", "late", "slow work", "state"), rows)


def _share(side: Mapping[str, Any], name: str) -> str:
    share, interval = side.get(name), side.get(f"{name}_interval")
    return "–" if share is None or interval is None else f"{share:.2%} ({interval[0]:.2%} to {interval[1]:.2%})"


def _ms(side: Mapping[str, Any], name: str) -> str:
    return "–" if side.get(name) is None else f"{side[name]:.1f} ms"


def _age(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s ago"


def _dated(rollout: CanaryRelease) -> str:
    return f"{rollout.started:%Y-%m-%d %H:%M}"


def _why(decision: Decision | None) -> str:
    return f"{decision.guard}: {decision.reason}" if decision else ""


command = group(
    VERBS["rollout"], start=function_for(RolloutSettings, start), status=status, promote=promote, abort=abort
)
