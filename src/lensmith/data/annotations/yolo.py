"""YOLO: a text file for each picture with lines `CLASS CX CY W H` in shares of the picture, and the names of classes.

    data.yaml (names as a list or a dict), obj.names, or classes.txt      LabelImg, Ultralytics, Darknet, CVAT
    labels/**.txt, SUBSET/labels/*.txt, obj_*_data/**.txt, or beside the pictures

An empty file is a picture without objects. Lines with more numbers are outlines (segments), whose box is used.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import yaml

from lensmith.data.annotations.class_names import name_of, read_names
from lensmith.data.annotations.reader import PEEKED_FILES, Area, Entry, Look, Reader, Reading, Source, damaged
from lensmith.data.part_names import parts_of_names
from lensmith.errors import DataError

_ROW = re.compile(r"\d+(\s+-?[0-9.]+(e-?\d+)?){4,}\s*")
_LISTS = ("classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "requirements.txt")


def looks_like(source: Source) -> Look:
    """Names of classes beside label files."""
    names, labels = _names_file(source), _label_folders(source)
    if names and labels:
        return Look((names,))
    if labels:
        return Look(lacks=f"{labels[0]} holds label files, but data.yaml, obj.names or classes.txt is missing.")
    return Look(lacks=f"{names} names classes, but there are no label files (labels/*.txt)." if names else "")


def read(source: Source, files: Sequence[str], reading: Reading) -> Iterator[Entry]:
    """Entries of all label files: one for each box, and one for each file without any."""
    names, described = _names(source, files[0])
    subset_of = _Subsets(source, described)
    for folder in _label_folders(source):
        for file in source.files(".txt") if folder == "." else source.walk(folder, ".txt"):
            if PurePosixPath(file).name in _LISTS:
                continue
            rows = [row for row in read_names(source.root / file) if row.strip()]
            if folder == "." and rows and not _ROW.fullmatch(rows[0]):
                continue  # a text of something else, beside the pictures
            picture = "/".join("images" if part == "labels" else part for part in file[:-4].split("/"))
            about = Entry(picture, None, subset=subset_of(picture))
            for row in rows:
                number, *values = row.split()
                area = _area(values, "kpt_shape" in described, file)
                yield about._replace(label=name_of(number, names, source.root / file), area=area)
            if not rows:
                yield about


def _names_file(source: Source) -> str:
    """The file with the names of classes; empty where there is none."""
    for file in (*source.files(".yaml", ".yml"), *source.files(".names")):
        if file.endswith(".names") or re.search(r"^names *:", source.beginning(file), re.MULTILINE):
            return file
    folders = ["", *(folder for folder in source.folders if folder == "labels")]
    return next((f for folder in folders for f in source.files("classes.txt", folder=folder)), "")


def _label_folders(source: Source) -> list[str]:
    """Folders of label files; `.` where they lie beside the pictures at the top."""
    found = [folder for folder in source.folders if folder == "labels" or re.fullmatch(r"obj_.+_data", folder)]
    found += [f"{part}/labels" for part in source.part_folders if (source.root / part / "labels").is_dir()]
    texts = (text for file in source.files(".txt") if file not in _LISTS and (text := source.beginning(file)).strip())
    if any(_ROW.fullmatch(text.partition("\n")[0].rstrip("\r")) for text in islice(texts, PEEKED_FILES)):
        found.append(".")
    return found


def _names(source: Source, file: str) -> tuple[list[str], Mapping[str, Any]]:
    """Names of classes by number, and what else the file says (of YAML)."""
    if not file.endswith((".yaml", ".yml")):
        described = {}
        for line in read_names(source.root / data) if (data := next(iter(source.files(".data")), "")) else ():
            key, _, value = line.partition("=")
            described[key.strip()] = value.strip()
        return [name.strip() for name in read_names(source.root / file)], described
    try:
        content = yaml.safe_load((source.root / file).read_text(encoding="utf-8-sig"))
        names = content["names"]
        if isinstance(names, Mapping):
            names = [names[number] for number in range(len(names))]
        return [str(name) for name in names], content
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(
            f"Names of classes (`names`, a list or numbers from 0 with names) were expected in {source.root / file}.",
            f"It cannot be read as that ({type(error).__name__}).",
            "Give the file that belongs to these labels.",
        ) from error


class _Subsets:
    """Subset of a picture by the lists or folders that the description names, else by its folder."""

    def __init__(self, source: Source, described: Mapping[str, Any]) -> None:
        self._folders: dict[str, str] = {}
        self._listed: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for subset in ("train", "val", "valid", "test"):
            given = described.get(subset) or []
            for place in map(str, given if isinstance(given, list) else [given]):
                plain = re.sub(r"^(\.{1,2}/)+", "", place.replace("\\", "/")).rstrip("/")
                if not plain.endswith(".txt"):
                    self._folders[plain] = subset
            for file in source.files(f"{subset}.txt"):
                if PurePosixPath(file).stem == subset:
                    for line in read_names(source.root / file):
                        path = PurePosixPath(line.strip().replace("\\", "/").removeprefix("./"))
                        self._listed[path.stem].append((path.with_suffix("").as_posix() if path.name else "", subset))

    def __call__(self, picture: str) -> str:
        parts = picture.split("/")
        for path, subset in self._listed.get(parts[-1], ()):
            if f"/{path}".endswith(f"/{picture}") or f"/{picture}".endswith(f"/{path}"):
                return subset
        for folder, subset in self._folders.items():
            if picture.startswith(f"{folder}/"):
                return subset
        words = {re.sub(r"^obj_(.+)_data$", r"\1", part): part for part in parts[:2] if len(parts) > 1}
        return next(iter(sorted(parts_of_names(words))), "")


def _area(values: Sequence[str], has_keypoints: bool, file: str) -> Area:
    """The box of a line, in shares of width and height; that around an outline."""
    try:
        numbers = [float(value) for value in values]
        if not all(map(math.isfinite, numbers)) or len(numbers) < 4:
            raise ValueError
    except ValueError:
        raise damaged(
            f"Lines `CLASS CX CY W H` were expected in {file}.",
            f"{' '.join(values)[:80]!r} follows a class.",
        ) from None
    if len(numbers) > 5 and not has_keypoints:
        xs, ys = numbers[0::2], numbers[1::2]
        return Area(min(xs), min(ys), max(xs), max(ys), is_share=True)
    x, y, width, height = numbers[:4]
    return Area(x - width / 2, y - height / 2, x + width / 2, y + height / 2, is_share=True)


YOLO = Reader("yolo", "YOLO", looks_like, read)
