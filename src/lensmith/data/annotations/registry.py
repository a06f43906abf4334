"""The annotation formats that are read. A reader of another format is a module beside the others and a line here."""

from lensmith.data.annotations.cvat import CVAT
from lensmith.data.annotations.reader import Reader

READERS: tuple[Reader, ...] = (CVAT,)
"""All readers, in the order in which messages name them."""
