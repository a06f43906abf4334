"""An annotation: one label that one annotator gave to one image, as tables and annotation formats bring it."""

from typing import NamedTuple

from lensmith.data.part_names import Part


class Annotation(NamedTuple):
    """One label of one image.

    Attributes:
        path: path relative to the set's root; `photo.jpg#xywh=X,Y,W,H` is a crop (see `imaging.crops`).
        label: name of the class as it was typed.
        part: train, val or test; None where none is given.
        group: name of the group of images that must not part; empty: the image is a group of its own.
        annotator: name of the person who gave the label; empty where it is not known.
    """

    path: str
    label: str
    part: Part | None = None
    group: str = ""
    annotator: str = ""
