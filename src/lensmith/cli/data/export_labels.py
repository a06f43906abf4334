"""`lensmith data export`."""

from typing import Any

from lensmith import api
from lensmith.cli.label_export import print_export
from lensmith.cli.options import Output


def export_labels(given: dict[str, Any]) -> Output:
    """Write labels for a labelling tool, with a bundle's answers as pre-annotations.

    All labels go out, also those of several annotators and of boxes, as far as the format has a place for them; what it
    does not hold is reported. Pictures without a label are exported as well, so that people can label them. Pictures
    are referenced, not copied; only the folders of `imagenet` hold them, as hard links.

    Example: `lensmith data export photos --format label-studio --predictions flowers@champion --out labels`
    """
    done = api.export_labels(**given)
    yield done
    print_export(done)
