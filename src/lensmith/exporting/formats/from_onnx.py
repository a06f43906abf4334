"""Formats of the fp32 ONNX graph: OpenVINO IR, and what TensorRT and the Triton Inference Server are given.

Since TensorRT 11 a network's precision is what its graph says, and earlier ones can be asked for the same
(`--stronglyTyped`). So the fp16 graph is built here, where it can be compared with PyTorch, and not by a flag there.
"""

import re
import shutil
from pathlib import Path

from lensmith.core.machine import instruction_sets
from lensmith.exporting.candidates import BF16_NEEDS
from lensmith.exporting.formats.base import FormatCheck, TrainedNetwork
from lensmith.inference.engine import openvino_core

BATCHES = (1, 8, 32)
"""Least, usual and largest batch of the TensorRT engine that will be built."""
MAX_BATCH = 32
"""Largest batch that Triton makes of several requests."""
FP16_TOLERANCE = 2e-2
"""Allowed difference of a probability: half precision has three digits."""


def write_openvino(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Convert the graph to model.xml and model.bin, which OpenVINO's tools read directly, and check their answers.

    Raises:
        ParityError: the converted graph's probabilities differ from the network's.
    """
    import openvino as ov

    # By default weights would be rounded to fp16.
    graph = openvino_core().read_model(str(network.graph))
    ov.save_model(graph, str(folder / "model.xml"), compress_to_fp16=False)
    difference = network.check_graph(folder / "model.xml", "openvino")
    return FormatCheck(difference, _rounding_note(network, folder / "model.xml"))


def _rounding_note(network: TrainedNetwork, path: Path) -> str:
    """Advice where bfloat16, OpenVINO's default on this processor, changes answers to the images; else empty."""
    if not set(BF16_NEEDS) & set(instruction_sets()):
        return ""
    rounded = network.open_graph(path, "openvino", "bf16").run(network.images)
    changed = int((rounded.argmax(axis=1) != network.expected.argmax(axis=1)).sum())
    if not changed:
        return ""
    return (
        f"in bfloat16, which is OpenVINO's default on this processor, {changed:,} of {len(rounded):,} answers change:"
        " set INFERENCE_PRECISION_HINT to f32, as its README does"
    )


def write_tensorrt(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Write graphs in fp32 and fp16, and scripts (trtexec, Python) that build an engine of them for the GPU at hand.

    Raises:
        ParityError: one of the graphs answers differently.
    """
    from lensmith.exporting.onnx_graph import float16  # needs onnx, which the other formats do not

    fp32, fp16 = folder / "model.onnx", folder / "model_fp16.onnx"
    shutil.copyfile(network.graph, fp32)
    float16(fp32, fp16)
    for script in ("build.sh", "build.py"):
        network.write_page(folder / script, f"tensorrt_{script}", batches=BATCHES)
        (folder / script).chmod(0o755)
    rounded = network.check_graph(fp16, precision="fp16", tolerance=FP16_TOLERANCE)
    note = (
        "built and tested only where there is an NVIDIA GPU: run build.sh or build.py there (TensorRT 10 or newer);"
        f" here both graphs were checked on the processor, fp16 within {rounded:.1g} of PyTorch"
    )
    return FormatCheck(network.check_graph(fp32), note, {"batches": BATCHES})


def write_triton(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Write models/NAME/, a model repository that Triton serves unchanged: config.pbtxt, labels, and the graph.

    Raises:
        ParityError: the graph answers differently.
    """
    name = triton_name(network.name)
    model = folder / "models" / name
    graph = model / "1" / "model.onnx"
    graph.parent.mkdir(parents=True)
    shutil.copyfile(network.graph, graph)
    network.write_labels(model / "labels.txt")
    network.write_page(model / "config.pbtxt", "triton_config.pbtxt", model=name, max_batch=MAX_BATCH)
    return FormatCheck(network.check_graph(graph), f"Triton knows it as {name}", {"model": name})


def triton_name(name: str) -> str:
    """A bundle's name with only the characters that paths and addresses allow."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "classifier"
