"""`lensmith data import`: annotations of labelling tools."""

from typing import Any

from lensmith import api
from lensmith.cli.options import Output
from lensmith.cli.output import print_counts, print_line, print_notes

PARTS = ("train", "val", "test", "all")


def import_(given: dict[str, Any]) -> Output:
    """Make a manifest of the annotations of a labelling tool.

    Formats: CVAT for images 1.1, ImageNet (folders, lists), Datumaro JSON, Label Studio JSON, JSON-MIN and CSV, Pascal
    VOC, COCO, YOLO, CreateML, FiftyOne; found by looking. Pictures stay where they are. Each box is an image of its
    own: a crop, whose group is its picture. Unlabelled pictures are listed in a CSV of their own beside OUT, and are
    never a class. `lensmith data check`, `data split`, `train`, `evaluate` and `pipeline` also read SOURCE directly.

    Example: `lensmith data import cvat-export labels.csv`
    """
    done = api.import_annotations(**given)
    yield done
    print_line((str(done.manifest), "bold"), f": {'written' if done.written else 'was there already, the same'}")
    print_counts(done.counts, PARTS)
    if done.crops is not None:
        print_line(f"Crops are in {done.crops}.")
    if done.unlabelled_list is not None:
        print_line(f"Images without a label: {len(done.unlabelled):,}, in {done.unlabelled_list}.")
    print_notes(done.notes, done.warnings)
    print_line(f"Next: lensmith data check {done.manifest}")
