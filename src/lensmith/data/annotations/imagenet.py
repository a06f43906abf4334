"""ImageNet, as CVAT and Datumaro write it: class folders with `no_label/`, or lists beside `synsets.txt`.

CLASS/**, no_label/**               unlabelled pictures lie in a folder, which is no class
SUBSET/CLASS/**, SUBSET/no_label/** the same in parts
SUBSET.txt, synsets.txt             lines `NAME NUMBER`; `"a b".jpg 0` with blanks, no number where unlabelled
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from lensmith.data.annotations.class_names import name_of, read_names
from lensmith.data.annotations.reader import Entry, Look, Reader, Reading, Source, damaged
from lensmith.data.files import Unused, image_files
from lensmith.data.layout import arrange
from lensmith.imaging.formats import SUFFIXES

NO_LABEL = "no_label"
SYNSETS = "synsets.txt"
_LINE = re.compile(
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"(?P<ending>\S*)|(?P<plain>.*\.\w+|\S+))(?P<numbers>(?:\s+\d+)*)\s*'
)


def looks_like_folder(source: Source) -> Look:
    """A folder `no_label`, or `synsets.txt` beside folders that it lists."""
    found = [folder for folder in source.folders if folder == NO_LABEL]
    found += [f"{part}/{NO_LABEL}" for part in source.part_folders if (source.root / part / NO_LABEL).is_dir()]
    if found or _lists(source) or SYNSETS not in source.files(".txt"):
        return Look(tuple(found))
    ids = {each for line in read_names(source.root / SYNSETS) for each in (line, line.split(" ")[0])}
    folders = {*source.folders} - {*source.part_folders}
    for part in source.part_folders:
        folders |= {entry.name for entry in (source.root / part).iterdir() if entry.is_dir()}
    return Look((SYNSETS,)) if len(folders & ids) > 1 else Look()


def read_folder(source: Source, files: Sequence[str], reading: Reading) -> Iterator[Entry]:
    """One entry for each picture; names of class folders that `synsets.txt` translates are translated."""
    names = read_names(source.root / SYNSETS) if SYNSETS in source.files(".txt") else []
    title = {key: _title(name) for name in names for key in (name, name.split(" ")[0])}
    labelled: list[str] = []
    unlabelled: list[str] = []
    for file in image_files(source.root, source.root, Unused()):
        path = file.relative_to(source.root).as_posix()
        (unlabelled if NO_LABEL in path.split("/")[:2] else labelled).append(path)
    found = arrange(labelled, source.root)
    reading.notes += found.notes
    reading.warnings += found.warnings
    for path, label, part in found.rows:
        yield Entry(path, title.get(label, label), subset=part or "")
    yield from (Entry(path, None) for path in unlabelled)


def looks_like_lists(source: Source) -> Look:
    """Lists of pictures beside `synsets.txt`."""
    return Look(_lists(source))


def read_lists(source: Source, files: Sequence[str], reading: Reading) -> Iterator[Entry]:
    """One entry for each number in a list, and for each line without one."""
    names = [_title(name) for name in read_names(source.root / SYNSETS)]
    for file in files:
        about = Entry("", None, subset=PurePosixPath(file).stem)
        for number, line in enumerate(read_names(source.root / file), 1):
            found = _LINE.fullmatch(line)
            if found is None or not line.strip():
                raise damaged(
                    f"Lines `NAME NUMBER` were expected in {source.root / file}.",
                    f"Line {number:,} is {line[:80]!r}.",
                )
            quoted = found["quoted"]
            name = found["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted) + found["ending"]
            numbers = found["numbers"].split()
            for each in numbers:
                yield about._replace(picture=name, label=name_of(each, names, source.root / file))
            if not numbers:
                yield about._replace(picture=name)


def _lists(source: Source) -> tuple[str, ...]:
    """The lists beside `synsets.txt`: text files whose first line names a picture, and perhaps numbers."""
    files = source.files(".txt")
    if SYNSETS not in files:
        return ()
    first = {file: source.beginning(file).partition("\n")[0].rstrip("\r") for file in files if file != SYNSETS}
    return tuple(file for file, line in first.items() if _names_picture(line))


def _names_picture(line: str) -> bool:
    found = _LINE.fullmatch(line)
    if found is None or not line.strip():
        return False
    name = found["ending"] if found["plain"] is None else found["plain"]
    return bool(found["numbers"].strip()) or PurePosixPath(f"x{name}").suffix.lower() in SUFFIXES


def _title(line: str) -> str:
    """A class name from a line as `n01440764 tench, Tinca tinca`, or the line itself."""
    found = re.fullmatch(r"n\d{8} +([^,]+)(,.*)?", line)
    return found[1].strip() if found else line.strip()


IMAGENET = Reader("imagenet", "ImageNet (folders)", looks_like_folder, read_folder)
IMAGENET_TXT = Reader("imagenet-txt", "ImageNet (lists)", looks_like_lists, read_lists)
