"""The choice at the start."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lensmith.bundle.format import Bundle
from lensmith.inference.classifier import Classifier
from lensmith.inference.engine import FakeEngine
from lensmith.serving.execution.autotune import choose_pool
from lensmith.serving.execution.dynamic_batcher import DynamicBatcher
from lensmith.serving.execution.loaded_model import LoadedModel
from lensmith.serving.execution.thread_pool import ThreadPool


class OnGpu(FakeEngine):
    """An engine that takes as long for a batch as for an image, as GPUs nearly do."""

    name = "onnxruntime-cuda"


def constant(batch: np.ndarray) -> np.ndarray:
    time.sleep(0.01)
    return np.zeros((len(batch), 3), np.float32)


def by_the_image(batch: np.ndarray) -> np.ndarray:
    time.sleep(0.01 * len(batch) + 0.004 * (len(batch) - 1))
    return np.zeros((len(batch), 3), np.float32)


def model(bundle: Bundle, engine: Any) -> LoadedModel:
    return LoadedModel(Classifier(bundle, engine), 10**8, Path("bundle"))


def test_where_batches_take_as_long_as_their_images_each_is_answered_alone(colour_bundle: Bundle) -> None:
    pool, why = choose_pool(model(colour_bundle, FakeEngine(by_the_image)), 2, "auto", 32)
    assert isinstance(pool, ThreadPool)
    assert pool.max_batch == 1
    assert pool.describe() == "run to completion on 2 threads"
    assert "in batches of 8" in why
    assert pool.image_s >= 0.01


def test_where_a_batch_takes_as_long_as_one_image_batches_are_made(colour_bundle: Bundle) -> None:
    pool, _ = choose_pool(model(colour_bundle, FakeEngine(constant)), 2, "auto", 32)
    assert isinstance(pool, ThreadPool)
    assert pool.max_batch == 8  # as it was tried


def test_a_gpu_gets_an_executor_and_the_cores_decode(colour_bundle: Bundle) -> None:
    pool, _ = choose_pool(model(colour_bundle, OnGpu(constant)), 2, "auto", 8)
    assert isinstance(pool, DynamicBatcher)
    assert pool.describe() == "batches of up to 8 images, decoded on 2 threads"


def test_with_a_gpu_it_is_known_from_the_start_how_long_decoding_takes(
    colour_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = LoadedModel.prepare
    monkeypatch.setattr(LoadedModel, "prepare", lambda self, encoded: time.sleep(0.02) or prepare(self, encoded))
    pool = choose_pool(model(colour_bundle, OnGpu(constant)), 2, "on", 64)[0]
    assert pool.predicted_s() >= 0.03
    assert pool.predicted_s(ahead=60) >= 0.6


@pytest.mark.parametrize("answer", [constant, by_the_image])
def test_what_is_said_is_not_measured_against(colour_bundle: Bundle, answer: Any) -> None:
    off = choose_pool(model(colour_bundle, FakeEngine(answer)), 1, "off", 32)[0]
    on = choose_pool(model(colour_bundle, FakeEngine(answer)), 1, "on", 16)[0]
    assert (off.max_batch, on.max_batch) == (1, 16)
