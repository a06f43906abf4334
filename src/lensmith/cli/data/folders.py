"""`lensmith data fetch`, `check` and `split`: image folders as they are on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lensmith import api
from lensmith.cli.options import Output
from lensmith.cli.output import SHOWN, print_counts, print_line, print_notes, print_table
from lensmith.imaging.value_range import describe

if TYPE_CHECKING:
    from lensmith.data.near_copies.search import NearCopy

_PARTS = ("train", "val", "test")


def fetch(given: dict[str, Any]) -> Output:
    """Make an image folder of a known data set.

    These are fashion-mnist, cifar10, flowers102, pets and digits. Downloads are cached, verified by their hashes, and
    resumed, and so is the writing of the folder. A finished folder is not written again.

    Example: `lensmith data fetch fashion-mnist data/fashion --max-train 6000 --max-test 2000`
    """
    fetched = api.fetch(**given)
    yield fetched
    images = ", ".join(f"{count:,} {part}" for part, count in fetched.counts.items())
    state = f"{fetched.written:,} images written" if fetched.written else "was finished already"
    print_line((str(fetched.folder), "bold"), f": {fetched.classes} classes, {images} ({state})")
    print_line(f"Source: {fetched.source}")
    print_line(f"Next: lensmith data check {fetched.folder}")


def check(given: dict[str, Any]) -> Output:
    """Check every file of an image folder.

    Reports counts, sizes, formats, and each file that is unreadable, empty, no image or a copy. Copies have the same
    pixels; those under two classes, or in two parts (data leakage), come first. Nothing is changed. `--near` also finds
    near copies, and writes a page with the pairs side by side.
    """
    checked = api.check(**given)
    yield checked
    print_line((str(checked.path), "bold"), f": {checked.usable:,} usable images of {checked.images:,}")
    print_counts(checked.counts, (*_PARTS, "all"))
    for name, side in (("width", checked.width), ("height", checked.height)):
        if side:
            print_line(f"{name:7} {side.min} to {side.max} pixels, median {side.median:g}")
    for name, found in (("formats", checked.formats), ("modes", checked.modes)):
        print_line(f"{name:7} {', '.join(f'{key} {count:,}' for key, count in found.items())}")
    for kind, ends in checked.value_ranges.items():
        print_line(f"values  {describe(kind, ends)}")
    print_notes(checked.notes)
    # Near copies have a table of their own.
    if rows := [(each.kind, each.path, each.reason) for each in checked.findings if each.kind != "near copy"]:
        print_line()
        title = f"{len(rows):,} file{'s' * (len(rows) != 1)} with something wrong"
        print_table(title, ("what", "file", "reason"), rows, SHOWN)
    if checked.near_copies:
        print_line()
        pairs = [(each.kind, f"{each.similarity:.1%}", _across(each), *each.paths) for each in checked.near_copies]
        title = f"{len(pairs):,} pair{'s' * (len(pairs) != 1)} of copies"
        print_table(title, ("kind", "alike", "across", "image", "its copy"), pairs, SHOWN)
    if checked.near_page is not None:
        print_line(f"Pairs side by side: {checked.near_page}")
    print_notes((), checked.warnings)
    if not checked.findings and not checked.warnings:
        print_line(("No problem was found.", "green"))


def _across(pair: NearCopy) -> str:
    names = [name for name, is_across in (("parts", pair.across_parts), ("classes", pair.across_classes)) if is_across]
    return " and ".join(names)


def split(given: dict[str, Any]) -> Output:
    """Write a manifest that assigns every image to train, val or test.

    No file is copied. Each class is divided by the ratio to within one image, in a seeded order; a group (--group) is
    never parted. Parts that the folder has stay; a missing validation part is taken from the training part, never from
    the test part. An older manifest is extended: its images stay in their parts, and new ones are divided. `lensmith
    train`, `evaluate` and `check` read the manifest instead of the folders. `--cv 5` writes cross-validation folds 0
    to 4 instead, for `lensmith train --cv 5`; a test part stays, and is in no fold.
    """
    done = api.split(**given)
    yield done
    folds = {label: {f"fold {fold}": count for fold, count in enumerate(row)} for label, row in done.folds.items()}
    columns = next(iter(folds.values()), ())
    print_line((str(done.manifest), "bold"), f": {'written' if done.written else 'was there already, the same'}")
    print_counts({label: row | folds.get(label, {}) for label, row in done.classes.items()}, _PARTS, *columns)
    print_notes(done.notes, done.warnings)
    if done.set_aside:
        print_line(f"Files that are left out: {len(done.set_aside):,}; `lensmith data check {done.folder}` names each.")
