"""From settings to a trained run folder, anew or from its last checkpoint."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from lensmith.config import TrainSettings
from lensmith.data.scan import ImageSet
from lensmith.data.split import prepare
from lensmith.errors import DataError, ModelError, RunError, SettingsError
from lensmith.training import budget
from lensmith.training.launch import launch
from lensmith.training.loop import Loop
from lensmith.training.microbatch import memory
from lensmith.training.microbatch.distributed import World
from lensmith.training.models import backbone
from lensmith.training.models.backbone import Network
from lensmith.training.models.state_dict import load_exactly
from lensmith.training.oom_advice import what_fits
from lensmith.training.result import Fitted
from lensmith.training.run_dir import checkpoint, diff
from lensmith.training.run_dir.lock import held
from lensmith.training.run_dir.run import Run, default_folder, is_unbegun, require_free
from lensmith.training.teacher import require_apart


def fit(settings: TrainSettings, beside: Callable[[Run], None] = lambda run: None) -> Fitted:
    """Train as `settings` say, in a new run folder.

    Args:
        settings: of the training.
        beside: on one of the ranks: told of the run before it begins.

    Raises:
        DataError: the images cannot be trained on.
        ModelError: the backbone or its weights cannot be had.
        OutputError: the run folder is in use.
        RunInterruptedError: Ctrl-C or SIGTERM; the run is saved.
    """
    world = World.join()
    if settings.time_budget is not None:
        return _fit_in_time(settings, world, beside)
    run, network = _begin(settings) if world.size == 1 else _begin_together(settings, world)
    with _removed_if_never_begun(run, world), held(run.path) if world.is_rank_zero else nullcontext():
        if world.is_rank_zero:
            beside(run)
        _train(run, world, network)
    return Fitted.read(run)


def _fit_in_time(settings: TrainSettings, world: World, beside: Callable[[Run], None]) -> Fitted:
    """As `fit`, with what the settings leave open chosen so that the run ends within its budget."""
    started = time.monotonic()
    if world.size > 1:
        raise SettingsError("One process was expected with a time budget.", f"{world.size} arrived.", "Leave one out.")
    require_free(settings.out or default_folder(settings))
    images = _images(settings)
    print("measuring what this machine can do in that time", file=sys.stderr, flush=True)
    planned = budget.plan(settings, images, _device(settings.device, world))
    run, network = _begin(planned.settings)
    run.record("planned", **planned.as_dict())
    print(f"planned: {planned}", file=sys.stderr, flush=True)
    with _removed_if_never_begun(run, world), held(run.path):
        beside(run)
        train_together(run, world, network, limit=lambda loop: loop.limit(planned.end_s, time.monotonic() - started))
    return Fitted.read(run)


def resume(
    path: Path, said: Mapping[str, Any] | None = None, beside: Callable[[Run], None] = lambda run: None
) -> Fitted:
    """Go on with the run in `path` from its newest whole checkpoint.

    Args:
        path: run folder.
        said: settings by name that must be the run's; those of `difference.MAY_CHANGE` take effect instead.
        beside: on one of the ranks: told of the run before it goes on.

    Raises:
        RunError: no run, no checkpoint or one that does not fit, another process at it, or settings, classes or images
            that have changed since.
        RunInterruptedError: stopped again.
    """
    world = World.join()
    begun = Run.open(path)
    with held(path) if world.is_rank_zero else nullcontext():
        run = world.on_rank_zero(lambda: _unchanged(begun, said or {}))
        if not run.begun:
            raise RunError(
                f"A checkpoint of the run {path} was expected.",
                "It was stopped before its first." if is_unbegun(path) else "All of them are gone.",
                f"Begin it anew: {_anew(run)}" if is_unbegun(path) else "Put them back, or train into another folder.",
            )
        if world.is_rank_zero:
            beside(run)
        _train(run, world)
    return Fitted.read(run)


def train_together(
    run: Run, world: World, network: Network | None = None, limit: Callable[[Loop], None] = lambda loop: None
) -> None:
    """Train a run to its end as one of the ranks, from its last checkpoint or from the beginning.

    Args:
        run: its folder, the same for all ranks.
        world: the ranks.
        network: with its first weights, where it is at hand.
        limit: told of the loop before it runs.

    Raises:
        RunError: a checkpoint that does not fit, a rank that is gone, or memory that is too small.
        RunInterruptedError: told to stop; the run is saved.
    """
    settings, begun = run.settings, world.broadcast_object(run.begun)
    torch.manual_seed(settings.seed)
    if begun:  # the checkpoint holds every weight, so none are fetched
        settings = settings.model_copy(update={"pretrained": False, "weights": None})
    network = network or backbone.build(settings, len(run.images.labels))
    device = _device(settings.device, world)
    if world.size > 1:
        torch.manual_seed(settings.seed + world.rank)
    loop = Loop(run, network, device, world)
    world.broadcast([*loop.learner.model.parameters(), *loop.learner.model.buffers()])
    if begun:
        _restore(loop, run)
    limit(loop)
    too_large = _run(loop)
    if too_large is not None:
        advice = what_fits(loop.learner, settings, len(run.images.labels)) if world.size == 1 else too_large.remedy
        raise memory.TooLargeError(too_large.expected, too_large.arrived, advice)


def _run(loop: Loop) -> memory.TooLargeError | None:
    """Train; what did not fit comes back without its traceback, which would hold on to the memory."""
    try:
        loop.run()
    except memory.TooLargeError as error:
        return error.with_traceback(None)
    return None


def _train(run: Run, world: World, network: Network | None = None) -> None:
    if world.size == 1 and run.settings.processes > 1:
        launch(run.path, run.settings.processes)
    else:
        train_together(run, world, network)


def _begin(settings: TrainSettings) -> tuple[Run, Network]:
    """A new run folder, and the network with its first weights."""
    _device(settings.device, World())
    out = settings.out or default_folder(settings)
    require_free(out)
    images = _images(settings)
    torch.manual_seed(settings.seed)
    network = backbone.build(settings, len(images.labels))
    run = Run(
        path=out,
        settings=settings,
        images=images,
        preprocessing=network.preprocessing,
        provenance=network.provenance,
        fingerprint=images.fingerprint,
        source=settings.data.resolve(),
        sizes={sample.path: size for sample, size in zip(images.samples, images.sizes, strict=True)},
    )
    run.create()
    return run, network


def _begin_together(settings: TrainSettings, world: World) -> tuple[Run, Network | None]:
    """Rank 0 makes the folder, and the others open it."""
    path = world.on_rank_zero(lambda: _begin(settings)[0].path)
    return Run.open(path), None


def _unchanged(run: Run, said: Mapping[str, Any]) -> Run:
    """The run with what may change taken over.

    Raises:
        RunError: something else has changed.
    """
    different = diff.of_settings(run.settings, said)
    out = said.get("out") or run.path
    if out.resolve() != run.path.resolve():
        different.append(f"out: {run.path} in the run, {out} now")
    if different:
        raise RunError(
            f"The settings that the run {run.path} began with were expected.",
            f"These differ: {'; '.join(different)}.",
            "Leave them out, or train anew into another folder with --out.",
        )
    source = said["data"].resolve() if "data" in said else run.source
    remedy = f"Put them back, name where they lie now (lensmith train DIR --resume {run.path}), or train anew."
    expected = f"The images that the run {run.path} began with were expected in {source}."
    try:
        images = prepare(source, run.settings.split, run.settings.seed)
    except DataError as error:
        raise RunError(expected, error.arrived, remedy) from error
    if different := diff.of_data(run, images):
        raise RunError(expected, f"They have changed: {'; '.join(different)}.", remedy)
    taken = {name: value for name, value in said.items() if name in diff.MAY_CHANGE}
    return run.go_on_with(run.settings.model_copy(update=taken), source, images.root.resolve())


def _restore(loop: Loop, run: Run) -> None:
    """Put the loop where the newest whole checkpoint says.

    Raises:
        RunError: there is none, or it is of another architecture or optimizer.
    """
    fell_back = loop.world.on_rank_zero(
        lambda: checkpoint.recover(run.checkpoints, f"Begin the run anew: {_anew(run)}")
    )
    state = checkpoint.load(run.last)
    try:
        load_exactly(loop.learner.model, state["learner"]["model"], f"the checkpoint {run.last}")
        loop.restore(state)
    except (ModelError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if memory.is_out_of_memory(error):
            raise
        arrived = error.arrived if isinstance(error, ModelError) else f"It does not fit ({error})."
        raise RunError(
            f"A checkpoint of this run's {run.settings.model} was expected at {run.last}.",
            arrived,
            f"Put back the run's own checkpoints and {run.path / 'run.json'}, or train anew into another folder.",
        ) from error
    if fell_back and loop.world.is_rank_zero:
        print(f"{fell_back}: going on from the checkpoint before it", file=sys.stderr, flush=True)
        run.record("fell_back", reason=fell_back, step=loop.at.step)


@contextmanager
def _removed_if_never_begun(run: Run, world: World) -> Iterator[None]:
    """A run folder without a first checkpoint can be neither resumed nor used again, so it goes."""
    try:
        yield
    except BaseException:
        if world.is_rank_zero and not run.begun:
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def _anew(run: Run) -> str:
    return f"lensmith train {run.source} --out {run.path} --resume auto"


def _device(name: str, world: World) -> torch.device:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{number}" for number in range(gpus))]
    if name in ("auto", "cuda") and gpus:
        return torch.device("cuda", world.local_rank % gpus)
    if name == "auto":
        return torch.device("cpu")
    if name not in here:
        raise SettingsError(
            f"A device that this machine has was expected: {', '.join(here)}.",
            f"{name!r} arrived.",
            "Use one of them, or let lensmith choose; `lensmith doctor` tells more.",
        )
    return torch.device(name)


def _images(settings: TrainSettings) -> ImageSet:
    """All images in their parts, fit to be trained on."""
    images = prepare(settings.data, settings.split, settings.seed)
    _check(images)
    if settings.teacher is not None:
        require_apart(settings.teacher, images)
    return images


def _check(images: ImageSet) -> None:
    """Every class needs an image to learn from, and another to be judged by."""
    total = Counter(sample.label for sample in images.samples)
    training = Counter(sample.label for sample in images.part("train"))
    for found, wanted, what in ((total, 2, "images"), (training, 1, "training image")):
        short = [label for number, label in enumerate(images.labels) if found[number] < wanted]
        if short:
            names = ", ".join(short[:10]) + (f" and {len(short) - 10} more" if len(short) > 10 else "")
            raise DataError(
                f"Every class was expected to have at least {wanted} {what}.",
                f"There are fewer in: {names}.",
                "Add images to these classes, or remove their folders.",
            )
