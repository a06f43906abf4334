"""Files and folders that systems and programs leave beside images: known by their names, and never images of a set.

Cameras, network storage, photo managers, editors, version control and file systems write small copies, deleted files
and metadata there. Results of lensmith itself and of experiment trackers hold plots. All of it is left out and counted.
"""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lensmith.core.text import listed

FOLDERS = (
    # network storage: Synology, QNAP, NetApp
    "@eadir", "@tmp", "@sharesnap", "@recently-snapshot", "@recycle", "@__thumb", "@sharebin", "#recycle", "#snapshot",
    "~snapshot", "network trash folder", "temporary items", "thevolumesettingsfolder",
    # file systems and waste bins
    "$recycle.bin", "recycler", "recycled", "system volume information", "lost+found", "found.[0-9][0-9][0-9]",
    "__macosx",
    # photo managers and cameras: previews and thumbnails
    "*.lrdata", "lightroom previews", "captureone", "thmbnl", "thumbs", "thumbnails", "_thumbs",
    "_thumbnails", "ipod photo cache", "_cache", ".thumbnails", ".@__thumb", ".picasaoriginals", ".appledouble",
    ".trash*",
    # editors of web pages, synchronizers
    "_vti_cnf", "_notes", "_gsdata_",
    # programming and experiment tracking
    "__pycache__", "node_modules", "site-packages", "cvs", "mlruns", "mlartifacts", "wandb", "lightning_logs",
    ".ipynb_checkpoints",
)  # fmt: skip
"""Patterns for the names of folders that are left out with all that is in them, in lower case."""

FILES = (
    "._*", "thumbs.db", "ehthumbs*.db", "desktop.ini", "picasa.ini", "zbthumbnail.info", "icon\r", "*@synoeastream",
    "*@synoresource", "~$*", "*~",
)  # fmt: skip
"""Patterns for the names of files that are left out, in lower case."""

RESULTS = (("run.json", "splits.csv"), ("bundle.json", "golden.npz"), ("evaluation.json", "report.html"))
"""Files by which folders of lensmith's own results are known: those of a run, a bundle and an evaluation."""

CACHE_TAG = "CACHEDIR.TAG"
"""File that marks a folder as a cache, by https://bford.info/cachedir/."""

_FOLDERS, _FILES = (re.compile("|".join(map(fnmatch.translate, patterns))) for patterns in (FOLDERS, FILES))


def junk_name(entry: Path, is_folder: bool) -> str | None:
    """The name under which a file or folder is left out and counted; None for all that may belong to a set.

    A name that begins with a dot is hidden, and left out whatever it is.
    """
    if entry.name.startswith(".") or is_junk(entry.name, is_folder):
        return "._*" if entry.name.startswith("._") else entry.name.replace("\r", "\\r")
    return "results of lensmith" if is_folder and _is_result(entry) else None


def is_junk(name: str, is_folder: bool) -> bool:
    """Whether a name alone says that a file or folder is one of systems and programs, hidden or not."""
    return (_FOLDERS if is_folder else _FILES).fullmatch(name.lower()) is not None


def is_below_junk(parts: Sequence[str]) -> bool:
    """Whether a file or one of its folders is junk by its name, from the components of the file's path in a set."""
    *folders, name = parts
    return is_junk(name, is_folder=False) or any(is_junk(folder, is_folder=True) for folder in folders)


def count_junk(entry: Path, is_folder: bool, counts: Counter[str]) -> bool:
    """Whether a file or folder is left out; then its files are added to `counts` under its name."""
    name = junk_name(entry, is_folder)
    if name is None:
        return False
    files = sum(len(names) for _, _, names in os.walk(entry)) if is_folder else 1
    if files and not name.startswith(".lensmith"):
        counts[name.encode(errors="backslashreplace").decode()] += files
    return True


def describe_junk(counts: Mapping[str, int]) -> str:
    """A sentence on what was left out, with the number of files by name."""
    named = listed((f"{count:,} in {name}" for name, count in sorted(counts.items())), 10)
    return f"Left out as files of systems and programs, or hidden: {named}."


def _is_result(folder: Path) -> bool:
    try:
        return (folder / CACHE_TAG).is_file() or any(
            all((folder / name).is_file() for name in names) for names in RESULTS
        )
    except OSError:  # closed, or no name that a file system takes
        return False
