"""The feature source: which phases learn from cached features instead of images, and where these come from."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lensmith.config import TrainSettings
from lensmith.core.array_cache import ArrayCache, NotCachedError
from lensmith.core.cache import default_budget_bytes
from lensmith.training.context import TrainingContext
from lensmith.training.dataloading import decode_cache
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.decode_cache import DecodedPictures
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.feature_cache.backends import available_backends
from lensmith.training.feature_cache.features import FeatureBatches, FeatureExtractor, Features, NoFeaturesError, View
from lensmith.training.feature_cache.split_model import SplitPoint, find_split_point
from lensmith.training.schedule import Phase

HEAD_VIEWS, VIEWS = 1, 4
"""Default number of views, for the head alone and for more stages, which have enough weights to overfit."""

VALIDATION_ROWS, VALIDATION_BYTES = 1024, 32 * 10**6
"""The most rows and bytes in a batch of validation features."""


class StoppedError(Exception):
    """A signal asked the run to stop while features were computed; those that are done are cached."""


@dataclass(frozen=True)
class PhaseInputs:
    """Features that a phase learns from.

    Attributes:
        split_point: the split point whose features these are.
        views: features of the training images, one entry a view.
        validation_rows: features of the validation images, unaugmented; None: there are none.
        training: the views as batches, in the order of an epoch.
        validation: `validation_rows` as batches.
        seconds: time that computing or reading them took.
    """

    split_point: SplitPoint
    views: list[Features]
    validation_rows: Features | None
    training: FeatureBatches
    validation: FeatureBatches | None
    seconds: float


def views(phase: Phase, settings: TrainSettings) -> int | None:
    """The number of views of each image that the phase alternates between; None: each epoch draws a new one.

    A few views are enough, and the frozen layers need not run again, unless images are mixed anew in each step, a
    teacher sees them, too, or the phase is so short that features would hardly be used twice.
    """
    mixes = (settings.mixup or settings.cutmix) and not phase.is_head_warmup
    if phase.trainable is None or settings.teacher is not None or mixes:
        return None
    if settings.augment == "none":
        return 1
    count = settings.views or (VIEWS if phase.trainable else HEAD_VIEWS)
    epochs = phase.end_epoch - phase.first_epoch
    return count if not phase.trainable or epochs >= 2 * count else None


class FeatureSource:
    """Computes or reads the features of a run's phases; `order` is that of the training images."""

    def __init__(self, context: TrainingContext, order: EpochSampler) -> None:
        self.run, self.learner, self.recorder, self.order = context.run, context.learner, context.recorder, order
        self.interruption, self.engines = context.interruption, context.state.engines
        settings = self.run.settings
        budget = default_budget_bytes() if settings.cache_gb is None else int(settings.cache_gb * 1e9)
        self.store = ArrayCache(budget) if budget else None

    def inputs_for(self, phase: Phase) -> PhaseInputs | None:
        """The features that a phase learns from; None: it learns from images.

        Raises:
            StoppedError: a signal asked the run to stop; on every rank.
        """
        settings, world = self.run.settings, self.learner.world
        count = self.order.views = views(phase, settings)
        if count is None or settings.feature_cache == "never":
            return None
        self.learner.folding.unfold()  # engines are given the network without folded BatchNorm
        self.learner.network.freeze(phase.trainable, settings.batch_norm == "frozen")
        size = phase.image_size or self.run.preprocessing.image_size
        split_point = find_split_point(self.learner.network, phase.trainable, size, settings.dropout)
        if world.all_reduce_max(int(split_point is None)) or split_point is None:
            return None
        inputs, problem = None, ""
        try:
            inputs = self._compute(phase, split_point, count, size)
        except NoFeaturesError as error:
            problem = str(error)
        except StoppedError:
            problem = "stopped"
        outcome = world.all_reduce_max(2 if problem == "stopped" else int(inputs is None))
        if outcome == 2:
            raise StoppedError
        if outcome:
            self.recorder.log(f"features are not cached, the frozen layers run in every epoch: {problem}")
            self.recorder.event("no_features", phase=phase.name, reason=problem)
            return None
        return inputs

    def decoded(self, dataset: ImageDataset, phase: Phase) -> DecodedPictures | None:
        """Pictures of a part, uint8 of any shape, decoded once for the phase; None where that does not pay or fit.

        Raises:
            StoppedError: a signal asked the run to stop; on every rank.
        """
        epochs = phase.end_epoch - phase.first_epoch
        size = phase.image_size if dataset.augment is not None and phase.image_size else dataset.how.image_size
        shortest_px = dataset.shortest_px(replace(dataset.how, image_size=size), dataset.augment)
        world, found, stopped = self.learner.world, None, False
        value_ranges = dataset.how.value_ranges
        pays = self.store is not None and world.on_rank_zero(
            lambda: decode_cache.is_worthwhile(dataset.images, dataset.samples, shortest_px, value_ranges, epochs)
        )
        if not pays or self.store is None:
            return None
        try:
            found = decode_cache.load_or_decode(
                dataset.images, dataset.samples, shortest_px, value_ranges, self.store, self._watch("decoding")
            )
            self.recorder.event("decoded", pictures=len(dataset.samples), bytes=int(found.pixels.nbytes))
        except NotCachedError as error:
            self.recorder.log(f"decoded pictures are not cached: {error}")
        except StoppedError:
            stopped = True
        if world.all_reduce_max(int(stopped)):
            raise StoppedError
        return found

    def _watch(self, what: str) -> Callable[[int, int], None]:
        def watch(done: int, total: int) -> None:
            self.recorder.working(what, done, total)
            if self.interruption.received is not None:
                raise StoppedError

        return watch

    def _compute(self, phase: Phase, split_point: SplitPoint, count: int, size: int) -> PhaseInputs:
        """Compute `count` views of the training images and one of the validation images, or read them from the cache.

        Raises:
            NoFeaturesError: no room, no engine, or a network that does not come apart.
            StoppedError: a signal asked the run to stop.
        """
        started = time.perf_counter()
        run, learner, world = self.run, self.learner, self.learner.world
        training, validation = run.images.part("train"), run.images.part("val")
        engine = self.engines.get(phase.name)
        if engine not in available_backends(learner.device):  # resumed on another machine
            engine = None
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
            return extractor.features(
                run.images, samples, View(number, learner.inputs.augment, run.settings.seed), watch
            )

        def extractor_at(at: SplitPoint, pixels: int, chosen: str | None) -> FeatureExtractor:
            how = replace(run.preprocessing, image_size=pixels)
            return FeatureExtractor(learner.model, at, how, run.settings, learner.device, store, chosen)

        validation_rows, own_size = None, run.preprocessing.image_size
        with extractor_at(split_point, size, engine) as extractor:
            engine = self.engines[phase.name] = extractor.backend = world.on_rank_zero(lambda: extractor.choose(images))
            features = [rows(extractor, training, number) for number in range(count)]
            if validation and size == own_size:
                validation_rows = rows(extractor, validation, 0)
        if validation and validation_rows is None:  # trained at another size than the model's own, which validates
            there = find_split_point(learner.network, phase.trainable, own_size, run.settings.dropout)
            if there is None:
                raise NoFeaturesError(f"the network does not come apart at {own_size} px")
            with extractor_at(there, own_size, engine) as extractor:
                validation_rows = rows(extractor, validation, 0)
        seconds = time.perf_counter() - started
        self.recorder.event(
            "features", phase=phase.name, at=split_point.at, shape=list(split_point.shape), engine=engine, views=count,
            images=images, seconds=seconds, computed=computed > 0,
        )  # fmt: skip
        what = f"features of {images:,} images{f' ({count} views)' if count > 1 else ''} before {split_point.at}"
        how = f"{seconds:.1f} s with {engine}" if computed else f"cached by an earlier run, {engine}"
        self.recorder.log(f"{what}: {how}")
        batches = FeatureBatches(training, features, self.order)
        return PhaseInputs(
            split_point, features, validation_rows, batches, self._validation_batches(validation_rows), seconds
        )

    def _validation_batches(self, rows: Features | None) -> FeatureBatches | None:
        if rows is None:
            return None
        samples, world = self.run.images.part("val"), self.learner.world
        most = VALIDATION_BYTES // (2 * math.prod(rows.values.shape[1:]))
        order = EpochSampler(len(samples), max(1, min(VALIDATION_ROWS, most)), None, rank=world.rank, ranks=world.size)
        return FeatureBatches(samples, [rows], order)
