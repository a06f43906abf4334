"""The annotation formats that are read. A reader of another format is a module beside the others and a line here."""

from lensmith.data.annotations.coco import COCO
from lensmith.data.annotations.createml import CREATEML
from lensmith.data.annotations.cvat import CVAT
from lensmith.data.annotations.datumaro import DATUMARO
from lensmith.data.annotations.fiftyone import FIFTYONE
from lensmith.data.annotations.imagenet import IMAGENET, IMAGENET_TXT
from lensmith.data.annotations.label_studio import LABEL_STUDIO
from lensmith.data.annotations.label_studio_flat import LABEL_STUDIO_CSV, LABEL_STUDIO_MIN
from lensmith.data.annotations.reader import Reader
from lensmith.data.annotations.voc import VOC
from lensmith.data.annotations.yolo import YOLO

READERS: tuple[Reader, ...] = (
    CVAT, LABEL_STUDIO, LABEL_STUDIO_MIN, LABEL_STUDIO_CSV, IMAGENET, IMAGENET_TXT, DATUMARO, VOC, COCO, YOLO, CREATEML,
    FIFTYONE,
)  # fmt: skip
"""All readers, in the order in which messages name them."""
