"""What holds for every kind: whole or not at all, nothing of others' lost, nothing odd let into a file."""

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest

from lensmith import api
from lensmith.bundle.format import Bundle
from lensmith.config import DeploySettings
from lensmith.errors import BundleError, LensmithError, OutputError, SettingsError
from lensmith.ops.deploy.run import KINDS


def test_every_kind_that_can_be_named_can_be_written(tmp_path: Path) -> None:
    assert set(get_args(DeploySettings.model_fields["kind"].annotation)) == set(KINDS)
    for kind in KINDS:
        made = api.deploy(kind, out=tmp_path / kind)
        on_disk = {file.relative_to(made.folder).as_posix() for file in made.folder.rglob("*") if file.is_file()}
        assert on_disk == {*made.files, "deploy.json"}
        for name in made.files:
            assert "[[ " not in (made.folder / name).read_text(), name


def test_what_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError):
            api.deploy("nginx", out=folder, overwrite=overwrite)
    assert [file.name for file in folder.iterdir()] == ["mine"]


def test_overwriting_keeps_secrets_and_files_of_others(tmp_path: Path) -> None:
    folder = api.deploy("compose", out=tmp_path / "out").folder
    secret = (folder / "secrets/jwt_secret").read_text()
    assert len(secret) >= 32
    assert (folder / "secrets").stat().st_mode & 0o777 == 0o700
    (folder / "compose.override.yml").write_text("mine")
    (folder / "compose.yml").write_text("changed")
    with pytest.raises(OutputError, match="--overwrite"):
        api.deploy("compose", out=folder)
    assert (folder / "compose.yml").read_text() == "changed"

    api.deploy("compose", out=folder, overwrite=True)

    assert (folder / "secrets/jwt_secret").read_text() == secret
    assert (folder / "secrets").stat().st_mode & 0o777 == 0o700
    assert (folder / "compose.override.yml").read_text() == "mine"
    assert "changed" not in (folder / "compose.yml").read_text()
    assert secret not in (folder / "deploy.json").read_text()


def test_a_bundle_is_checked_before_it_is_copied_and_replaced_whole(colour_bundle: Bundle, tmp_path: Path) -> None:
    folder = api.deploy("docker", colour_bundle.path, out=tmp_path / "out").folder
    assert Bundle.load(folder / "bundle").manifest == colour_bundle.manifest
    assert "COPY bundle /bundle" in (folder / "Dockerfile").read_text()
    damaged = tmp_path / "damaged"
    shutil.copytree(colour_bundle.path, damaged)
    (damaged / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError):
        api.deploy("docker", damaged, out=folder, overwrite=True)
    assert Bundle.load(folder / "bundle").manifest == colour_bundle.manifest
    api.deploy("docker", out=folder, overwrite=True)
    assert not (folder / "bundle/model.onnx").exists()


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no\.whl"):
        api.deploy("docker", out=tmp_path / "deep" / "out", wheel=tmp_path / "no.whl")
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("nginx", {"replica": ["127.0.0.1:1; return 200"]}),
        ("nginx", {"replica": ["127.0.0.1:1", "127.0.0.1:1"]}),
        ("nginx", {"listen": "80;"}),
        ("nginx", {"logs": "/tmp/a b"}),
        ("nginx", {"tls_certificate": "/c.pem"}),
        ("nginx", {"bundle": "b"}),
        ("nginx", {"wheel": "x.whl"}),
        ("nginx", {"cron": "0 4 * * *"}),
        ("systemd", {"bundle": "/home/me/bundle"}),
        ("systemd", {"bundle": "bundle"}),
        ("systemd", {"replica": ["10.0.0.7:8001"]}),
        ("compose", {"replica": ["127.0.0.1:1"]}),
        ("docker", {"wheel": "x.tar.gz"}),
        ("kubernetes", {}),
    ],
)
def test_what_would_break_a_file_is_refused(kind: str, settings: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(LensmithError):
        api.deploy(kind, out=tmp_path / "out", **settings)
    assert list(tmp_path.iterdir()) == []


def test_settings_of_the_service_are_those_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lensmith.yaml").write_text("serve: {max_bytes: 9000000, quota: 500/minute, host: 10.0.0.1, workers: 2}\n")
    said = {"MAX_BYTES": "9000000", "QUOTA": "500/minute", "WORKERS": "2", "LOG_FORMAT": "json"}
    api.deploy("systemd", out=Path("units"))
    lines = Path("units/lensmith.env").read_text().splitlines()
    assert dict(line.split("=", 1) for line in lines if line.startswith("LENSMITH")) == {
        f"LENSMITH_SERVE_{name}": json.dumps(value) for name, value in said.items()
    }
    api.deploy("nginx", out=Path("nginx"))
    assert "client_max_body_size 9065536;" in Path("nginx/lensmith.conf").read_text()
    Path("lensmith.yaml").write_text("serve: {max_bytes: many}\n")
    with pytest.raises(SettingsError, match="max_bytes"):
        api.deploy("nginx", out=Path("other"))
