"""The feature source: which phases learn from cached features instead of images, and where these come from."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from lensmith.config import TrainSettings
from lensmith.core.array_cache import ArrayCache, NotCachedError
from lensmith.core.cache import default_budget_bytes
from lensmith.data.image_set import ImageSet, Sample
from lensmith.imaging.content_digests import content_digests
from lensmith.training.context import TrainingContext
from lensmith.training.dataloading import decode_cache
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.decode_cache import DecodedPictures
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.feature_cache.backends import available_backends, in_full_precision
from lensmith.training.feature_cache.exactness import PROBE_BYTES, PROBE_ROWS, ROUNDING, Exactness, rounding_share
from lensmith.training.feature_cache.feature_batches import FeatureBatches, Features
from lensmith.training.feature_cache.features import FeatureExtractor, NoFeaturesError, TooLargeForHalfError, View
from lensmith.training.feature_cache.split_model import SplitPoint, find_split_point
from lensmith.training.schedule import Phase
from lensmith.training.unlabelled import unlabelled_images
from lensmith.training.validate import compute_outputs

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
        validation_rows: exact features of the validation images, unaugmented; None: there are none.
        training: the views as batches, in the order of an epoch.
        validation: `validation_rows` as batches.
        seconds: time that computing or reading them took.
        probe: the same training images as rounded features and as exact ones; None: all features are exact.
        unlabelled: pictures of the setting `unlabelled` with their features; None: there are none.
        rounding: the rounding error as a share of what tells the images apart; see `exactness`.
    """

    split_point: SplitPoint
    views: list[Features]
    validation_rows: Features | None
    training: FeatureBatches
    validation: FeatureBatches | None
    seconds: float
    probe: tuple[FeatureBatches, FeatureBatches] | None = None
    rounding: float = 0.0
    unlabelled: tuple[ImageSet, Features] | None = None


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
        self.exact = context.state.exact
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
        inputs = self._computed(phase, split_point, count, size)
        if inputs is None or inputs.probe is None or (share := world.broadcast_object(inputs.rounding)) <= ROUNDING:
            return inputs
        self._require_exact(phase, f"rounding is {share:.2g} times as large as the differences between images")
        return self._computed(phase, split_point, count, size)

    def _computed(self, phase: Phase, split_point: SplitPoint, count: int, size: int) -> PhaseInputs | None:
        """What `_compute` returns; None where features cannot be had, on every rank.

        Raises:
            StoppedError: a signal asked the run to stop; on every rank.
        """
        inputs, problem = None, ""
        try:
            try:
                inputs = self._compute(phase, split_point, count, size)
            except TooLargeForHalfError:  # the same on every rank
                self.exact.add(phase.name)
                inputs = self._compute(phase, split_point, count, size)
        except NoFeaturesError as error:
            problem = str(error)
        except StoppedError:
            problem = "stopped"
        outcome = self.learner.world.all_reduce_max(2 if problem == "stopped" else int(inputs is None))
        if outcome == 2:
            raise StoppedError
        if outcome:
            self.recorder.log(f"features are not cached, the frozen layers run in every epoch: {problem}")
            self.recorder.event("no_features", phase=phase.name, reason=problem)
            return None
        return inputs

    def too_rounded(self, phase: Phase, inputs: PhaseInputs) -> bool:
        """Whether the phase's features are not exact enough for what the network has learned from them.

        Then `inputs_for` makes exact ones from now on. See `exactness`.
        """
        if inputs.probe is None:
            return False
        model, device = self.learner.validation_model(inputs.split_point), self.learner.device
        scheduler, world = self.learner.micro.inference_scheduler, self.learner.world
        rounded, exact = (
            compute_outputs(model, part, device, scheduler=scheduler, world=world) for part in inputs.probe
        )
        found = Exactness.of(rounded, exact)
        self.recorder.event("exactness", phase=phase.name, **asdict(found), suffices=found.suffices)
        if not found.suffices:
            self._require_exact(phase, str(found))
        return not found.suffices

    def _require_exact(self, phase: Phase, reason: str) -> None:
        """Have a phase's features computed in fp32 from now on, and say so."""
        self.exact.add(phase.name)
        self.recorder.event("inexact", phase=phase.name, engine=self.engines[phase.name], reason=reason)
        self.recorder.log(
            f"features from {self.engines[phase.name]}, stored as float16, are not exact enough for these images"
            f" ({reason}): they are computed again in fp32"
        )

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
        unlabelled = unlabelled_images(run) if phase.trainable == 0 else None
        images = count * len(training) + len(validation) + (len(unlabelled.samples) if unlabelled else 0)
        # An image trains in some folds and validates, exactly, in another: one exact pass then serves all of them.
        is_shared = run.settings.cv is not None and count == 1
        exact = phase.name in self.exact or run.settings.precision == "fp32" or is_shared
        # All views together, so that none of them makes room for another.
        numbers = (4 if exact else 2) * count * len(training) + 4 * len(validation)
        fits = self.store is not None and math.prod(split_point.shape) * numbers <= self.store.budget_bytes
        store = self.store if fits else None
        computed = 0
        watch = self._watch("features")

        def rows(
            extractor: FeatureExtractor, images: ImageSet, samples: Sequence[Sample], number: int, exact: bool = True
        ) -> Features:
            nonlocal computed
            view = View(number, learner.inputs.augment, run.settings.seed)
            found = extractor.features(images, samples, view, watch, exact)
            computed += found.computed
            return found

        def extractor_at(at: SplitPoint, pixels: int, chosen: str | None) -> FeatureExtractor:
            how = replace(run.preprocessing, image_size=pixels)
            return FeatureExtractor(learner.model, at, how, run.settings, learner.device, store, chosen)

        validation_rows, probe, own_size = None, None, run.preprocessing.image_size
        with extractor_at(split_point, size, engine) as extractor:
            engine = self.engines[phase.name] = extractor.backend = world.on_rank_zero(lambda: extractor.choose(images))
            features = [rows(extractor, run.images, training, number, exact) for number in range(count)]
            if not exact:
                readable = [number for number in range(len(training)) if number not in features[0].unreadable]
                most = min(PROBE_ROWS, max(1, PROBE_BYTES // (4 * math.prod(split_point.shape))))
                some = self._spread(training, readable, most)
                probed = [training[number] for number in some]
                probe = (features[0].rows(some), rows(extractor, run.images, probed, 0)) if some else None
            others = (
                None if unlabelled is None else (unlabelled, rows(extractor, unlabelled, unlabelled.samples, 0, exact))
            )
            if validation and size == own_size:
                validation_rows = rows(extractor, run.images, validation, 0)
        if validation and validation_rows is None:  # trained at another size than the model's own, which validates
            there = find_split_point(learner.network, phase.trainable, own_size, run.settings.dropout)
            if there is None:
                raise NoFeaturesError(f"the network does not come apart at {own_size} px")
            with extractor_at(there, own_size, engine) as extractor:
                validation_rows = rows(extractor, run.images, validation, 0)
        rounding = 0.0 if probe is None else rounding_share(probe[0].values, probe[1].values)
        seconds = time.perf_counter() - started
        used = in_full_precision(engine) if exact else engine
        self.recorder.event(
            "features", phase=phase.name, at=split_point.at, shape=list(split_point.shape), engine=used, views=count,
            images=images, seconds=seconds, computed=computed > 0, computed_rows=computed, exact=exact,
            rounding=rounding,
        )  # fmt: skip
        what = f"features of {images:,} images{f' ({count} views)' if count > 1 else ''} before {split_point.at}"
        passes = "1 forward pass" if computed == 1 else f"{computed:,} forward passes"
        how = f"{seconds:.1f} s with {used}, {passes}" if computed else f"cached by an earlier run, {used}"
        self.recorder.log(f"{what}: {how}")
        batches = FeatureBatches(training, features, self.order)
        return PhaseInputs(
            split_point,
            features,
            validation_rows,
            batches,
            None if validation_rows is None else self._in_order(validation, validation_rows),
            seconds,
            None if probe is None else (self._in_order(probed, probe[0]), self._in_order(probed, probe[1])),
            rounding,
            others,
        )

    def _spread(self, samples: Sequence[Sample], rows: Sequence[int], most: int) -> list[int]:
        """At most `most` of the rows, chosen by content, so that a few samples more change few of them."""
        contents = content_digests([self.run.images.file(samples[row]) for row in rows])
        by_content = sorted(zip(contents, rows, strict=True), key=lambda each: (each[0] or b"", each[1]))
        return sorted(row for _, row in by_content[:most])

    def _in_order(self, samples: Sequence[Sample], rows: Features) -> FeatureBatches:
        """Features of samples as batches in the order of the samples."""
        world = self.learner.world
        most = VALIDATION_BYTES // (rows.values.itemsize * math.prod(rows.values.shape[1:]))
        order = EpochSampler(len(samples), max(1, min(VALIDATION_ROWS, most)), None, rank=world.rank, ranks=world.size)
        return FeatureBatches(samples, [rows], order)
