"""Edge format, for small devices: the graph and one script that needs NumPy, Pillow and ONNX Runtime only."""

import dataclasses
import io
import runpy
import shutil
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from lensmith.errors import ParityError
from lensmith.exporting.formats.base import FormatCheck, TrainedNetwork
from lensmith.imaging.preprocessing import Preprocessing, preprocess

GRAPH, SCRIPT = "model.onnx", "classify.py"


def write_edge(network: TrainedNetwork, folder: Path) -> FormatCheck:
    """Write the graph (the int8 one if there is one), classify.py and its files, and check the script's answers.

    Raises:
        ParityError: the script preprocesses pictures differently from lensmith, or answers differently.
    """
    precision = "int8" if network.int8 else "fp32"
    shutil.copyfile(network.int8 or network.graph, folder / GRAPH)
    network.write_labels(folder / "labels.txt")
    network.write_page(folder / SCRIPT, "edge_classify.py")
    network.write_page(folder / "requirements.txt", "edge_requirements.txt")
    return _check(network, folder, precision)


def _check(network: TrainedNetwork, folder: Path, precision: str) -> FormatCheck:
    script = runpy.run_path(str(folder / SCRIPT))  # an import would leave __pycache__
    for picture in _pictures(network.preprocessing):
        if not np.array_equal(script["prepare"](picture), preprocess(picture, network.preprocessing)):
            raise ParityError(
                f"{SCRIPT} was expected to prepare a picture as lensmith does.",
                "Its pixels differ.",
                "Nothing was written; leave edge out of --formats, and report this.",
            )
    session = script["open_session"]()
    engine = network.open_graph(folder / GRAPH, precision=precision)
    same_graph = dataclasses.replace(network, expected=engine.run(network.images))
    same_graph.check(SCRIPT, lambda batch: script["probabilities"](session, batch))
    terms = {"precision": precision}
    if precision == "fp32":
        return FormatCheck(network.check(GRAPH, engine.run), terms=terms)
    # The engine search has compared int8 with PyTorch on more images than these.
    far = float(np.abs(engine.run(network.images) - network.expected).max())
    return FormatCheck(far, "an int8 graph: meant for processors, and as far from PyTorch as that takes it", terms)


def _pictures(how: Preprocessing) -> list[bytes]:
    """A photo taken with the camera turned, a drawing with transparency, and deep pictures as in the training."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 420, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    photo, drawing = io.BytesIO(), io.BytesIO()
    Image.fromarray(noise[:, :, :3]).save(photo, "JPEG", exif=exif)
    Image.fromarray(noise).save(drawing, "PNG")
    deep = []
    for kind in how.value_ranges.keys() & {"uint16", "float32"}:
        black, white = how.value_ranges[kind]
        deep.append(io.BytesIO())
        values = (black + noise[:, :, 0] * ((white - black) / 255)).astype(kind)
        Image.fromarray(values).save(deep[-1], "TIFF")
    return [each.getvalue() for each in (photo, drawing, *deep)]
