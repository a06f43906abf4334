"""A classifier and running applications for the tests of the service."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from lensmith.bundle.format import Bundle
from lensmith.config import ServeSettings
from lensmith.inference.classifier import Classifier, load
from lensmith.serving.app import create_app
from lensmith.serving.execution import autotune
from lensmith.serving.execution.loaded_model import LoadedModel
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.execution.thread_pool import ThreadPool


@pytest.fixture(scope="module", autouse=True)
def _short_trial() -> Iterator[None]:
    """Hundreds of services are started here, and none for its speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autotune, "TRIAL_S", 0.0)
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What runs the tests that are coroutines; their files are marked `anyio`."""
    return "asyncio"


@pytest.fixture(scope="session")
def classifier(colour_bundle: Bundle) -> Classifier:
    return load(colour_bundle.path)


@pytest.fixture(scope="session")
def settings(colour_bundle: Bundle) -> ServeSettings:
    """Patient, as other tests may take the cores."""
    return ServeSettings(bundle=colour_bundle.path, port=0, deadline_ms=20_000)


@pytest.fixture(scope="session")
def app_of() -> Callable[..., FastAPI]:
    """`app_of(settings)`: the application for a bundle; `app_of(settings, classifier)`: for any classifier."""

    def make(settings: ServeSettings, classifier: Classifier | None = None) -> FastAPI:
        if classifier is None:
            return create_app(ModelManager.load(settings), settings)
        return create_app(
            ModelManager(LoadedModel(classifier, settings.max_pixels, settings.bundle), settings), settings
        )

    return make


@pytest.fixture(scope="session")
def client_of(app_of: Callable[..., FastAPI], settings: ServeSettings) -> Callable[..., AbstractContextManager[Any]]:
    """`with client_of(classifier, **changed) as client`: a client on this machine of a service of its own."""

    def make(classifier: Classifier | None = None, **changed: Any) -> TestClient:
        app = app_of(settings.model_copy(update=changed), classifier)
        return TestClient(app, raise_server_exceptions=False, client=("127.0.0.1", 50000))

    return make


@pytest.fixture(scope="module")
def client(client_of: Callable[..., TestClient]) -> Iterator[TestClient]:
    """A client of a service that the tests of a file share: they change nothing in it for good."""
    with client_of() as client:
        yield client


@pytest.fixture
def new_client(client_of: Callable[..., TestClient]) -> Iterator[TestClient]:
    """A client of a service that has answered nothing yet."""
    with client_of() as client:
        yield client


@pytest.fixture(scope="session")
def red_png(shared_colours: Path) -> bytes:
    return (shared_colours / "red" / "000.png").read_bytes()


@pytest.fixture(scope="session")
def noise_jpeg() -> bytes:
    """A JPEG of about 300 kB: several chunks on the wire."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    out = BytesIO()
    Image.fromarray(noise).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.fixture(scope="session")
def ready_app_of(app_of: Callable[..., FastAPI]) -> Callable[..., FastAPI]:
    """`ready_app_of(settings, classifier, image_s)`: one that is ready, for callers that run no lifespan.

    It has `settings.threads` threads, or one, and takes `image_s` seconds for what an image takes.
    """

    def make(settings: ServeSettings, classifier: Classifier, image_s: float = 0.001) -> FastAPI:
        app = app_of(settings, classifier)
        pool = ThreadPool(settings.threads or 1)
        pool.set_estimate(image_s)
        app.state.service.admission.use(pool)
        app.state.service.phase = "ready"
        return app

    return make
