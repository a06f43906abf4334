"""The annotation formats that are read. A reader of another format is a module beside the others and a line here."""

from lensmith.data.annotations.coco import COCO
from lensmith.data.annotations.cvat import CVAT
from lensmith.data.annotations.datumaro import DATUMARO
from lensmith.data.annotations.imagenet import IMAGENET, IMAGENET_TXT
from lensmith.data.annotations.reader import Reader
from lensmith.data.annotations.voc import VOC
from lensmith.data.annotations.yolo import YOLO

READERS: tuple[Reader, ...] = (CVAT, IMAGENET, IMAGENET_TXT, DATUMARO, VOC, COCO, YOLO)
"""All readers, in the order in which messages name them."""
