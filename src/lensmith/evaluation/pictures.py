"""Pictures of the report, as data URIs: thumbnails of images, and the confusion matrix of many classes."""

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lensmith.evaluation.metrics import Ints
from lensmith.imaging.decode import decode, read

HEAT_PX = 540
THUMBNAIL_PX = 160


def thumbnail(file: Path) -> str:
    """A JPEG thumbnail of an image file, at most THUMBNAIL_PX a side.

    Raises:
        ImageError: it cannot be read or decoded.
    """
    picture = decode(read(file), shortest_px=THUMBNAIL_PX)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return _data_uri(picture, "JPEG")


def confusion_heatmap(confusion: Ints) -> str:
    """The confusion matrix as PNG: green correct, red wrong, stronger with the share of the true class.

    Args:
        confusion: int64 (C, C), rows true, columns predicted.
    """
    # One pixel a class, or a block of classes where the page has fewer pixels; a block shows its strongest cell.
    block = -(-len(confusion) // HEAT_PX)
    short = -len(confusion) % block
    shares = np.pad(row_shares(confusion), (0, short))
    side = len(shares) // block
    strongest = shares.reshape(side, block, side, block).max(axis=(1, 3))
    # Colour through the alpha channel, so that one picture suits a light and a dark page. The root makes rare
    # mistakes visible.
    cells = np.empty((side, side, 4), dtype=np.uint8)
    cells[...] = (204, 78, 66, 0)
    cells[np.diag_indices(side)] = (46, 139, 112, 0)
    cells[..., 3] = np.sqrt(strongest) * 255
    return _data_uri(Image.fromarray(cells), "PNG")


def row_shares(confusion: Ints) -> npt.NDArray[np.float64]:
    """float64 (C, C): each cell as a share of its row, 0..1; a class without images has zeros."""
    shares: npt.NDArray[np.float64] = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return shares


def _data_uri(picture: Image.Image, format: str) -> str:  # noqa: A002 - Pillow's name
    buffer = io.BytesIO()
    picture.save(buffer, format, quality=80)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
