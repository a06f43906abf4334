"""The verbs as Python functions: what the command line does, returned instead of printed.

Each takes the settings of its class in `lensmith.config` as keywords, resolves them the same way as the command line,
and imports its room when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lensmith import config
from lensmith.core.machine import share_cores

if TYPE_CHECKING:
    from lensmith.core.cache import Cleared, Kept
    from lensmith.data.fetch import Fetched
    from lensmith.data.split import Split
    from lensmith.data.verify import Checked
    from lensmith.evaluation.evaluation import Evaluation
    from lensmith.exporting.export import Exported
    from lensmith.feedback.dataset import DeletedUploads, FeedbackExport, UploadSummary
    from lensmith.inference.batch import Predicted
    from lensmith.inference.classifier import Classifier
    from lensmith.inference.inspection import Description, Difference, Verified
    from lensmith.inference.retune import Retuned
    from lensmith.ops.deploy.run import Deployed
    from lensmith.ops.doctor import Diagnosis
    from lensmith.ops.loadtest.measured import Measured
    from lensmith.ops.token import Token
    from lensmith.registry.aliases import AliasChange
    from lensmith.registry.models import RegisteredModel, Version
    from lensmith.registry.pull import Pulled
    from lensmith.registry.push import Pushed
    from lensmith.rollout.state import Decision, Rollout
    from lensmith.rollout.status import RolloutStatus
    from lensmith.tracking.recent import TrackedRun
    from lensmith.tracking.sync import SyncResult
    from lensmith.training.models.zoo import Backbone
    from lensmith.training.recipe_file import Validated
    from lensmith.workflows.demo import Demonstrated
    from lensmith.workflows.distill import Distilled
    from lensmith.workflows.pipeline.run import PipelineResult, StageResult
    from lensmith.workflows.train_and_export import Trained

StrPath = str | PathLike[str]


def doctor() -> Diagnosis:
    """Look at this machine: versions, devices, cores, engines, limits, and the remedy for what is wrong."""
    from lensmith.ops.doctor import examine

    return examine()


def models(pattern: str = "*", max_params: float | None = None, suited: str | None = None) -> list[Backbone]:
    """The backbones one can name, by a pattern such as `*lite*`; see `lensmith models --help`."""
    from lensmith.training.models.zoo import find

    return find(pattern, max_params=max_params, suited=suited)


def fetch(name: str, folder: StrPath, **settings: Any) -> Fetched:
    """Make an image folder of a known set. Settings: `FetchSettings`."""
    from lensmith.data.fetch import fetch as run

    return run(config.FetchSettings.resolve({"name": name, "folder": folder, **settings}))


def check(folder: StrPath) -> Checked:
    """Look at every file of an image folder; raises for no single file."""
    from lensmith.data.verify import check as run

    return run(folder)


def split(folder: StrPath, **settings: Any) -> Split:
    """Write a manifest that assigns every image to train, val or test. Settings: `SplitSettings`."""
    from lensmith.data.split import split as run

    return run(config.SplitSettings.resolve({"folder": folder, **settings}))


def cached() -> Kept:
    """What runs have kept for the next: features of frozen layers, decoded pixels."""
    from lensmith.core.cache import kept

    return kept()


def clear_cache(kind: str | None = None) -> Cleared:
    """Remove what is kept: `features`, `pixels`, `measured`, or all of it; downloads stay."""
    from lensmith.core.cache import clear

    return clear(kind)


def recipe(which: StrPath = "balanced") -> config.TrainSettings:
    """All settings of a preset or of a recipe file, as `train` would resolve them; `data` is a placeholder."""
    from lensmith.training.schedule import named

    return named(which)


def validate(recipe: StrPath) -> Validated:
    """Look a recipe file over before anything is trained; raises with all that is wrong."""
    share_cores()
    from lensmith.training.recipe_file import validate as run

    return run(Path(recipe))


def train(
    data: StrPath | None = None, *, recipe: StrPath | None = None, resume: StrPath | None = None, **settings: Any
) -> Trained:
    """Fine-tune a backbone, and export the best epoch as a bundle. Settings: `TrainSettings`.

    Args:
        data: image folder or CSV.
        recipe: a YAML file of settings, under the keywords and over lensmith.yaml.
        resume: go on with this run folder, which has its settings; "auto": with the run that these settings began, in
            `out` or else under runs/, or begin it.
        settings: see above.
    """
    share_cores()
    from lensmith.workflows.train_and_export import train as run

    return run({"data": data, **settings}, recipe, resume)


def push(
    bundle: StrPath, name: str | None = None, *, alias: str | None = None, tracking_uri: str | None = None
) -> Pushed:
    """Make a bundle a version of a registered model.

    Args:
        bundle: folder or zip.
        name: of the model; the bundle's own by default.
        alias: to name the version by, such as champion.
        tracking_uri: where the registry is, in the place of the settings `tracking`.
    """
    from lensmith.bundle.format import Bundle
    from lensmith.registry import push as room
    from lensmith.registry.client import client, uri
    from lensmith.rollout.lifecycle import require_not_under_way

    there = client(uri(tracking_uri))
    if alias is not None:
        require_not_under_way(there, Bundle.load(bundle).manifest.name if name is None else name, alias)
    return room.push(there, bundle, name, alias)


def registered(name: str | None = None, *, tracking_uri: str | None = None) -> Sequence[RegisteredModel]:
    """The registered models with their versions and aliases, or the one that is named."""
    from lensmith.registry import models
    from lensmith.registry.client import client, uri

    there = client(uri(tracking_uri), create=False)
    return [models.model(there, each) for each in ([name] if name is not None else models.names(there))]


def registered_version(name: str, *, tracking_uri: str | None = None) -> Version:
    """What NAME@ALIAS or NAME@VERSION names in the registry."""
    from lensmith.registry import models, references
    from lensmith.registry.client import client, uri

    wanted = references.require(name)
    return models.resolve(client(uri(tracking_uri), create=False), wanted)


def set_alias(name: str, alias: str, *, remove: bool = False, tracking_uri: str | None = None) -> AliasChange:
    """Let an alias name a version; the champion before is kept as `previous`.

    Args:
        name: the version, as NAME@VERSION or NAME@ALIAS; to remove an alias, the model's name.
        alias: such as champion.
        remove: let it name nothing any longer.
        tracking_uri: as for `push`.
    """
    from lensmith.registry import aliases, models, references
    from lensmith.registry.client import client, uri
    from lensmith.rollout.lifecycle import require_not_under_way

    wanted = None if remove else references.require(name)
    there = client(uri(tracking_uri), create=False)
    require_not_under_way(there, name if wanted is None else wanted.name, alias)
    if wanted is None:
        return aliases.remove(there, name, alias)
    return aliases.point(there, models.resolve(there, wanted), alias)


def pull(name: str, out: StrPath | None = None, *, tracking_uri: str | None = None) -> Pulled:
    """Fetch a registered bundle, and verify it.

    Args:
        name: NAME@ALIAS or NAME@VERSION.
        out: folder, or file that ends in .zip, to write; by default it stays in the cache.
        tracking_uri: as for `push`.
    """
    from lensmith.registry import pull as room
    from lensmith.registry import references
    from lensmith.registry.client import client, uri

    wanted = references.require(name)
    return room.pull_to(client(uri(tracking_uri), create=False), wanted, None if out is None else Path(out))


def rollback(name: str, *, tracking_uri: str | None = None) -> AliasChange:
    """Make a model's champion before champion again."""
    from lensmith.registry import aliases
    from lensmith.registry.client import client, uri
    from lensmith.registry.references import CHAMPION
    from lensmith.rollout.lifecycle import require_not_under_way

    there = client(uri(tracking_uri), create=False)
    require_not_under_way(there, name, CHAMPION)
    return aliases.rollback(there, name)


def track_ui(**settings: Any) -> None:
    """Serve MLflow's pages on this machine until stopped. Settings: `TrackSettings`."""
    from lensmith.tracking.ui import ui as run

    run(config.TrackSettings.resolve(settings))


def tracked(limit: int = 20) -> Sequence[TrackedRun]:
    """The runs that were tracked last, the newest first."""
    from lensmith.tracking.recent import recent

    return recent(limit)


def sync(runs: Iterable[StrPath] = ()) -> SyncResult:
    """Send MLflow what did not arrive, of these run folders or of all in runs/."""
    from lensmith.tracking.sync import sync as run

    return run([Path(folder) for folder in runs])


def distill(
    teacher: StrPath | None = None,
    student: str | None = None,
    *,
    recipe: StrPath | None = None,
    resume: StrPath | None = None,
    **settings: Any,
) -> Distilled:
    """Train a smaller network on what a trained one answers, and export it. Settings: `TrainSettings`.

    Args:
        teacher: run folder; images, parts, seed and resize mode are those of this run unless said otherwise.
        student: backbone that learns, the setting `model`.
        recipe: as for `train`.
        resume: as for `train`.
        settings: see above.
    """
    share_cores()
    from lensmith.workflows.distill import distill as run

    return run({"teacher": teacher, "model": student, **settings}, recipe, resume)


def export(run: StrPath | None = None, **settings: Any) -> Exported:
    """Turn a run into a bundle with the fastest engine that loses next to nothing. Settings: `ExportSettings`."""
    share_cores()
    from lensmith.exporting.export import export as make

    return make(config.ExportSettings.resolve({"run": run, **settings}))


def retune(bundle: StrPath, **settings: Any) -> Retuned:
    """Measure a bundle's engines on this machine, and choose again. Settings: `ExportSettings`."""
    from lensmith.inference.retune import retune as run

    return run(config.ExportSettings.resolve({"retune": bundle, **settings}))


def describe(bundle: StrPath) -> Description:
    """What a bundle holds: bundle.json, sizes of the files; schema and hashes are verified."""
    from lensmith.inference.inspection import describe as run

    return run(bundle)


def verify(bundle: StrPath) -> Verified:
    """Schema, hashes, and whether every engine that runs here answers rightly; what is wrong is its `problem`."""
    from lensmith.inference.inspection import verify as run

    return run(bundle)


def diff(a: StrPath, b: StrPath) -> Difference:
    """Where two bundles differ, field by field of bundle.json."""
    from lensmith.inference.inspection import diff as run

    return run(a, b)


def evaluate(bundle: StrPath, data: StrPath, **settings: Any) -> Evaluation:
    """Judge a bundle on labelled images with the engine that serves. Settings: `EvaluateSettings`."""
    from lensmith.evaluation.run import evaluate as run

    return run(config.EvaluateSettings.resolve({"bundle": bundle, "data": data, **settings}))


def predict(
    bundle: StrPath, images: StrPath | Iterable[StrPath], *, stream: TextIO | None = None, **settings: Any
) -> Predicted:
    """Classify files and folders. Settings: `PredictSettings`.

    Args:
        bundle: folder or zip.
        images: one path or many.
        stream: takes the rows as text where no `out` is given; without both they are in the result.
        settings: see above.
    """
    from lensmith.inference.batch import predict as run

    references = [str(image) for image in ([images] if isinstance(images, (str, PathLike)) else images)]
    return run(config.PredictSettings.resolve({"bundle": bundle, "images": references, **settings}), stream)


def serve(bundle: StrPath | None = None, **settings: Any) -> None:
    """Answer over HTTP until stopped. Settings: `ServeSettings`."""
    from lensmith.serving import platform
    from lensmith.serving.run import serve as run

    run(config.ServeSettings.resolve({**platform.settings(), "bundle": bundle, **settings}))


def kept_uploads(folder: StrPath) -> UploadSummary:
    """What lies in a folder of uploads that a service has kept."""
    from lensmith.feedback.dataset import kept_uploads as run

    return run(folder)


def export_feedback(folder: StrPath, out: StrPath, unlabelled: StrPath | None = None) -> FeedbackExport:
    """Make an image folder of kept uploads whose true label is known; those without go to `unlabelled`, if named."""
    from lensmith.feedback.dataset import export_feedback as run

    return run(folder, out, unlabelled)


def clear_feedback(
    folder: StrPath,
    *,
    older_than: float | str | None = None,
    request_ids: Sequence[str] = (),
    everything: bool = False,
) -> DeletedUploads:
    """Delete kept uploads: those older than `30d` (or seconds), those of some requests, or all."""
    from lensmith.feedback.dataset import clear_feedback as run

    return run(folder, older_than=older_than, request_ids=request_ids, everything=everything)


def deploy(kind: str, bundle: StrPath | None = None, **settings: Any) -> Deployed:
    """Write files for nginx, systemd, Docker, Compose or Prometheus. Settings: `DeploySettings`."""
    from lensmith.ops.deploy.run import deploy as run

    return run(config.DeploySettings.resolve({"kind": kind, "bundle": bundle, **settings}))


def rollout(name: str, version: str | int | None = None, **settings: Any) -> Rollout:
    """Let a version of a registered model be tried beside its champion. Settings: `RolloutSettings`."""
    from lensmith.rollout.lifecycle import start

    return start(config.RolloutSettings.resolve({"name": name, "version": version, **settings}))


def rollout_status(name: str, tracking_uri: str | None = None) -> RolloutStatus:
    """The canary releases of a registered model, the latest with its figures over all replicas."""
    from lensmith.rollout.status import status

    return status(name, tracking_uri)


def rollout_watch(name: str, tracking_uri: str | None = None) -> Iterator[RolloutStatus]:
    """The same again and again, without end, whenever the next is asked for."""
    from lensmith.rollout.status import StatusWatcher

    watcher = StatusWatcher(name, tracking_uri)
    while True:
        yield watcher.look()


def rollout_promote(name: str, reason: str = "", tracking_uri: str | None = None) -> tuple[Rollout, Decision]:
    """End the canary release that is under way: its challenger becomes the champion."""
    from lensmith.rollout.lifecycle import end

    return end(name, "promoted", reason, tracking_uri)


def rollout_abort(name: str, reason: str = "", tracking_uri: str | None = None) -> tuple[Rollout, Decision]:
    """End the canary release that is under way: the champion answers all requests again."""
    from lensmith.rollout.lifecycle import end

    return end(name, "aborted", reason, tracking_uri)


def pipeline(
    file: StrPath = "pipeline.yaml",
    *,
    out: StrPath | None = None,
    force: str | None = None,
    until: str | None = None,
    on_progress: Callable[[StageResult], None] | None = None,
) -> PipelineResult:
    """Run a pipeline from its first stage that has changed; what stops one, such as its gate, is the result's `error`.

    Args:
        file: path of the pipeline's YAML file.
        out: the pipeline's folder; runs/pipelines/NAME by default.
        force: name of a stage to run again, with all stages that depend on it.
        until: name of the last stage to run.
        on_progress: callback that gets a stage's result when the stage begins and when it ends.
    """
    share_cores()
    from lensmith.workflows.pipeline.run import run_pipeline

    callback = on_progress or (lambda result: None)
    return run_pipeline(Path(file), Path(out) if out is not None else None, force, until, callback)


def pipeline_show(
    file: StrPath = "pipeline.yaml", *, folder: StrPath | None = None, out: StrPath | None = None
) -> PipelineResult:
    """State of a pipeline's stages, and what a run would do now; nothing is run.

    Args:
        file: path of the pipeline's YAML file, or its folder.
        folder: the pipeline's folder, where it is not runs/pipelines/NAME.
        out: file for a Mermaid flowchart: FILE.mmd, or FILE.md with the chart in a code block.
    """
    from lensmith.workflows.pipeline.show import show_pipeline

    return show_pipeline(
        Path(file), Path(folder) if folder is not None else None, Path(out) if out is not None else None
    )


def token(subject: str, **settings: Any) -> Token:
    """Make a token with which somebody may call the service. Settings: `TokenSettings`."""
    from lensmith.ops.token import token as run

    return run(config.TokenSettings.resolve({"subject": subject, **settings}))


def bench(target: StrPath, **settings: Any) -> Measured:
    """Load-test a service at a URL, or one that is started for a bundle. Settings: `BenchSettings`."""
    from lensmith.ops.loadtest.run import bench as run

    return run(config.BenchSettings.resolve({"target": str(target), **settings}))


def demo(**settings: Any) -> Demonstrated:
    """The whole way on real images. Settings: `DemoSettings`."""
    share_cores()
    from lensmith.workflows.demo import demo as run

    return run(config.DemoSettings.resolve(settings))


def load(bundle: StrPath, engine: str | None = None, threads: int = 1) -> Classifier:
    """A verified bundle, ready to answer: `load(path).predict(paths)`."""
    from lensmith.inference.classifier import load as run

    return run(bundle, engine, threads)
