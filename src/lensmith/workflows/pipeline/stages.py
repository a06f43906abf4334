"""The stages of a pipeline: each calls the verb of its name with the settings in the pipeline's file.

A stage takes the plan, writes its output to its folder and returns plain values, of which `said` is a line for people.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.config import EvaluateSettings, RolloutSettings, SplitSettings
from lensmith.core.files import atomic_write, sha256
from lensmith.core.result import plain
from lensmith.core.text import listed
from lensmith.data.consensus import contested_text
from lensmith.data.corrections import from_files
from lensmith.data.scan import scan
from lensmith.errors import DataError, GateError, LensmithError
from lensmith.workflows.pipeline import champion
from lensmith.workflows.pipeline.folder import StageRecord, write_json
from lensmith.workflows.pipeline.plan import PipelinePlan, split_manifest, split_settings

Values = dict[str, Any]

NO_TEST_PART = (
    "The data brings no test part: gate and evaluate use the validation part, on which the model is chosen, so their "
    "numbers flatter it a little."
)

_LISTED_FILES = 3
_LISTED_LIMITS = 6
"""Most limits that an error names; gate.json has all."""


def check(plan: PipelinePlan) -> Values:
    """Check every image file: unreadable files, class sizes, data leakage, conflicting labels.

    Raises:
        DataError: the data breaks a limit of the check.
    """
    from lensmith.data.verify import check as check_data

    limits, found = (
        plan.file.check,
        check_data(plan.file.data, **plan.file.reading),
    )
    assert limits is not None
    kinds = Counter(finding.kind for finding in found.findings)
    totals = {label: sum(row.values()) for label, row in found.counts.items()}
    bad = kinds["unreadable"] + kinds["empty"]
    percent = 100 * bad / max(1, found.images + kinds["empty"])
    problems = []
    if percent > limits.max_unreadable:
        problems.append(f"{percent:.3g} % of the images cannot be read, {limits.max_unreadable:g} % are allowed")
    few = [f"{label} ({total})" for label, total in totals.items() if total < limits.min_images]
    if few:
        problems.append(f"fewer than {limits.min_images} usable images: {listed(few, _LISTED_FILES)}")
    divided = {each.path for each in found.contested if each.is_divided}  # which are left out, as people expect
    for kind, allowed in (("leak", limits.leaks), ("label conflict", limits.conflicts)):
        files = [finding.path for finding in found.findings if finding.kind == kind and finding.path not in divided]
        if files and allowed == "fail":
            problems.append(f"{kind}s, {len(files)}: {listed(files, _LISTED_FILES)}")
    write_json(plan.stage_folder("check") / "check.json", found.as_dict())
    if problems:
        raise DataError(
            f"Data that can be trained on was expected in {plan.file.data}.",
            f"Found: {'; '.join(problems)}.",
            f"See each file with `lensmith data check {plan.file.data}`, or change the limits under check.",
        )
    said = f"{found.usable:,} usable images of {len(found.counts)} classes{contested_text(found.contested)}"
    return {
        "said": said,
        "images": found.usable,
        "findings": dict(kinds),
        "warnings": list(found.warnings),
        "contested": plain(found.contested),
    }


def split(plan: PipelinePlan) -> Values:
    """Write the manifest of train, val and test images; a split that the data brings is used unchanged.

    Images keep the parts of the newest result with these settings, so only new ones are divided.
    """
    from lensmith.data.split import split as split_data

    section, settings = plan.file.split, split_settings(plan.file)
    assert section is not None
    older = [path for path, each in plan.folder.records("split") if each.values.get("settings") == settings]
    manifests = (split_manifest(path, plan.file) for path in older)
    made = split_data(
        SplitSettings(
            folder=plan.file.data, out=plan.dataset, overwrite=True, **plan.file.reading, **section.model_dump()
        ),
        parts_from=next((file for file in manifests if file.is_file()), None),
    )
    said = ", ".join(f"{count:,} {part}" for part, count in made.counts.items())
    notes = [*made.notes, *made.warnings]
    if (plan.file.gate or plan.file.evaluate) and not made.counts.get("test"):
        notes.append(NO_TEST_PART)
        said += "; gate and evaluate use val, on which the model is chosen"
    said += contested_text(made.contested)
    return {
        "said": said,
        "counts": made.counts,
        "notes": notes,
        "contested": plain(made.contested),
        "settings": settings,
    }


def train(plan: PipelinePlan) -> Values:
    """Train the model, or resume a run that was interrupted.

    Raises:
        RunInterruptedError: a signal stopped the training; it can be resumed.
    """
    from lensmith.workflows.train_and_export import AUTO
    from lensmith.workflows.train_and_export import train as train_model

    settings = {name: getattr(plan.train, name) for name in plan.train.model_fields_set}
    made = train_model({**settings, "data": plan.dataset, "out": plan.run_folder}, resume=AUTO)
    validated = {name: value for name, value in made.result.metrics.items() if isinstance(value, (int, float))}
    if (crossed := made.cross_validation) is None:
        accuracy = made.accuracy
        said = f"{plan.train.model}, best epoch {made.result.best_epoch}, validation accuracy {accuracy:.1%}"
    else:
        low, high = crossed.accuracy_interval
        accuracy = crossed.accuracy
        said = f"{plan.train.model}, {made.result.epochs} epochs on all images but a test part; the models of the "
        said += (
            f"{len(crossed.folds)} folds have a cross-validated accuracy of {accuracy:.1%} ({low:.1%} to {high:.1%})"
        )
    if made.tracked and not made.tracked.complete:
        said += f"; not all of it is in MLflow yet, what is missing is sent by: lensmith track sync {plan.run_folder}"
    return {"said": said, "run": plan.run_folder.name, "accuracy": accuracy, "metrics": validated}


def evaluate(plan: PipelinePlan) -> Values:
    """Write a report on the test images, or on the validation images where there are none, with the trained bundle."""
    from lensmith.evaluation.run import evaluate as evaluate_bundle

    folder = plan.stage_folder("evaluate")
    made = evaluate_bundle(
        EvaluateSettings(
            bundle=plan.run_folder / "bundle",
            data=plan.dataset,
            layout=plan.file.layout,
            exclude=plan.train.exclude,
            relabel=plan.train.relabel,
            out=folder,
        )
    )
    low, high = made.metrics.accuracy_interval
    said = f"{made.part} accuracy {made.metrics.accuracy:.1%} ({low:.1%} to {high:.1%}), {made.headline}"
    assert made.held_out is not None
    counts = made.held_out.as_dict()
    return {"said": said, "report": "report.html", "metrics": made.metrics.headline(), "held_out": counts}


def export(plan: PipelinePlan) -> Values:
    """Select the engine for serving, and make the bundle."""
    from lensmith.exporting.export import export as export_bundle

    assert plan.export is not None
    made = export_bundle(plan.export)
    selected = made.manifest.engines[0]
    size = f"{selected.bytes / 1e6:.3g} MB" if selected.bytes else "size unknown"
    speed = f", {selected.latency_ms:.3g} ms" if selected.latency_ms else ""
    return {"said": f"{selected.name}, {size}{speed}", "bundle": "bundle", "version": made.manifest.version}


def gate(plan: PipelinePlan) -> Values:
    """Check the new model against the gate's limits and the champion.

    Raises:
        GateError: a limit is broken; exit code 3.
        SettingsError: the champion's labels differ.
    """
    from lensmith.workflows.pipeline.compared_answers import COMPARED
    from lensmith.workflows.pipeline.gate import evaluate_gate
    from lensmith.workflows.pipeline.limits import WORDS

    settings, rival = plan.file.gate, champion.find_champion(plan.file)
    assert settings is not None
    name, champion_bundle = (rival.name, rival.load()) if rival else (None, None)
    correct = from_files(plan.train.exclude, plan.train.relabel)
    new, images = Bundle.load(plan.bundle), correct(scan(plan.dataset, layout=plan.file.layout))
    found, compared = evaluate_gate(new, champion_bundle, name, images, settings, plan.file.mapping)
    folder = plan.stage_folder("gate")
    if compared is not None:
        compared.save(folder / COMPARED)
    write_json(folder / "gate.json", found.as_dict())
    atomic_write(folder / "gate.md", found.markdown())
    if not found.passed:
        broken = [f"{check} ({WORDS[check.verdict]})" for check in found.failed]
        raise GateError(
            f"A new model that keeps the limits of the gate was expected{f', beside {name}' if name else ''}.",
            f"{listed(broken, _LISTED_LIMITS, '; ')}.",
            f"Nothing was registered; see {folder / 'gate.md'} and gate.json beside it.",
        )
    hold = sum(check.verdict == "holds" for check in found.limits)
    undecided = len(found.limits) - hold
    said = f"{found.accuracy.value:.1%} on the {found.part} part; {hold} of {len(found.limits)} limits shown to hold"
    said += f", {undecided} neither shown to hold nor broken" if undecided else ""
    said += f"; beside {name}" if name else "; no champion yet"
    return {**found.as_dict(), "said": said, "champion_content": rival.content if rival else None}


def register(plan: PipelinePlan) -> Values:
    """Register the bundle as a version of the model; equal content is registered only once."""
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


def _send_export(plan: PipelinePlan) -> None:
    """Send the export's tracking events to MLflow before the version is made.

    So the version belongs to the run that it comes from, and its files are sent once. If that fails, the events wait
    for `lensmith track sync`.
    """
    from lensmith.tracking.state import TrackingState
    from lensmith.tracking.sync import sync

    if TrackingState.read(plan.run_folder) is not None:
        with suppress(LensmithError):
            sync([plan.run_folder])


def rollout(plan: PipelinePlan) -> Values:
    """Begin the canary release; the first version of a model becomes champion at once.

    Raises:
        RolloutError: another one is under way.
    """
    from lensmith.registry.aliases import point
    from lensmith.registry.models import champion_of, resolve
    from lensmith.registry.references import CHAMPION, ModelReference
    from lensmith.rollout.lifecycle import start
    from lensmith.rollout.status import status

    section, registered = plan.file.rollout, plan.folder.read_record("register", plan.stages["register"].key)
    assert section is not None
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
    uri = plan.file.tracking_uri
    last = status(name, uri)
    if last.rollout and last.decision is None and last.rollout.challenger == version:
        said = f"{last.rollout.id} has been testing version {version} since {last.rollout.started:%Y-%m-%d %H:%M} UTC"
        return {"said": said, "state": "under way", "version": version, "rollout": last.rollout.id}
    mapping = {label: known or "" for label, known in plan.file.mapping.items()}
    begun = start(RolloutSettings(name=name, version=version, map=mapping, tracking_uri=uri, **section.model_dump()))
    what = f"copies of {begun.share:g} %" if begun.shadow else f"{begun.share:g} %"
    said = f"{begun.id}: version {version} gets {what} of the requests, beside version {begun.champion}"
    return {"said": said, "state": "under way", "version": version, "rollout": begun.id}


STAGE_FUNCTIONS: Mapping[str, Callable[[PipelinePlan], Values]] = {
    "check": check, "split": split, "train": train, "evaluate": evaluate, "export": export, "gate": gate,
    "register": register, "rollout": rollout,
}  # fmt: skip


def is_fresh(plan: PipelinePlan, stage: str, record: StageRecord) -> bool:
    """Whether a finished stage need not run again: its output is still there, and the champion is still the same."""
    if not plan.has_output(stage):
        return False
    if stage != "gate":
        return True
    now = champion.find_champion(plan.file)
    # Once the new model itself is the champion, its comparison with the one before stays valid.
    accepted = {record.values.get("champion_content"), sha256(plan.bundle / MANIFEST)}
    return (now.content if now else None) in accepted
