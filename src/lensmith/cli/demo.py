"""`lensmith demo`."""

from __future__ import annotations

from typing import Any

from lensmith import api
from lensmith.cli.options import Json, command_for
from lensmith.cli.output import print_json, say, table
from lensmith.config import DemoSettings


def demo(given: dict[str, Any], *, as_json: Json = False) -> None:
    """The whole way on real images: fetch, check, train, export, evaluate, serve, classify over HTTP.

    Fashion-MNIST and an ImageNet EfficientNet-Lite0 that comes by pip; about two minutes on two cores.
    """
    shown = api.demo(**given)
    if as_json:
        print_json(shown.as_dict())
        return
    rows = [(name, f"{seconds:.1f} s") for name, seconds in shown.steps.items()]
    table("Steps", ("step", "took"), [*rows, ("together", f"{shown.seconds_total:.1f} s")])
    say()
    results = [
        ("accuracy offline", f"{shown.accuracy_offline:.4f}"),
        ("accuracy over HTTP", f"{shown.accuracy_http:.4f}"),
        ("same class by both", f"{shown.top1_agreement:.2%}"),
        ("requests a second", f"{shown.requests_per_second:,.0f}"),
        ("median latency", f"{shown.latency_ms:.1f} ms"),
    ]
    table("Held-out images", ("figure", "value"), results)
    say(f"\nImages from {shown.source}")
    say(f"Report      {shown.report}")
    say(f"Bundle      {shown.bundle}")
    if shown.url:
        say(f"Service     {shown.url} (stop it with: kill {shown.pid})")
    say(("\nNext", "bold"), ", with your own images in DIR/CLASS/*.jpg:")
    say("  lensmith data check DIR")
    say("  lensmith train DIR")
    say(f"  lensmith serve {shown.bundle}")


command = command_for(DemoSettings, demo)
