"""Features of an image set from a frozen backbone, without a run: what data curation compares images by."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from lensmith.config import TrainSettings
from lensmith.core.array_cache import ArrayCache
from lensmith.core.cache import default_budget_bytes
from lensmith.core.progress import watching
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.value_ranges import decide_ranges
from lensmith.errors import ModelError
from lensmith.training.dataloading.augment import Augment
from lensmith.training.feature_cache.feature_batches import Features
from lensmith.training.feature_cache.features import FeatureExtractor, NoFeaturesError, View
from lensmith.training.feature_cache.split_model import find_split_point
from lensmith.training.models import backbone


def image_features(images: ImageSet, samples: Sequence[Sample], settings: TrainSettings) -> Features:
    """Pooled features of images as the service sees them, before the head; from the cache or computed now.

    They are those that a training of the head alone learns from, so each spares the other the work.

    Args:
        images: the set of images; its value ranges are those of all its samples.
        samples: samples of the set.
        settings: backbone (`model`, `weights`), size and resize mode of the images, device, size of the cache.

    Returns:
        Features whose values are float16 (N, F).

    Raises:
        DataError: pictures of different value ranges.
        ModelError: the backbone or its weights are not available, or it has no features before its head.
    """
    network = backbone.build(settings, len(images.labels))
    network.freeze(0, statistics=True)
    how = replace(network.preprocessing, value_ranges=decide_ranges(images))
    device = torch.device("cuda" if torch.cuda.is_available() and settings.device != "cpu" else "cpu")
    network.model.to(device)
    split_point = find_split_point(network, 0, how.image_size)
    if split_point is None:
        raise ModelError(
            "A backbone with features before its head was expected.",
            f"{settings.model} has none that can be told from it.",
            "Name another with --model; `lensmith models` lists them.",
        )
    budget = default_budget_bytes() if settings.cache_gb is None else int(settings.cache_gb * 1e9)
    store = ArrayCache(budget) if budget else None
    with (
        FeatureExtractor(network.model, split_point, how, settings, device, store) as extractor,
        watching("features") as watch,
    ):
        extractor.choose(len(samples))
        try:
            return extractor.features(images, samples, View(0, Augment(), settings.seed), watch)
        except NoFeaturesError as error:
            raise ModelError(
                f"Features of {len(samples):,} images were expected.", f"{error}.", "Free some disk space or memory."
            ) from error
