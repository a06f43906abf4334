"""The READMEs, scripts and configurations that lie in the folders of formats (`export/templates/formats/`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lensmith.exporting.formats.base import Source, Written
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


def write_page(path: Path, template: str, source: Source, **more: Any) -> None:
    """Fill in a template of `templates/formats/` and write it to `path`.

    Args:
        path: file to write.
        template: its name there, without `.j2`.
        source: what it speaks of.
        more: further names that the template uses.
    """
    environment = Environment(  # Markdown and scripts, so nothing is to be escaped for HTML
        loader=PackageLoader("lensmith.exporting"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    how = dataclasses.asdict(source.preprocessing)
    names = {"s": source, "how": how, "classes": len(source.labels), "input": INPUT, "output": OUTPUT, "at": ""}
    text = environment.get_template(f"formats/{template}.j2").render(**names, **more)
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


def write_readme(folder: Path, name: str, source: Source, terms: Mapping[str, Any]) -> None:
    """The README.md of one format; `terms` are the names that it uses."""
    write_page(folder / "README.md", "one.md", source, format=name, title=TITLES[name], **terms)


def write_overview(folder: Path, source: Source, written: Sequence[Written], terms: Mapping[str, Any]) -> None:
    """The README.md above all formats; `terms` are the names that any of them uses."""
    write_page(folder / "README.md", "all.md", source, written=written, titles=TITLES, **terms)
