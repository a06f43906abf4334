"""Rules and dashboard, as Prometheus itself reads them; and a real one that asks a real service."""

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lensmith import api
from lensmith.bundle.format import Bundle
from lensmith.serving.child_process import ServiceProcess, start_service

MEASURED = {
    "lensmith_requests_total", "lensmith_request_seconds_bucket", "lensmith_decode_seconds_sum",
    "lensmith_decode_seconds_count", "lensmith_queue_seconds_sum", "lensmith_queue_seconds_count",
    "lensmith_inference_seconds_sum", "lensmith_inference_seconds_count", "lensmith_batch_images_sum",
    "lensmith_batch_images_count", "lensmith_batch_images_bucket", "lensmith_images_queued",
    "lensmith_images_running", "lensmith_threads", "lensmith_shed_total", "lensmith_over_quota_total",
    "lensmith_abstained_total", "lensmith_answers_total", "lensmith_confidence_bucket", "lensmith_memory_bytes",
    "lensmith_memory_limit_bytes", "lensmith_model_info", "lensmith_ready", "lensmith_observer_failures_total",
    "lensmith_log_lines_dropped_total",
}  # fmt: skip
"""What every service measures, and rules and dashboard may ask for."""
SOMETIMES = {
    "lensmith_gpu_utilisation_ratio", "lensmith_gpu_memory_bytes", "lensmith_gpu_memory_limit_bytes",
    "lensmith_quota_store_up", "lensmith_worker_restarts_total", "lensmith_rollout_requests_total",
    "lensmith_rollout_share", "lensmith_rollout_under_way", "lensmith_rollout_decisions_total", "lensmith_registry_up",
    "lensmith_drift_score", "lensmith_feedback_total", "lensmith_registry_followed", "lensmith_metrics_complete",
}  # fmt: skip
"""With a GPU, a shared store of quotas, several workers, a registry, a bundle that says what drift is, feedback."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.deploy("prometheus", out=tmp_path_factory.mktemp("prometheus") / "out").folder


@pytest.fixture
def promtool(program: Callable[..., str]) -> Callable[..., str]:
    path = program("promtool", "prometheus")

    def run(*args: str, text: str | None = None) -> str:
        done = subprocess.run([path, *args], input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def service(colour_bundle: Bundle, shared_colours: Path) -> Iterator[ServiceProcess]:
    """A service that has answered one request."""
    with start_service(colour_bundle.path) as service:
        body = (shared_colours / "red" / "001.jpg").read_bytes()
        request = urllib.request.Request(f"{service.url}/predict", body, {"Content-Type": "image/jpeg"})
        assert urllib.request.urlopen(request).status == 200
        yield service


def expressions(folder: Path) -> list[str]:
    """Every PromQL expression of the dashboard, with Grafana's variables filled in."""
    dashboard = json.loads((folder / "grafana/dashboards/lensmith.json").read_text())
    panels = [each for panel in dashboard["panels"] for each in (panel, *panel.get("panels", ()))]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [each.replace("$__rate_interval", "1m").replace("$instance", ".*") for each in found]


def test_prometheus_accepts_the_configuration_and_the_rules(folder: Path, promtool: Callable[..., str]) -> None:
    assert "2 rule files found" in promtool("check", "config", str(folder / "prometheus/prometheus.yml"))


@pytest.mark.slow
def test_every_alert_fires_when_it_must_and_only_then(folder: Path, promtool: Callable[..., str]) -> None:
    promtool("test", "rules", str(folder / "prometheus/lensmith-alerts.test.yml"))


def test_no_alert_is_without_a_test_of_either_kind(folder: Path) -> None:
    rules = yaml.safe_load((folder / "prometheus/lensmith-alerts.yml").read_text())
    tests = yaml.safe_load((folder / "prometheus/lensmith-alerts.test.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    cases = [case for test in tests["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts


def test_every_expression_of_the_dashboard_is_promql(
    folder: Path, promtool: Callable[..., str], tmp_path: Path
) -> None:
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions(folder))]
    assert len(rules) > 20
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


def test_rules_and_dashboard_use_only_metrics_that_exist(folder: Path, service: ServiceProcess) -> None:
    asked = set(re.findall(r"\blensmith_[a-z_]+", "\n".join(expressions(folder))))
    for name in ("lensmith-rules.yml", "lensmith-alerts.yml"):
        text = "\n".join(re.sub(r"#.*", "", line) for line in (folder / "prometheus" / name).read_text().splitlines())
        for expression in re.findall(r"expr:.*?(?=\n\s+(?:for|labels|-)|\Z)", text, re.DOTALL):
            asked |= set(re.findall(r"\blensmith_[a-z_]+", expression))
    assert asked - SOMETIMES <= MEASURED
    page = urllib.request.urlopen(f"{service.url}/metrics").read().decode()
    measured = set(re.findall(r"^# TYPE (lensmith_[a-z_]+)", page, re.MULTILINE))
    for name in asked - SOMETIMES:
        assert name in measured or re.sub(r"_(bucket|sum|count)$", "", name) in measured, name


def test_the_panels_of_the_dashboard_do_not_overlap_and_have_data(folder: Path) -> None:
    dashboard = json.loads((folder / "grafana/dashboards/lensmith.json").read_text())
    panels = [each for panel in dashboard["panels"] for each in (panel, *panel.get("panels", ()))]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    for panel in panels:
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
    lines = [p["fieldConfig"]["defaults"].get("thresholds") for p in panels if p["title"] == "Latency"]
    assert lines[0]["steps"][1]["value"] == 0.2
    source = yaml.safe_load((folder / "grafana/provisioning/datasources/lensmith.yml").read_text())
    assert source["datasources"][0]["type"] == "prometheus"


def test_the_page_of_metrics_passes_promtool(service: ServiceProcess, promtool: Callable[..., str]) -> None:
    promtool("check", "metrics", text=urllib.request.urlopen(f"{service.url}/metrics").read().decode())


@pytest.mark.slow
def test_a_real_prometheus_reads_a_real_service(
    service: ServiceProcess, program: Callable[..., str], free_port: Callable[[], int], tmp_path: Path
) -> None:
    prometheus, port = program("prometheus", "prometheus"), free_port()
    replica = service.url.removeprefix("http://")
    folder = api.deploy("prometheus", out=tmp_path / "out", replica=[replica]).folder / "prometheus"
    settings = folder / "prometheus.yml"
    quick = settings.read_text().replace("_interval: 10s", "_interval: 1s").replace("timeout: 5s", "timeout: 1s")
    settings.write_text(quick)
    command = [prometheus, f"--config.file={settings}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")

    def query(expression: str) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return found
        except OSError:  # not up yet
            return []

    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        wanted = 'lensmith_requests_total{route="/predict", status="200"} and on (instance) up{job="lensmith"} == 1'
        while not (found := query(wanted)):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        assert found[0]["metric"]["instance"] == replica
        assert found[0]["value"][1] == "1"
        while not query("lensmith:requests:rate5m"):  # the rules run, too
            assert process.poll() is None
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait()
