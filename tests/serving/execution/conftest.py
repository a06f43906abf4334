"""Models whose engines are functions of the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.serving import BlockingEngine, ModelOf
from lensmith.bundle.format import Bundle
from lensmith.inference.classifier import Classifier
from lensmith.inference.engine import FakeEngine
from lensmith.serving.execution.loaded_model import LoadedModel
from lensmith.serving.execution.thread_pool import Pool


@pytest.fixture(autouse=True)
def _closed_pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The threads of a test's pools end with it."""
    pools: list[Pool] = []
    start = Pool.__init__

    def note(pool: Pool, threads: int, max_batch: int) -> None:
        pools.append(pool)
        start(pool, threads, max_batch)

    monkeypatch.setattr(Pool, "__init__", note)
    yield
    for pool in pools:
        pool.close()


@pytest.fixture
def blocking() -> BlockingEngine:
    return BlockingEngine()


@pytest.fixture
def model_of(colour_bundle: Bundle) -> ModelOf:
    """`model_of(answer)`: a model whose engine is `answer`, batch → logits."""
    return lambda answer: LoadedModel(Classifier(colour_bundle, FakeEngine(answer)), 10**8, Path("bundle"))
