"""Prometheus and Grafana files: scrape targets, recording and alert rules with their tests, and the dashboard."""

from collections.abc import Sequence

from lensmith.ops.deploy.deployment import Deployment, Files
from lensmith.ops.deploy.grafana import dashboard
from lensmith.ops.deploy.render import render

RULES = ("lensmith-rules.yml", "lensmith-alerts.yml", "lensmith-alerts.test.yml")


def prometheus_files(deployment: Deployment) -> Files:
    """`prometheus/` and `grafana/`, for a Prometheus on the machine of the replicas."""
    return monitoring_files(deployment.replicas, "http://127.0.0.1:9090", "/etc/grafana/dashboards")


def monitoring_files(replicas: Sequence[str], prometheus_url: str, dashboards: str) -> dict[str, str]:
    """`prometheus/` and `grafana/` for given addresses.

    Args:
        replicas: HOST:PORT of each replica, as Prometheus reaches it.
        prometheus_url: URL of Prometheus, as Grafana reaches it.
        dashboards: folder of `lensmith.json`, as Grafana sees it.
    """
    return {
        "prometheus/prometheus.yml": render("prometheus/prometheus.yml", replicas=replicas),
        **{f"prometheus/{name}": render(f"prometheus/{name}") for name in RULES},
        "grafana/dashboards/lensmith.json": dashboard(),
        "grafana/provisioning/datasources/lensmith.yml": render("grafana/datasource.yml", url=prometheus_url),
        "grafana/provisioning/dashboards/lensmith.yml": render("grafana/provider.yml", folder=dashboards),
    }
