"""Models whose engines are functions of the test."""

from pathlib import Path

import pytest

from fixtures.serving import BlockingEngine, ModelOf
from lensmith.bundle.format import Bundle
from lensmith.inference.classifier import Classifier
from lensmith.inference.engine import FakeEngine
from lensmith.serving.execution.loaded_model import LoadedModel


@pytest.fixture
def blocking() -> BlockingEngine:
    return BlockingEngine()


@pytest.fixture
def model_of(colour_bundle: Bundle) -> ModelOf:
    """`model_of(answer)`: a model whose engine is `answer`, batch → logits."""
    return lambda answer: LoadedModel(Classifier(colour_bundle, FakeEngine(answer)), 10**8, Path("bundle"))
