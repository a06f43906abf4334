"""OpenVINO IR in fp32, which OpenVINO and its other tools read without a conversion."""

from pathlib import Path

from lensmith.exporting.formats.base import FormatCheck, TrainedNetwork
from lensmith.inference.engine import openvino_core

FILE = "model.xml"


def write(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Convert the ONNX graph to model.xml and model.bin, and check their answers.

    Raises:
        ParityError: they answer differently.
    """
    import openvino as ov

    # By default weights would be rounded to fp16.
    ov.save_model(openvino_core().read_model(str(network.graph)), str(folder / FILE), compress_to_fp16=False)
    network.write_config(folder)
    return FormatCheck(network.check_graph(folder / FILE, "openvino"))
