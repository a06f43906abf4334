"""`lensmith export`."""

from __future__ import annotations

from typing import Any

from lensmith import api
from lensmith.cli.options import Json, command_for
from lensmith.cli.output import print_json, say, table
from lensmith.config import ExportSettings


def export(given: dict[str, Any], *, as_json: Json = False) -> None:
    """Turn a run into a bundle that a service can run.

    The best epoch becomes an ONNX graph with a free batch dimension; the engine that will serve answers the validation
    part, and is compared with PyTorch image by image.
    """
    made = api.export(**given)
    if as_json:
        print_json(made.as_dict())
        return
    parity = made.parity
    say((str(made.bundle), "bold"))
    say(f"  largest difference of a probability {parity.largest_difference:.2g}")
    say(f"  top-1 agreement {parity.agreement:.2%} of {parity.images:,} images")
    say(f"  accuracy {made.evaluation.metrics.accuracy:.4f}, {made.evaluation.latency_ms:.1f} ms an image")
    if parity.disagreements:
        rows = [(d.path, d.torch, d.graph, f"{d.margin:.4f}") for d in parity.disagreements]
        table("Images with another answer", ("image", "PyTorch", "graph", "margin"), rows)


command = command_for(ExportSettings, export)
