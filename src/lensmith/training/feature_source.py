"""Which phases take features in the place of images, and where they get them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lensmith.config import TrainSettings
from lensmith.core.array_cache import ArrayCache, NotCachedError
from lensmith.core.cache import default_budget_bytes
from lensmith.training.dataloading import decode_cache
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.decode_cache import DecodedPictures
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.feature_cache.backends import available_backends
from lensmith.training.feature_cache.batches import FeatureBatches
from lensmith.training.feature_cache.features import FeatureExtractor, Features, NoFeaturesError, View
from lensmith.training.feature_cache.split_model import SplitPoint, find_split_point
from lensmith.training.learner import Learner
from lensmith.training.run_dir.recorder import Recorder
from lensmith.training.run_dir.run import Run
from lensmith.training.schedule import Phase

HEAD_VIEWS, VIEWS = 1, 4
"""Views by default, for the head alone and for more stages, which have enough weights to overfit."""

VALIDATION_ROWS, VALIDATION_BYTES = 1024, 32 * 10**6
"""The most in a batch of them."""


class StoppedError(Exception):
    """The run was told to stop while features were computed; those that are done are kept."""


@dataclass(frozen=True)
class Taken:
    """What a phase learns from.

    Attributes:
        split_point: between the frozen trunk and the trainable tail.
        views: of the training images.
        held: of the validation images, as they are; None where there are none.
        training: the views, in the order of an epoch.
        validation: see `held`.
        seconds: that it took to get them.
    """

    split_point: SplitPoint
    views: list[Features]
    held: Features | None
    training: FeatureBatches
    validation: FeatureBatches | None
    seconds: float


def views(phase: Phase, settings: TrainSettings) -> int | None:
    """How many views of each image the phase takes turns at; None: what is frozen sees a new one in each epoch.

    A few views are enough, and what is frozen need not be run again, unless pictures are mixed anew in each step or a
    teacher looks at them, too, or the phase is so short that features would hardly be used twice.
    """
    mixes = (settings.mixup or settings.cutmix) and not phase.is_head_warmup
    if phase.trainable is None or settings.teacher is not None or mixes:
        return None
    if settings.augment == "none":
        return 1
    count = settings.views or (VIEWS if phase.trainable else HEAD_VIEWS)
    epochs = phase.end_epoch - phase.first_epoch
    return count if not phase.trainable or epochs >= 2 * count else None


class Source:
    """Features for a run's phases.

    Args:
        run: its folder.
        learner: whose network is cut.
        order: of the training images.
        recorder: is told what is done.
        stopped: whether the run was told to stop.
    """

    def __init__(
        self, run: Run, learner: Learner, order: EpochSampler, recorder: Recorder, stopped: Callable[[], bool]
    ) -> None:
        self.run, self.learner, self.order, self.recorder, self.stopped = run, learner, order, recorder, stopped
        settings = run.settings
        budget = default_budget_bytes() if settings.cache_gb is None else int(settings.cache_gb * 1e9)
        self.store = ArrayCache(budget) if budget else None
        self.backends: dict[str, str] = {}
        """Phase → engine, so that a resumed run sees the same features."""

    def enter(self, phase: Phase) -> Taken | None:
        """What the phase learns from; None: images.

        Raises:
            StoppedError: on every rank.
        """
        settings, world = self.run.settings, self.learner.world
        count = self.order.views = views(phase, settings)
        if count is None or settings.feature_cache == "never":
            return None
        self.learner.folding.unfold()  # what engines are given is the network as it is
        self.learner.network.freeze(phase.trainable, settings.batch_norm == "frozen")
        size = phase.image_size or self.run.preprocessing.image_size
        split_point = find_split_point(self.learner.network, phase.trainable, size, settings.dropout)
        if world.all_reduce_max(int(split_point is None)) or split_point is None:
            return None
        taken, problem = None, ""
        try:
            taken = self._take(phase, split_point, count, size)
        except NoFeaturesError as error:
            problem = str(error)
        except StoppedError:
            problem = "stopped"
        outcome = world.all_reduce_max(2 if problem == "stopped" else int(taken is None))
        if outcome == 2:
            raise StoppedError
        if outcome:
            self.recorder.say(f"features are not kept, the frozen layers run in every epoch: {problem}")
            self.recorder.event("no_features", phase=phase.name, reason=problem)
            return None
        return taken

    def decoded(self, dataset: ImageDataset, phase: Phase) -> DecodedPictures | None:
        """Pictures of a part decoded once for all epochs of the phase; None where that would not pay, or not fit.

        Raises:
            StoppedError: on every rank.
        """
        epochs = phase.end_epoch - phase.first_epoch
        size = phase.image_size if dataset.augment is not None and phase.image_size else dataset.how.image_size
        shortest_px = dataset.shortest_px(replace(dataset.how, image_size=size), dataset.augment)
        world, found, stopped = self.learner.world, None, False
        pays = self.store is not None and world.on_rank_zero(
            lambda: decode_cache.is_worthwhile(dataset.images, dataset.samples, shortest_px, epochs)
        )
        if not pays or self.store is None:
            return None
        try:
            found = decode_cache.load_or_decode(
                dataset.images, dataset.samples, shortest_px, self.store, self._watch("decoding")
            )
            self.recorder.event("decoded", pictures=len(dataset.samples), bytes=int(found.pixels.nbytes))
        except NotCachedError as error:
            self.recorder.say(f"decoded pictures are not kept: {error}")
        except StoppedError:
            stopped = True
        if world.all_reduce_max(int(stopped)):
            raise StoppedError
        return found

    def _watch(self, what: str) -> Callable[[int, int], None]:
        def watch(done: int, total: int) -> None:
            self.recorder.working(what, done, total)
            if self.stopped():
                raise StoppedError

        return watch

    def _take(self, phase: Phase, split_point: SplitPoint, count: int, size: int) -> Taken:
        started = time.perf_counter()
        run, learner, world = self.run, self.learner, self.learner.world
        training, validation = run.images.part("train"), run.images.part("val")
        how = replace(run.preprocessing, image_size=size)
        backend = self.backends.get(phase.name)
        if backend not in available_backends(learner.device):  # resumed on another machine
            backend = None
        images = count * len(training) + len(validation)
        # All views together, so that none of them makes room for another.
        fits = self.store is not None and 2 * math.prod(split_point.shape) * images <= self.store.budget_bytes
        store = self.store if fits else None
        computed = 0

        show = self._watch("features")

        def watch(done: int, total: int) -> None:
            nonlocal computed
            computed = max(computed, done)
            show(done, total)

        def rows(extractor: FeatureExtractor, samples: Any, number: int) -> Features:
            return extractor.features(run.images, samples, View(number, learner.augment, run.settings.seed), watch)

        with FeatureExtractor(
            learner.model, split_point, how, run.settings, learner.device, store, backend
        ) as extractor:
            chosen = self.backends[phase.name] = extractor.backend = world.on_rank_zero(
                lambda: extractor.choose(images)
            )
            seen = [rows(extractor, training, number) for number in range(count)]
            held = None
            if validation and size == run.preprocessing.image_size:
                held = rows(extractor, validation, 0)
        if validation and held is None:  # trained at another size than the model's own, at which it is judged
            own = run.preprocessing
            there = find_split_point(learner.network, phase.trainable, own.image_size, run.settings.dropout)
            if there is None:
                raise NoFeaturesError(f"the network does not come apart at {own.image_size} px")
            with FeatureExtractor(learner.model, there, own, run.settings, learner.device, store, chosen) as extractor:
                held = rows(extractor, validation, 0)
        seconds = time.perf_counter() - started
        self.recorder.event(
            "features", phase=phase.name, at=split_point.at, shape=list(split_point.shape), engine=chosen, views=count,
            images=images, seconds=seconds, computed=computed > 0,
        )  # fmt: skip
        self._tell(split_point, chosen, count, images, seconds, computed > 0)
        batches = FeatureBatches(training, seen, self.order)
        return Taken(split_point, seen, held, batches, self._validation(held), seconds)

    def _validation(self, held: Features | None) -> FeatureBatches | None:
        if held is None:
            return None
        samples, world = self.run.images.part("val"), self.learner.world
        most = VALIDATION_BYTES // (2 * math.prod(held.values.shape[1:]))
        order = EpochSampler(len(samples), max(1, min(VALIDATION_ROWS, most)), None, rank=world.rank, ranks=world.size)
        return FeatureBatches(samples, [held], order)

    def _tell(
        self, split_point: SplitPoint, engine: str, count: int, images: int, seconds: float, computed: bool
    ) -> None:
        what = f"features of {images:,} images" + (f" ({count} views)" if count > 1 else "")
        if computed:
            self.recorder.say(f"{what} before {split_point.at}: {seconds:.1f} s with {engine}")
        else:
            self.recorder.say(f"{what} before {split_point.at}: kept from an earlier run, {engine}")
