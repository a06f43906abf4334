"""OpenVINO IR in fp32, which OpenVINO and its other tools read without a conversion."""

from __future__ import annotations

from pathlib import Path

from lensmith.exporting.formats.base import Outcome, Source
from lensmith.inference.engine import open_graph, openvino_core

FILE = "model.xml"


def write(source: Source, folder: Path) -> Outcome:
    """Convert the ONNX graph to model.xml and model.bin, and ask them back.

    Raises:
        ParityError: they answer otherwise.
    """
    import openvino as ov

    # By default weights would be rounded to fp16.
    ov.save_model(openvino_core().read_model(str(source.graph)), str(folder / FILE), compress_to_fp16=False)
    engine = open_graph(str(folder / FILE), "openvino", "fp32", threads=1, temperature=source.temperature)
    source.write_config(folder)
    return Outcome(source.check(FILE, engine.run))
