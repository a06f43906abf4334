"""Grafana dashboard: rows of panels from `templates/grafana/panels.yml`, laid out as Grafana's JSON."""

import json
from typing import Any

import yaml

from lensmith.ops.deploy.render import render

SCHEMA_VERSION = 41
"""Schema of Grafana 12; newer versions migrate it."""
WIDTH = 24
"""Columns of Grafana's grid."""
HEIGHT = 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> str:
    """The dashboard as JSON."""
    described = yaml.safe_load(render("grafana/panels.yml"))
    panels: list[dict[str, Any]] = []
    y = 0
    for row in described["rows"]:
        collapsed = row.get("collapsed", False)
        head = {"type": "row", "title": row["row"], "collapsed": collapsed, "panels": []}
        head["gridPos"] = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        width = WIDTH // len(row["panels"])
        inside = [
            _panel(one, {"h": HEIGHT, "w": width, "x": width * at, "y": y + 1}) for at, one in enumerate(row["panels"])
        ]
        # Grafana nests the panels of a collapsed row in it, and lists those of an open row after it.
        if collapsed:
            head["panels"] = inside
        panels += [head] if collapsed else [head, *inside]
        y += 1 if collapsed else 1 + HEIGHT
    for number, each in enumerate((each for panel in panels for each in (panel, *panel.get("panels", ()))), start=1):
        each["id"] = number
    document = {
        "uid": "lensmith",
        "title": "lensmith",
        "description": described["description"],
        "tags": ["lensmith"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": _variables(described["instances"])},
        "panels": panels,
    }
    return json.dumps(document, indent=2) + "\n"


def _variables(instances: str) -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}
    replica = {
        "name": "instance",
        "label": "Replica",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": instances, "refId": "instance"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    return [source, replica]


def _panel(described: dict[str, Any], place: dict[str, int]) -> dict[str, Any]:
    kind = described.get("type", "timeseries")
    defaults: dict[str, Any] = {"unit": described.get("unit", "short"), "min": 0}
    if "max" in described:
        defaults["max"] = described["max"]
    if kind == "timeseries":
        defaults["custom"] = {"fillOpacity": 10, "showPoints": "never"}
        if described.get("stacked"):
            defaults["custom"] |= {"stacking": {"mode": "normal"}, "fillOpacity": 50}
    if "line" in described:  # the objective, as a line
        steps = [{"color": "green", "value": None}, {"color": "red", "value": described["line"]}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        if kind == "timeseries":
            defaults["custom"]["thresholdsStyle"] = {"mode": "line"}
    options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    if kind == "table":
        options = {"showHeader": True}
    elif kind == "heatmap":
        options = {"calculate": False, "yAxis": {"unit": "percentunit"}, "color": {"scheme": "Blues"}}
    table = {"format": "table", "instant": True} if kind == "table" else {}
    heat = {"format": "heatmap"} if kind == "heatmap" else {}
    return {
        "type": kind,
        "title": described["title"],
        "description": described.get("what", ""),
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": DATASOURCE, "expr": expression, "legendFormat": legend}
            | table
            | heat
            for at, (legend, expression) in enumerate(described["shows"].items())
        ],
    }
