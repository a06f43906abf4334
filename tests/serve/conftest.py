"""A classifier and a running application for the tests of the service."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from lensmith.bundle import Bundle
from lensmith.classifier import Classifier, load
from lensmith.config import ServeSettings
from lensmith.serve.app import create_app


@pytest.fixture(scope="session")
def classifier(colour_bundle: Bundle) -> Classifier:
    return load(colour_bundle.path)


@pytest.fixture
def settings(colour_bundle: Bundle) -> ServeSettings:
    return ServeSettings(bundle=colour_bundle.path, port=0)


@pytest.fixture
def client(classifier: Classifier, settings: ServeSettings) -> Iterator[TestClient]:
    with TestClient(create_app(classifier, settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def red_png(colours: Path) -> bytes:
    return (colours / "red" / "000.png").read_bytes()


@pytest.fixture
def noise_jpeg() -> bytes:
    """A JPEG of about 300 kB: several chunks on the wire."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    out = BytesIO()
    Image.fromarray(noise).save(out, "JPEG", quality=95)
    return out.getvalue()
