"""`lensmith demo`."""

from typing import Any

from lensmith import api
from lensmith.cli.options import Output, command_for
from lensmith.cli.output import print_line, print_table
from lensmith.config import DemoSettings


def demo(given: dict[str, Any]) -> Output:
    """Run every step on real images: fetch, check, train, export, evaluate, serve, classify.

    Fashion-MNIST and an ImageNet EfficientNet-Lite0 that comes by pip; about a minute on two cores.
    """
    shown = api.demo(**given)
    yield shown
    rows = [(name, f"{seconds:.1f} s") for name, seconds in shown.steps.items()]
    print_table("Steps", ("step", "took"), [*rows, ("together", f"{shown.seconds_total:.1f} s")])
    print_line()
    results = [
        ("accuracy offline", f"{shown.accuracy_offline:.4f}"),
        ("accuracy over HTTP", f"{shown.accuracy_http:.4f}"),
        ("same class by both", f"{shown.top1_agreement:.2%}"),
        ("requests a second", f"{shown.requests_per_second:,.0f}"),
        ("median latency", f"{shown.latency_ms:.1f} ms"),
    ]
    print_table("Held-out images", ("figure", "value"), results)
    print_line(f"\nImages from {shown.source}")
    print_line(f"Report      {shown.report}")
    print_line(f"Bundle      {shown.bundle}")
    if shown.url:
        print_line(f"Service     {shown.url} (stop it with: kill {shown.pid})")
    print_line(("\nNext", "bold"), ", with your own images in DIR/CLASS/*.jpg:")
    print_line("  lensmith data check DIR")
    print_line("  lensmith train DIR")
    print_line(f"  lensmith serve {shown.bundle}")


command = command_for(DemoSettings, demo)
