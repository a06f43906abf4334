"""The trainer: from settings to a trained run folder, started anew or resumed from its last checkpoint."""

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lensmith.config import TrainSettings
from lensmith.core.files import atomic_write
from lensmith.core.text import listed
from lensmith.data.corrections import from_files
from lensmith.data.image_set import ImageSet
from lensmith.data.readable import without_unreadable
from lensmith.data.split import prepare
from lensmith.data.unlabelled import unlabelled_pictures
from lensmith.data.value_ranges import decide_ranges
from lensmith.errors import DataError, RunError, SettingsError
from lensmith.imaging.value_range import ValueRange, describe
from lensmith.training import budget
from lensmith.training.data_errors import SHOWN_FILES
from lensmith.training.launch import launch
from lensmith.training.loop import EpochLoop
from lensmith.training.memory_needs import find_needs
from lensmith.training.microbatch import memory
from lensmith.training.microbatch.distributed import World
from lensmith.training.models import backbone
from lensmith.training.models.backbone import Network
from lensmith.training.oom_advice import what_fits
from lensmith.training.result import RunResult
from lensmith.training.run_dir import diff
from lensmith.training.run_dir.lock import locked_run
from lensmith.training.run_dir.recorder import Recorder
from lensmith.training.run_dir.run import NEEDS, Run, default_folder, is_unbegun, require_free
from lensmith.training.teacher import require_apart, require_value_ranges


class Trainer:
    """Trains run folders: `start` makes a new one, `resume` continues one, `run` is what each rank does in either.

    Args:
        on_begin: called on rank 0 with the run, once its folder is locked and before it is trained.
        world: the ranks that train together; by default those that the environment describes.
    """

    def __init__(self, on_begin: Callable[[Run], None] = lambda run: None, world: World | None = None) -> None:
        self.on_begin, self.world = on_begin, world or World.join()

    def start(self, settings: TrainSettings) -> RunResult:
        """Make a new run folder and train it to its end.

        Args:
            settings: the run's settings; with a time budget, what they leave open is chosen so that the run ends in it.

        Raises:
            DataError: the images cannot be trained on.
            ModelError: the backbone or its weights are not available.
            OutputError: the run folder is in use.
            RunInterruptedError: Ctrl-C or SIGTERM; the run is saved.
        """
        started, deadline, world = time.monotonic(), None, self.world
        network: Network | None = None
        if settings.time_budget is not None:
            plan = self._plan(settings, started)
            run, network = create_run(plan.settings)
            run.record("planned", **plan.as_dict())
            print(f"planned: {plan}", file=sys.stderr, flush=True)
            deadline = (started, plan.end_s)
        elif world.size > 1:
            run = Run.open(world.on_rank_zero(lambda: create_run(settings)[0].path))
        else:
            run, network = create_run(settings)
        with _removed_without_checkpoint(run, world), self._locked(run.path):
            self._train(run, network, deadline)
        return RunResult.read(run)

    def resume(self, path: Path, given: Mapping[str, Any] | None = None) -> RunResult:
        """Continue a run from its newest whole checkpoint to its end.

        Args:
            path: the run folder.
            given: settings by name that must be the run's; those of `diff.MAY_CHANGE` take effect instead.

        Raises:
            RunError: no run, no checkpoint or one that does not fit, another process that trains it, or settings,
                classes or images that have changed since.
            RunInterruptedError: Ctrl-C or SIGTERM; the run is saved.
        """
        opened = Run.open(path)
        with self._locked(path):
            run = self.world.on_rank_zero(lambda: diff.with_changes(opened, given or {}))
            if not run.has_checkpoint:
                new = is_unbegun(path)
                raise RunError(
                    f"A checkpoint of the run {path} was expected.",
                    "It was stopped before its first." if new else "All of them are gone.",
                    f"Start it anew: {run.start_command()}" if new else "Put them back, or train into another folder.",
                )
            self._train(run)
        return RunResult.read(run)

    def run_locked(self, run: Run) -> None:
        """Train a run folder to its end, alone, from its last checkpoint or from the beginning.

        Raises:
            RunError: as `run`, or another process trains it.
        """
        with self._locked(run.path):
            self._train(run)

    def run(self, run: Run, network: Network | None = None, deadline: tuple[float, float] | None = None) -> None:
        """Train a run folder to its end as one of the ranks, from its last checkpoint or from the beginning.

        Args:
            run: the run folder, the same for all ranks.
            network: the network with its first weights; None: it is built.
            deadline: `time.monotonic()` at the run's start, and the seconds after which no step is taken.

        Raises:
            RunError: a checkpoint that does not fit, a rank that is gone, or memory that is too small.
            RunInterruptedError: a signal asked the run to stop; it is saved.
        """
        settings, world = run.settings, self.world
        if world.is_rank_zero:
            (run.path / NEEDS).unlink(missing_ok=True)
        resumes = world.broadcast_object(run.has_checkpoint)
        torch.manual_seed(settings.seed)
        if resumes:  # the checkpoint holds every weight, so none are fetched
            settings = settings.model_copy(update={"pretrained": False, "weights": None})
        network = network or backbone.build(settings, len(run.images.labels))
        device = device_of(settings, world)
        if world.size > 1:
            torch.manual_seed(settings.seed + world.rank)
        loop: EpochLoop | None = None
        try:
            loop = EpochLoop(run, network, device, world)
            world.broadcast([*loop.learner.model.parameters(), *loop.learner.model.buffers()])
            if resumes:
                loop.checkpointer.restore()
            if deadline is not None:
                position, (started, end_s) = loop.context.state.position, deadline
                position.end_s, position.elapsed_s = end_s, time.monotonic() - started
            loop.train_epochs()
            return
        except Exception as error:
            too_large = memory.as_too_large(error)
            if too_large is None:
                raise
        if loop is None:
            raise too_large
        _write_needs(run, loop, {})  # before the trials, as libraries may crash where memory is this short
        if world.size > 1:
            raise too_large
        advice = what_fits(loop.learner, settings, len(run.images.labels))
        _write_needs(run, loop, advice.settings)
        raise memory.TooLargeError(too_large.expected, too_large.arrived, advice.sentence)

    def _train(self, run: Run, network: Network | None = None, deadline: tuple[float, float] | None = None) -> None:
        """Train a locked run folder here, or in processes of its own where the settings want several."""
        if self.world.is_rank_zero:
            self.on_begin(run)
        if self.world.size == 1 and run.settings.processes > 1:
            launch(run.path, run.settings.processes)
        else:
            self.run(run, network, deadline)

    def _plan(self, settings: TrainSettings, started: float) -> budget.BudgetPlan:
        if self.world.size > 1:
            raise SettingsError(
                "One process was expected with a time budget.", f"{self.world.size} arrived.", "Leave one out."
            )
        require_free(settings.out or default_folder(settings))
        images, _ = _images(settings)
        print("measuring what this machine can do in that time", file=sys.stderr, flush=True)
        return budget.plan(settings, images, device_of(settings, self.world), time.monotonic() - started)

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        with locked_run(path) if self.world.is_rank_zero else nullcontext():
            yield


def create_run(settings: TrainSettings) -> tuple[Run, Network]:
    """Make a new run folder, and the network with its first weights.

    Raises:
        DataError: the images cannot be trained on, or are of different value ranges.
        ModelError: the backbone or its weights are not available.
        OutputError: the run folder is in use.
        SettingsError: the device is not there, or the teacher is of other classes, parts or value ranges.
    """
    device_of(settings, World())
    out = settings.out or default_folder(settings)
    require_free(out)
    images, value_ranges = _images(settings)
    if value_ranges:
        named = ", ".join(describe(kind, ends) for kind, ends in value_ranges.items())
        images = replace(images, notes=(*images.notes, f"Value range, from the training images: {named}."))
    if settings.teacher is not None:
        require_value_ranges(settings.teacher, value_ranges)
    torch.manual_seed(settings.seed)
    network = backbone.build(settings, len(images.labels))
    network = replace(network, preprocessing=replace(network.preprocessing, value_ranges=value_ranges))
    run = Run.create(out, settings, images, network.preprocessing, network.provenance)
    _name_left_out(run)
    return run, network


def _name_left_out(run: Run) -> None:
    """Record the files that are left out of a new run, and name the first of them on standard error."""
    left_out = run.images.set_aside
    with Recorder(run.events if left_out else None, run.settings.epochs, 0) as recorder:
        for path, reason in left_out:
            recorder.event("left_out", path=path, reason=reason)
        for path, reason in left_out[:SHOWN_FILES]:
            recorder.log(f"left out: {path}: {reason}")
        if len(left_out) > SHOWN_FILES:
            recorder.log(f"… and {len(left_out) - SHOWN_FILES:,} more; all are named in {run.events}")


def device_of(settings: TrainSettings, world: World) -> torch.device:
    """The device that a rank trains on.

    Raises:
        SettingsError: this machine has no such device.
    """
    name = settings.device
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


def _write_needs(run: Run, loop: EpochLoop, fits: Mapping[str, Any]) -> None:
    """Write RUN/needs.json on rank 0, with the settings that fit here, by name."""
    if loop.learner.world.is_rank_zero:
        memory.release(loop.learner.device)
        needs = find_needs(loop.learner, loop.cap_bytes, loop.context.state.position.step, fits)
        atomic_write(run.path / NEEDS, json.dumps(needs.as_dict(), indent=2) + "\n")


@contextmanager
def _removed_without_checkpoint(run: Run, world: World) -> Iterator[None]:
    """Remove a run folder that fails before its first checkpoint: it can be neither resumed nor used again."""
    try:
        yield
    except BaseException:
        if world.is_rank_zero and not run.has_checkpoint:
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def _images(settings: TrainSettings) -> tuple[ImageSet, dict[str, ValueRange]]:
    """The images in their parts, checked: each class has one to learn from and another to validate on; value ranges.

    Raises:
        DataError: a class has too few images, or images are of different value ranges.
        SettingsError: data would leak: the teacher learned from images that validate here, or the other way round.
    """
    correct = from_files(settings.exclude, settings.relabel)
    how = (settings.layout, correct, settings.group, settings.cv)
    images = prepare(settings.data, settings.split, settings.seed, *how)
    if value_ranges := decide_ranges(images):
        images = without_unreadable(images, value_ranges)
    total = Counter(sample.label for sample in images.samples)
    training = Counter(sample.label for sample in images.part("train"))
    for found, wanted, what in ((total, 2, "images"), (training, 1, "training image")):
        short = [label for number, label in enumerate(images.labels) if found[number] < wanted]
        if short:
            few = f"There are fewer in: {listed(short, 10)}."
            left_out = [f"{path} ({reason.rstrip('.')})" for path, reason in images.set_aside]
            raise DataError(
                f"Every class was expected to have at least {wanted} {what} that can be read.",
                f"{few} Left out are: {listed(left_out, SHOWN_FILES)}." if left_out else few,
                "Add images to these classes, replace what cannot be read (`lensmith data check` names each), or "
                "remove their folders.",
            )
    if settings.unlabelled is not None:
        unlabelled_pictures(settings.unlabelled)  # now, rather than after minutes of features
    if settings.teacher is not None:
        require_apart(settings.teacher, images)
    return images, value_ranges
