"""What each stage does: the verbs of the same names, called with what the pipeline's file says.

A stage takes the plan, leaves what it makes in its folder, and returns plain values: `said` is its line for people.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.config import EvaluateSettings, RolloutSettings, SplitSettings
from lensmith.core.files import sha256
from lensmith.data.scan import scan
from lensmith.errors import DataError, GateError, LensmithError
from lensmith.training.signals import RunInterruptedError
from lensmith.workflows.pipeline import champion, contents
from lensmith.workflows.pipeline.plan import Plan
from lensmith.workflows.pipeline.results import Result, write_whole

Values = dict[str, Any]

_NAMED = 3
"""Files that an error names."""
_LIMITS = 6
"""Limits that an error names; gate.json has all."""


def check(plan: Plan) -> Values:
    """Look at every file.

    Raises:
        DataError: the data breaks what the file allows.
    """
    from lensmith.data.verify import check as look

    limits, found = plan.file.check, look(plan.file.data)
    assert limits is not None
    kinds = Counter(finding.kind for finding in found.findings)
    totals = {label: sum(row.values()) for label, row in found.counts.items()}
    bad = kinds["unreadable"] + kinds["empty"]
    share = 100 * bad / max(1, found.images + kinds["empty"])
    wrong = []
    if share > limits.max_unreadable:
        wrong.append(f"{share:.3g} % of the images cannot be read, {limits.max_unreadable:g} % are allowed")
    few = [f"{label} ({total})" for label, total in totals.items() if total < limits.min_images]
    if few:
        wrong.append(f"fewer than {limits.min_images} usable images: {', '.join(few[:_NAMED])}")
    for kind, allowed in (("leak", limits.leaks), ("label conflict", limits.conflicts)):
        files = [finding.path for finding in found.findings if finding.kind == kind]
        if files and allowed == "fail":
            named = ", ".join(files[:_NAMED]) + (" …" if len(files) > _NAMED else "")
            wrong.append(f"{kind}s, {len(files)}: {named}")
    write_whole(plan.place("check") / "check.json", json.dumps(found.as_dict(), indent=1))
    if wrong:
        raise DataError(
            f"Data that can be trained on was expected in {plan.file.data}.",
            f"Found: {'; '.join(wrong)}.",
            f"See each file with `lensmith data check {plan.file.data}`, or change the limits under check.",
        )
    said = f"{found.usable:,} usable images of {len(found.counts)} classes"
    return {"said": said, "images": found.usable, "findings": dict(kinds), "warnings": list(found.warnings)}


def split(plan: Plan) -> Values:
    """Write the manifest of parts; those that the data brings are kept.

    Raises:
        DataError: no part to judge on.
    """
    from lensmith.data.split import split as divide

    how = plan.file.split
    assert how is not None
    made = divide(SplitSettings(folder=plan.file.data, ratio=how.ratio, seed=how.seed, out=plan.parts, overwrite=True))
    judged = plan.file.gate or plan.file.evaluate
    if judged and not made.counts.get("test"):
        raise DataError(
            f"Test images were expected in {plan.file.data}, for gate and evaluate.",
            "The data brings parts, and none of them is test.",
            "Add a test folder (or split), or say gate: false and evaluate: false.",
        )
    by_file = {plan.images.file(sample).resolve(): plan.hashes[sample.path] for sample in plan.images.samples}
    images = scan(plan.parts)
    theirs = {sample.path: by_file.get(images.file(sample).resolve(), sample.path) for sample in images.samples}
    copies = contents.copies_across(images, theirs)
    said = ", ".join(f"{count:,} {part}" for part, count in made.counts.items())
    notes = list(made.notes)
    if copies:
        notes.append(
            f"Test images that are in another part, too, byte by byte: {len(copies)} ({', '.join(copies[:_NAMED])}); "
            "they make the model look better than it is."
        )
        said += f"; {len(copies)} test images have copies elsewhere"
    return {"said": said, "counts": made.counts, "copies": copies, "notes": notes}


def train(plan: Plan) -> Values:
    """Train, or go on with the run that was stopped.

    Raises:
        RunInterruptedError: told to stop, and saved.
    """
    from lensmith.workflows.train_and_export import AUTO
    from lensmith.workflows.train_and_export import train as fit

    settings = {name: getattr(plan.train, name) for name in plan.train.model_fields_set}
    try:
        made = fit({**settings, "data": plan.parts, "out": plan.run}, resume=AUTO)
    except RunInterruptedError as error:
        stopped = RunInterruptedError(error.expected, error.arrived, "Run the pipeline again: it goes on from there.")
        stopped.exit_code = error.exit_code
        raise stopped from error
    validated = {name: value for name, value in made.fitted.metrics.items() if isinstance(value, (int, float))}
    said = f"{plan.train.model}, best epoch {made.fitted.best_epoch}, validation accuracy {made.accuracy:.1%}"
    if made.tracked and not made.tracked.complete:
        said += f"; not all of it is in MLflow yet, what is missing is sent by: lensmith track sync {plan.run}"
    return {"said": said, "run": plan.run.name, "accuracy": made.accuracy, "metrics": validated}


def evaluate(plan: Plan) -> Values:
    """Report on the test part, with the plain bundle of the run."""
    from lensmith.evaluation.run import evaluate as judge

    made = judge(EvaluateSettings(bundle=plan.run / "bundle", data=plan.parts, part="test", out=plan.place("evaluate")))
    low, high = made.metrics.accuracy_interval
    said = f"test accuracy {made.metrics.accuracy:.1%} ({low:.1%} to {high:.1%}), {made.metrics.images:,} images"
    return {"said": said, "report": "report.html", "metrics": made.metrics.headline()}


def export(plan: Plan) -> Values:
    """Choose the engine that serves, and make the bundle."""
    from lensmith.exporting.export import export as make

    assert plan.export is not None
    made = make(plan.export)
    chosen = made.manifest.engines[0]
    size = f"{chosen.bytes / 1e6:.3g} MB" if chosen.bytes else "size unknown"
    speed = f", {chosen.latency_ms:.3g} ms" if chosen.latency_ms else ""
    return {"said": f"{chosen.name}, {size}{speed}", "bundle": "bundle", "version": made.manifest.version}


def gate(plan: Plan) -> Values:
    """Hold the new model against its limits and the champion.

    Raises:
        GateError: a limit is broken; exit code 3.
        SettingsError: the champion's labels differ.
    """
    from lensmith.workflows.pipeline.gate import judge
    from lensmith.workflows.pipeline.limits import WORDS
    from lensmith.workflows.pipeline.picture import draw

    settings, rival = plan.file.gate, champion.find(plan.file)
    assert settings is not None
    other = rival.bundle(plan.file) if rival else None
    called = rival.name if rival else None
    found = judge(Bundle.load(plan.bundle), other, called, scan(plan.parts), settings, plan.file.mapping)
    place = plan.place("gate")
    write_whole(place / "gate.json", json.dumps(found.as_dict(), indent=1))
    draw(found, place / "gate.png")
    if not found.passed:
        broken = [f"{limit.name}: {limit.said()} ({WORDS[limit.verdict]})" for limit in found.failed]
        more = f"; and {len(broken) - _LIMITS} more" if len(broken) > _LIMITS else ""
        raise GateError(
            f"A new model that keeps the limits of the gate was expected{f', beside {called}' if called else ''}.",
            f"{'; '.join(broken[:_LIMITS])}{more}.",
            f"Nothing was registered; see {place / 'gate.png'} and gate.json beside it.",
        )
    holds = sum(limit.verdict == "holds" for limit in found.limits)
    open_ = len(found.limits) - holds
    said = f"{found.accuracy.value:.1%} on the test part; {holds} of {len(found.limits)} limits shown to hold"
    said += f", {open_} neither shown to hold nor broken" if open_ else ""
    said += f"; beside {called}" if called else "; no champion yet"
    return {**found.as_dict(), "said": said, "champion_content": rival.content if rival else None}


def register(plan: Plan) -> Values:
    """Make the bundle a version in the registry; the same one is not made twice."""
    from lensmith.registry.push import push
    from lensmith.rollout.lifecycle import require_not_under_way

    assert plan.file.register_ is not None
    _send_export(plan)
    client = champion.connect(plan.file, create=True)
    assert client is not None
    if plan.file.register_.alias is not None:
        require_not_under_way(client, plan.file.model, plan.file.register_.alias)
    made = push(client, plan.bundle, plan.file.model, plan.file.register_.alias)
    version = made.version
    said = f"{version.name} version {version.version}" + ("" if made.new else ", which was there already")
    return {"said": said, "name": version.name, "version": version.version, "content": version.content}


def _send_export(plan: Plan) -> None:
    """Send what the export has told of the run: so the version is of the run that it comes from, and its files are sent
    once. Where that fails it is still left for `lensmith track sync`.
    """
    from lensmith.tracking.state import TrackingState
    from lensmith.tracking.sync import sync

    if TrackingState.read(plan.run) is not None:
        with suppress(LensmithError):
            sync([plan.run])


def rollout(plan: Plan) -> Values:
    """Begin the canary release; the first version of a model becomes champion at once.

    Raises:
        RolloutError: another one is under way.
    """
    from lensmith.registry.aliases import point
    from lensmith.registry.models import champion_of, resolve
    from lensmith.registry.references import CHAMPION, ModelReference
    from lensmith.rollout.lifecycle import start
    from lensmith.rollout.status import status

    how, registered = plan.file.rollout, plan.results.read("register", plan.stages["register"].key)
    assert how is not None
    assert registered is not None
    name, version = str(registered.values["name"]), str(registered.values["version"])
    client = champion.connect(plan.file, create=False)
    assert client is not None
    now = champion_of(client, name)
    if now is None:
        point(client, resolve(client, ModelReference(name, version)), CHAMPION)
        return {"said": f"version {version} is the first champion of {name}", "state": "champion", "version": version}
    if now.version == version:
        return {"said": f"version {version} is the champion already", "state": "champion", "version": version}
    uri = plan.file.register_.tracking_uri if plan.file.register_ else None
    last = status(name, uri)
    if last.rollout and last.decision is None and last.rollout.challenger == version:
        said = f"{last.rollout.id} has tried version {version} since {last.rollout.started:%Y-%m-%d %H:%M} UTC"
        return {"said": said, "state": "under way", "version": version, "rollout": last.rollout.id}
    mapping = {label: known or "" for label, known in plan.file.mapping.items()}
    begun = start(RolloutSettings(name=name, version=version, map=mapping, tracking_uri=uri, **how.model_dump()))
    what = f"copies of {begun.share:g} %" if begun.shadow else f"{begun.share:g} %"
    said = f"{begun.id}: version {version} gets {what} of the requests, beside version {begun.champion}"
    return {"said": said, "state": "under way", "version": version, "rollout": begun.id}


DO: Mapping[str, Callable[[Plan], Values]] = {
    "check": check, "split": split, "train": train, "evaluate": evaluate, "export": export, "gate": gate,
    "register": register, "rollout": rollout,
}  # fmt: skip
"""Stage → what does it."""


def stands(plan: Plan, stage: str, result: Result) -> bool:
    """Whether what a finished stage made is still there, and still what it would come to."""
    made = plan.made(stage)
    if made is not None and not made.is_file():
        return False
    if stage != "gate":
        return True
    now = champion.find(plan.file)
    # Once the new model is the champion itself, what it was compared with before is what counts.
    settled = {result.values.get("champion_content"), sha256(plan.bundle / MANIFEST)}
    return (now.content if now else None) in settled


def clear(plan: Plan, stage: str) -> None:
    """Let a stage begin from nothing, and not from where it was stopped."""
    shutil.rmtree(plan.place(stage), ignore_errors=True)
