"""What the OpenAPI document promises, asked with right and wrong requests made from it: every address that is in it.

LENSMITH_FAULTS=full makes twelve times as many.
"""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lensmith import api
from lensmith.config import ServeSettings

EXAMPLES = 300 if os.environ.get("LENSMITH_FAULTS") == "full" else 25
BINARY = ("image/jpeg", "image/png", "application/x-image", "application/octet-stream")
ACCEPTED = ["2xx", "401", "403", "404"]
"""Of a request that the document allows."""
UNUSABLE = ["409", "413", "415", "422"]
"""What is posted may still be no image, or none for this model, or no bundle, or contradict what was said before; a
header may announce too much."""
REJECTED = ["400", "401", "403", "404", "405", "406", "413", "415", "422"]
"""Of a request that it does not allow."""


@pytest.fixture(scope="module")
def _images(shared_colours: Path) -> None:
    """Where the document wants bytes, real images and others are sent."""
    import schemathesis
    from hypothesis import strategies

    files = [(shared_colours / "red" / name).read_bytes() for name in ("000.png", "001.jpg")]
    schemathesis.openapi.format("binary", strategies.sampled_from(files))
    for name in BINARY:
        schemathesis.openapi.media_type(name, strategies.sampled_from(files))


def examine(app: FastAPI, config: dict[str, Any]) -> tuple[dict[str, Counter[int]], list[str]]:
    """Statuses of the answers of each operation, and every broken promise once."""
    import schemathesis
    from schemathesis.config import SchemathesisConfig
    from schemathesis.engine import events, from_schema

    found = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "generation": {"max-examples": EXAMPLES, "mode": "all", "deterministic": True, "no-shrink": True},
            "phases": {"stateful": {"enabled": False}},
            "checks": {
                "positive_data_acceptance": {"expected-statuses": ACCEPTED},
                "negative_data_rejection": {"expected-statuses": REJECTED},
            },
            "operations": [
                {
                    "include-method": "POST",
                    "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, *UNUSABLE]}},
                }
            ],
            **config,
        }
    )
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=found)
    statuses: dict[str, Counter[int]] = {}
    broken: dict[tuple[str, str, str], str] = {}
    for event in from_schema(schema).execute():
        if isinstance(event, events.FatalError):
            raise event.exception
        if isinstance(event, events.NonFatalError):
            broken[event.label, "error", ""] = str(event.info)
        if not isinstance(event, events.ScenarioFinished):
            continue
        recorder = event.recorder
        for case, interaction in recorder.interactions.items():
            if interaction.response is not None:
                label = recorder.cases[case].value.operation.label
                statuses.setdefault(label, Counter())[interaction.response.status_code] += 1
        for case, checks in recorder.checks.items():
            for check in checks:
                # A form has no types: `file=false` is a file of five bytes, with an answer of its own among others.
                sample = check.failure_info.code_sample if check.failure_info else ""
                untyped = check.name == "negative_data_rejection" and 'name="file"\\r\\n' in sample
                if check.failure_info is not None and not untyped:
                    label = recorder.cases[case].value.operation.label
                    failure = check.failure_info
                    broken[label, check.name, failure.failure.title] = (
                        f"{failure.failure.message}\n{failure.code_sample[:500]}"
                    )
    return statuses, [f"{' | '.join(key)}: {text}" for key, text in broken.items()]


def operations_of(app: FastAPI) -> set[str]:
    paths = app.openapi()["paths"]
    return {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return tmp_path / "secret"


@pytest.fixture
def new_app(
    app_of: Callable[..., FastAPI], settings: ServeSettings, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., FastAPI]:
    """`new_app(**settings)`: a service with every address that there is, Vertex AI's among them."""
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/vertex/health")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/vertex/predict")
    usual = {"threads": 1, "batching": "off", "deadline_ms": 600_000, "quota": "none"}
    return lambda **changed: app_of(settings.model_copy(update=usual | changed))


@pytest.mark.slow
@pytest.mark.usefixtures("_images")
@pytest.mark.parametrize("tokens", [False, True], ids=["open", "tokens"])
def test_no_answer_breaks_the_document_and_none_comes_without_a_token_that_is_needed(
    tokens: bool, new_app: Callable[..., FastAPI], secret: Path
) -> None:
    token = api.token("tester", secret_file=secret, scopes="predict,admin")
    app = new_app(jwt_secret_file=secret if tokens else None)
    assert ("securitySchemes" in app.openapi()["components"]) == tokens
    statuses, broken = examine(app, {"auth": {"openapi": {"token": {"bearer": token.text}}}} if tokens else {})
    print(*statuses.items(), *broken, sep="\n")
    assert broken == []
    assert statuses.keys() == operations_of(app)
    for operation, counts in statuses.items():
        # Something was right in it; tensors of the one shape and name that a model takes do not come about by chance,
        # nor do identifiers of answers.
        assert 200 in counts or operation.endswith("/infer") or operation == "POST /feedback", operation
        assert max(counts) < 500, operation
    assert any(401 in counts and 200 in counts for counts in statuses.values()) == tokens


def test_a_predicting_token_is_no_key_to_admin_acts_and_strangers_get_nothing(
    new_app: Callable[..., FastAPI], secret: Path
) -> None:
    token = api.token("tester", secret_file=secret)
    app = new_app(jwt_secret_file=secret)
    assert app.openapi()["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    with TestClient(app) as client:
        for path, operations in app.openapi()["paths"].items():
            for method, operation in operations.items():
                address = path.replace("{name}", "colours").replace("{version}", "1")
                status = client.request(method, address).status_code
                assert (status == 401) == (operation.get("security") != []), (method, path, status)
                if path.startswith("/admin/"):
                    allowed = client.request(method, address, headers={"Authorization": f"Bearer {token.text}"})
                    assert allowed.status_code == 403
