"""READMEs, scripts and configurations of the formats, from the templates in `exporting/templates/formats/`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lensmith.exporting.formats.base import FormatExport, TrainedNetwork
from lensmith.training.models.onnx_export import INPUT, OUTPUT

TITLES = {
    "pt2": "torch.export program",
    "torchscript": "TorchScript",
    "safetensors": "safetensors weights",
    "openvino": "OpenVINO IR",
    "tensorrt": "TensorRT build recipe",
    "triton": "Triton model repository",
    "edge": "edge folder",
}


def templates() -> Environment:
    """The templates of this package: Markdown and scripts, so nothing is escaped for HTML."""
    return Environment(
        loader=PackageLoader("lensmith.exporting"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def write_page(path: Path, template: str, network: TrainedNetwork, **more: Any) -> None:
    """Fill in a template of `templates/formats/` and write it to `path`.

    Args:
        path: file to write.
        template: name of the template, without `.j2`.
        network: the trained network, the template's `s`.
        more: further variables of the template.
    """
    how = dataclasses.asdict(network.preprocessing)
    names = {"s": network, "how": how, "classes": len(network.labels), "input": INPUT, "output": OUTPUT, "at": ""}
    text = templates().get_template(f"formats/{template}.j2").render(**names, **more)
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


def write_readme(folder: Path, name: str, network: TrainedNetwork, terms: Mapping[str, Any]) -> None:
    """Write the README.md of one format; `terms` are further variables of its template."""
    write_page(folder / "README.md", "one.md", network, format=name, title=TITLES[name], **terms)


def write_overview(
    folder: Path, network: TrainedNetwork, written: Sequence[FormatExport], terms: Mapping[str, Any]
) -> None:
    """Write the README.md above all formats; `terms` are further variables of its template."""
    write_page(folder / "README.md", "all.md", network, written=written, titles=TITLES, **terms)
