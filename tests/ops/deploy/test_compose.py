"""The compose file: by the rules of the specification, locked down, and with entry points that work."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lensmith import api
from lensmith.bundle.format import Bundle
from lensmith.config import ServeSettings
from lensmith.core.credentials import redis_password


@pytest.fixture(scope="module")
def folder(colour_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.deploy("compose", colour_bundle.path, out=tmp_path_factory.mktemp("compose") / "out").folder


@pytest.fixture(scope="module")
def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "compose.yml").read_text())
    return found


def test_it_is_what_the_specification_asks_for(document: dict[str, Any]) -> None:
    PyCompose = pytest.importorskip("compose_spec").PyCompose  # noqa: N806
    PyCompose.from_json(json.dumps(document)).validate()
    assert "version" not in document
    assert list(document["services"]) == ["nginx", "replica-1", "replica-2", "redis", "prometheus", "grafana"]


def test_every_container_is_locked_and_limited(document: dict[str, Any]) -> None:
    for name, service in document["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["cpus"], name
        assert ":latest" not in service["image"], name
        assert ":" in service["image"], name
        assert "healthcheck" in service or "build" in service, name  # the image of the service has its own


def test_only_nginx_and_grafana_are_reached_from_outside_and_only_from_here(document: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in document["services"].items() if "ports" in service}
    assert ports == {"nginx": ["127.0.0.1:8080:8080"], "grafana": ["127.0.0.1:3000:3000"]}
    for name, network in document["networks"].items():
        assert network.get("internal", False) is (name != "outside")
    outside = {name for name, service in document["services"].items() if "outside" in service["networks"]}
    assert outside == {"nginx", "grafana"}


def test_every_file_that_a_container_mounts_is_there(document: dict[str, Any], folder: Path) -> None:
    for service in document["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (folder / source).exists() if source.startswith("./") else source in document["volumes"]
    for secret in document["secrets"].values():
        assert len((folder / secret["file"]).read_text()) >= 32
    assert Bundle.load(folder / "bundles/current").manifest.name == "colours"
    environment = document["services"]["grafana"]["environment"]
    for name in ("ANALYTICS_REPORTING", "ANALYTICS_CHECK_FOR_UPDATES", "NEWS_NEWS_FEED_ENABLED"):  # it asks for nobody
        assert environment.get(f"GF_{name}", environment.get(f"GF_{name}_ENABLED")) == "false"
    assert environment["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    home = environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].replace("/etc/grafana", "./grafana")
    assert (folder / home).is_file()


def test_a_replica_knows_its_secrets_by_their_files(
    document: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = document["services"]["replica-1"]
    flags = dict(flag.removeprefix("--").replace("-", "_").split("=") for flag in replica["command"])
    settings = ServeSettings.resolve({"bundle": "/bundles/current", **flags})
    assert settings.jwt_secret_file == Path("/run/secrets/jwt_secret")
    assert settings.quota_store == "redis://redis:6379/0"
    for name, value in replica["environment"].items():
        monkeypatch.setenv(name, value.replace("/run/secrets", str(folder / "secrets")))
    assert redis_password() == (folder / "secrets/redis_password").read_text().strip()
    assert {"jwt_secret", "redis_password"} == set(replica["secrets"])


def test_the_store_of_rate_limits_requires_its_password_and_stops_on_a_signal(
    document: dict[str, Any], folder: Path, program: Callable[..., str], free_port: Callable[[], int], tmp_path: Path
) -> None:
    server, port = program("redis-server", "redis-server"), free_port()
    shell, flag, script = document["services"]["redis"]["entrypoint"]
    script = script.replace("$$", "$").replace("/run/secrets", str(folder / "secrets"))
    # Valkey began as Redis 7.2 and reads the same lines.
    script = script.replace("valkey-server", server).replace("dir /tmp", f"dir {tmp_path}")
    script = script.replace("maxmemory 128mb", f"maxmemory 128mb\nport {port}\nbind 127.0.0.1")
    process = subprocess.Popen([shell, flag, script], stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", port), timeout=30)
                break
            except ConnectionRefusedError:
                assert process.poll() is None
                time.sleep(0.02)
        with connection, connection.makefile("rw") as lines:
            password = (folder / "secrets/redis_password").read_text()
            answers = []
            for said in ("PING", f"AUTH {password}", "PING"):
                lines.write(f"{said}\r\n")
                lines.flush()
                answers.append(lines.readline().strip())
        assert answers[0].startswith("-NOAUTH")
        assert answers[1:] == ["+OK", "+PONG"]
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_nginx_looks_names_up_anew(folder: Path) -> None:
    text = (folder / "nginx/lensmith.conf").read_text()
    assert "resolver 127.0.0.11 valid=5s;" in text
    assert "server replica-2:8000 max_fails=0 resolve;" in text
    assert "listen 0.0.0.0:8080;" in text


def test_the_address_of_the_host_can_be_another(tmp_path: Path) -> None:
    folder = api.deploy("compose", out=tmp_path / "out", listen="80").folder
    assert 'ports: ["80:8080"]' in (folder / "compose.yml").read_text()
