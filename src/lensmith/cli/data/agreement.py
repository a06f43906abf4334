"""`lensmith data agreement`: how far annotators agree, in figures and tables."""

from typing import Any

from lensmith import api
from lensmith.cli.options import Output
from lensmith.cli.output import SHOWN, number, print_line, print_notes, print_table
from lensmith.core.text import listed
from lensmith.data.agreement import Estimate

MIXED_UP_SHOWN = 10


def agreement(given: dict[str, Any]) -> Output:
    """Compare several annotators of the same images, and resolve their labels.

    A source is a CSV of path,label,annotator, or annotations of a labelling tool; or there is one for each annotator.
    Reports percentage agreement, Cohen's and Fleiss' kappa and Krippendorff's alpha with 95 % intervals, the classes
    that are mixed up, and each annotator's quality. With --out the consensus is written as a manifest.

    Example: `lensmith data agreement votes.csv --out consensus.csv`
    """
    found = api.agreement(**given)
    yield found
    print_line(
        (listed(found.sources), "bold"),
        f": {len(found.annotators)} annotators, {found.labels:,} labels for {found.images:,} images, of which "
        f"{found.compared:,} have two or more",
    )
    fleiss = f"{found.fleiss_images:,} images with {found.fleiss_labels} labels each" if found.fleiss_images else ""
    print_table(
        "",
        ("measure", "value", "95 % interval", ""),
        [
            ("Krippendorff's alpha", *_cells(found.krippendorff_alpha), ""),
            ("Fleiss' kappa", *_cells(found.fleiss_kappa), fleiss),
            ("percentage agreement", *_cells(found.percentage_agreement), "of the pairs of labels of one image"),
        ],
    )
    print_line(found.meaning)
    print_table(
        "\nAnnotators beside the majority of the others, the one that agrees least first",
        ("annotator", "images", "agreement", "95 % interval", "accuracy", "most often"),
        [
            (
                each.annotator,
                each.images,
                *_cells(each.agreement),
                number(each.accuracy),
                ", ".join(f"{own} for {theirs} {count}×" for theirs, own, count in each.mixed_up[:2]),
            )
            for each in found.annotators
        ],
        SHOWN,
    )
    if found.pairs:
        print_table(
            "\nCohen's kappa of each pair, the lowest first",
            ("first", "second", "images", "agreement", "kappa", "95 % interval"),
            [
                (*pair.annotators, pair.images, number(pair.agreement), *_cells(pair.cohen_kappa))
                for pair in sorted(found.pairs, key=lambda pair: pair.order)
            ],
            SHOWN,
        )
    if found.mixed_up:
        print_table(
            "\nClasses that are mixed up", ("class", "class", "pairs of labels"), found.mixed_up[:MIXED_UP_SHOWN]
        )
    print_line(f"\nConsensus ({found.consensus}): {found.decided:,} images decided, {len(found.contested):,} contested")
    print_notes(found.notes, found.warnings)
    if found.files is None:
        print_line("Next: --out consensus.csv writes the consensus, the contested images, and a page with pictures")
        return
    print_line((str(found.files.manifest), "bold"), ": consensus")
    print_line((str(found.files.report), "bold"), ": page with pictures")
    if found.contested:
        print_line((str(found.files.contested), "bold"), f": to be decided by: lensmith review {found.files.contested}")
    else:
        print_line(f"Next: lensmith data split {found.files.manifest}")


def _cells(estimate: Estimate) -> tuple[str, str]:
    """A figure and its interval as cells of a table."""
    if estimate.value is None or estimate.interval is None:
        return "–", estimate.reason or ""
    return f"{estimate.value:.4f}", f"{estimate.interval[0]:.4f} to {estimate.interval[1]:.4f}"
