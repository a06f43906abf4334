"""Prometheus and Grafana: what to scrape, rules that say when an objective is missed, and the dashboard."""

from __future__ import annotations

from collections.abc import Sequence

from lensmith.ops.deploy.grafana import dashboard
from lensmith.ops.deploy.plan import Files, Plan
from lensmith.ops.deploy.render import page

RULES = ("lensmith-rules.yml", "lensmith-alerts.yml", "lensmith-alerts.test.yml")


def files(plan: Plan) -> Files:
    """`prometheus/` and `grafana/`, for a Prometheus on the machine of the replicas."""
    return watching(plan.replicas, "http://127.0.0.1:9090", "/etc/grafana/dashboards")


def watching(replicas: Sequence[str], prometheus_url: str, dashboards: str) -> dict[str, str]:
    """The same for any place.

    Args:
        replicas: HOST:PORT of each, as Prometheus reaches it.
        prometheus_url: as Grafana reaches it.
        dashboards: folder in which Grafana will find `lensmith.json`.
    """
    return {
        "prometheus/prometheus.yml": page("prometheus/prometheus.yml", replicas=replicas),
        **{f"prometheus/{name}": page(f"prometheus/{name}") for name in RULES},
        "grafana/dashboards/lensmith.json": dashboard(),
        "grafana/provisioning/datasources/lensmith.yml": page("grafana/datasource.yml", url=prometheus_url),
        "grafana/provisioning/dashboards/lensmith.yml": page("grafana/provider.yml", folder=dashboards),
    }
