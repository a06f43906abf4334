"""Unlabelled pictures: a folder of them at any depth, or a table that names them, without a meaning of its folders."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lensmith.core.junk import describe_junk
from lensmith.data.files import Unused, image_files, printable, require_exists, unusable_reason
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.path_list import read_path_list
from lensmith.errors import DataError


@dataclass(frozen=True)
class UnlabelledPictures:
    """Pictures without a label.

    Attributes:
        root: folder that the paths are relative to.
        paths: path of each picture, sorted; a crop is named as in `imaging.crops`.
        set_aside: path and reason of each file that cannot be used.
        notes: sentences about what was left out.
    """

    root: Path
    paths: tuple[str, ...]
    set_aside: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def images(self, labels: Sequence[str], paths: Sequence[str] | None = None) -> ImageSet:
        """The pictures as a set of the given classes, whose samples all have the class index 0, which means nothing."""
        samples = tuple(Sample(path, 0) for path in (self.paths if paths is None else paths))
        return ImageSet(self.root, tuple(labels), samples, self.set_aside, self.notes)


def unlabelled_pictures(source: Path) -> UnlabelledPictures:
    """Find the pictures in a folder, or those that a CSV names in its column `path` or a text file on its lines.

    Raises:
        DataError: nothing is there, no file is an image, or a CSV has no column `path`.
    """
    require_exists(source, "A folder of pictures, or a table that names them,")
    found = _in_folder(source) if source.is_dir() else _in_table(source)
    if not found.paths:
        reasons = Counter(reason for _, reason in found.set_aside).most_common(1)
        raise DataError(
            f"Pictures were expected in {source}.",
            f"No file can be one; most are: {reasons[0][0]}." if reasons else "There is none.",
            "Give the folder that holds them.",
        )
    return found


def _in_folder(folder: Path) -> UnlabelledPictures:
    unused = Unused()
    paths = tuple(sorted(file.relative_to(folder).as_posix() for file in image_files(folder, folder, unused)))
    notes = (describe_junk(unused.junk),) if unused.junk else ()
    return UnlabelledPictures(folder, paths, tuple(unused.aside), (*notes, *unused.warnings()))


def _in_table(file: Path) -> UnlabelledPictures:
    found = read_path_list(file, f"A table of pictures in UTF-8 was expected at {file}.")
    if not found.columns and file.suffix.lower() == ".csv":
        raise DataError(
            f"A column called path was expected in {file}.",
            f"Its first line is {found.first_line[:200] or 'empty'}.",
            "Name the column that holds the pictures' paths.",
        )
    named = [row["path"] for _, row in found.rows]
    reasons = {name: unusable_reason(file.parent / name, any_suffix=True) for name in dict.fromkeys(named)}
    aside = tuple((printable(name), reason) for name, reason in reasons.items() if reason)
    return UnlabelledPictures(file.parent, tuple(sorted(name for name in reasons if not reasons[name])), aside)
