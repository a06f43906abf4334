"""TensorRT format: two graphs, and scripts (trtexec, Python) that build an engine for the GPU at hand.

Since TensorRT 11 a network's precision is what its graph says, and earlier ones can be asked for the same
(`--stronglyTyped`). So the fp16 graph is built here, where it can be compared with PyTorch, and not by a flag there.
"""

import shutil
from pathlib import Path

from lensmith.exporting.formats.base import FormatCheck, TrainedNetwork
from lensmith.exporting.formats.pages import write_page

FP32, FP16 = "model.onnx", "model_fp16.onnx"
BATCHES = (1, 8, 32)
"""Least, usual and largest batch of the engine that will be built."""

FP16_TOLERANCE = 2e-2
"""Allowed difference of a probability: half precision has three digits."""

NOTE = (
    "built and tested only where there is an NVIDIA GPU: run build.sh or build.py there (TensorRT 10 or newer);"
    " here both graphs were checked on the processor"
)


def write(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Write the graphs and the scripts that build an engine of them.

    Raises:
        ParityError: one of the graphs answers differently.
    """
    from lensmith.exporting.onnx_graph import Float16  # needs onnx, which the other formats do not

    shutil.copyfile(network.graph, folder / FP32)
    Float16(folder / FP32).write(folder / FP16)
    for script in ("build.sh", "build.py"):
        write_page(folder / script, f"tensorrt_{script}", network, batches=BATCHES)
        (folder / script).chmod(0o755)
    network.write_config(folder)
    rounded = network.check_graph(folder / FP16, precision="fp16", tolerance=FP16_TOLERANCE)
    note = f"{NOTE}, fp16 within {rounded:.1g} of PyTorch"
    return FormatCheck(network.check_graph(folder / FP32), note, {"batches": BATCHES})
