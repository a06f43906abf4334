"""Where a run is tracked."""

from pathlib import Path

import pytest

from lensmith.config import TrainSettings
from lensmith.errors import MissingPackageError, RegistryError, SettingsError
from lensmith.registry import client
from lensmith.tracking import address, sidecar
from lensmith.tracking.address import uri_of
from lensmith.tracking.sidecar import TrackingSidecar
from lensmith.tracking.state import NAME, TrackingState
from lensmith.workflows import train_and_export

SECRET = "postgresql+psycopg://ann:secret@db/runs"
KNOWN = "postgresql+psycopg://ann@db/runs"


def test_auto_is_the_store_of_all_verbs_and_none_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert uri_of("auto", None) == f"sqlite:///{tmp_path / 'runs/mlflow.db'}"
    monkeypatch.setenv("LENSMITH_TRACKING_URI", "http://127.0.0.1:9")
    assert uri_of("auto", None) == "http://127.0.0.1:9"
    assert uri_of("none", None) is None
    assert uri_of("http://127.0.0.1:8", None) == "http://127.0.0.1:8"


def test_a_resumed_run_stays_at_its_uri_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    state = TrackingState("sqlite:////begun.db", "key", 0)
    monkeypatch.setenv("LENSMITH_TRACKING_URI", "http://127.0.0.1:9")
    assert uri_of("auto", state) == "sqlite:////begun.db"
    assert uri_of("http://127.0.0.1:8", state) == "http://127.0.0.1:8"


def test_a_password_is_taken_from_where_all_verbs_have_it_and_is_never_written_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LENSMITH_TRACKING_URI", SECRET)
    assert uri_of("auto", TrackingState(KNOWN, "key", 0)) == SECRET
    assert uri_of(KNOWN, None) == SECRET
    settings = TrainSettings.resolve({"data": tmp_path, "tracking": SECRET})
    assert settings.tracking == SECRET
    assert "secret" not in settings.model_dump_json()
    assert settings.model_dump()["tracking"] == KNOWN


def test_a_missing_mlflow_is_reported_once_and_is_no_error_unless_a_uri_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (address, sidecar):
        monkeypatch.setattr(module, "installed", lambda: False)
    assert uri_of("auto", None) is None
    with pytest.raises(MissingPackageError, match=r"lensmith\[track\]"):
        uri_of("http://127.0.0.1:9", None)
    with TrackingSidecar() as made:
        made.begin(tmp_path, "auto")
    assert capsys.readouterr().err.count("\n") == 1
    assert made.tracked() is None
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("where", ["flag", "environment"])
def test_an_unsupported_address_is_refused_before_anything_is_trained(
    shared_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    given = {"data": shared_colours, "out": tmp_path / "run", "tracking": "ftp://x" if where == "flag" else "auto"}
    if where == "environment":
        monkeypatch.setenv("LENSMITH_TRACKING_URI", "ftp://x")
    with pytest.raises(RegistryError, match="ftp://x"):
        train_and_export.train(given)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("in_tmp_path")
def test_an_empty_address_is_not_a_file_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI"):
        client.uri()
