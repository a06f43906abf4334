"""Types of settings, and parsers for their written forms: `5:3:2`, `90s`, `a,b`."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field


def parse_ratio(value: Any) -> Any:
    """Split `5:3:2`, `0.5,0.3,0.2` or a sequence into three parts, whose values pydantic checks."""
    parts = tuple(re.split(r"[:,/]", value)) if isinstance(value, str) else value
    if isinstance(parts, (tuple, list)) and len(parts) != 3:
        raise ValueError("three numbers, as in 5:3:2")
    return parts


def parse_sizes(value: Any) -> Any:
    """Split `256,384,512`, one number or a sequence into a tuple."""
    if isinstance(value, str):
        return tuple(value.split(","))
    return (value,) if isinstance(value, int) else value or None


def parse_duration(value: Any) -> Any:
    """Convert `90s`, `0.5s`, `5m`, `1h30m` or `30d` to seconds; numbers, which are seconds, are returned unchanged.

    Raises:
        ValueError: text that is no duration, or a number without a unit other than 0: `30` may be meant as days.
    """
    if not isinstance(value, str):
        return value
    pattern = r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?"
    text = value.strip()
    parts = re.fullmatch(pattern, text)
    if text == "0":
        return 0
    if parts is None or not text:
        raise ValueError("a duration with its unit, as 90s, 5m, 1h30m or 30d")
    days, hours, minutes, seconds = (float(part or 0) for part in parts.groups())
    return 86_400 * days + 3600 * hours + 60 * minutes + seconds


def parse_names(value: Any) -> Any:
    """Split `a,b` or a sequence into a tuple of names.

    Raises:
        ValueError: an empty name, as in `a,,b`.
    """
    names = tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value
    if isinstance(value, str) and not all(names):
        raise ValueError("names with a comma between them, as a,b")
    return names


def as_text(value: Any) -> str:
    """A setting's value as a flag or a variable has it: names with commas between them."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def without_password(uri: str) -> str:
    """A URI without its password, for logs and records; the user's name stays in it."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1@", uri)


ConsensusMethod = Literal["majority", "dawid-skene"]
"""How several labels of one picture become one."""
ANNOTATION_FORMATS = (
    "auto", "cvat", "label-studio", "label-studio-min", "label-studio-csv", "imagenet", "imagenet-txt", "datumaro",
    "voc", "coco", "yolo", "createml", "fiftyone",
)  # fmt: skip
"""Annotation formats that are read, by the names of their readers; `auto` finds the format by looking."""


def known_annotation_format(value: str) -> str:
    """The name of an annotation format, unchanged.

    Raises:
        ValueError: there is no format of that name.
    """
    if value not in ANNOTATION_FORMATS:
        raise ValueError(f"one of {', '.join(ANNOTATION_FORMATS)}")
    return value


AnnotationFormat = Annotated[str, AfterValidator(known_annotation_format)]
LabelFormat = Literal["label-studio", "cvat", "coco", "imagenet"]
"""Annotation formats that are written."""
Layout = Literal["auto", "parts", "classes"]
"""How folders are read: as their names and content show, as parts, or as classes."""
LAYOUT = (
    "Meaning of the folders in an image folder: parts with a folder for each class, or classes; auto reads their names."
)
EXCLUDE = "List of images to leave out: a CSV with a column path, or one path a line; paths relative to the list."
RELABEL = "CSV of path,label with new labels for images; paths relative to the list. No file is changed."


def parse_group(value: Any) -> Any:
    """Check how groups are found: none, auto, folder:N, or pattern:REGEX with one group in parentheses.

    Raises:
        ValueError: anything else, with what is wrong about it.
    """
    if not isinstance(value, str):
        return value
    kind, colon, argument = value.partition(":")
    if value in ("none", "auto"):
        return value
    if kind == "folder" and colon:
        if not re.fullmatch(r"[1-9][0-9]?", argument):
            raise ValueError("a level from 1 on, as in folder:2")
        return value
    if kind == "pattern" and colon:
        try:
            count = re.compile(argument).groups
        except re.error as error:
            raise ValueError(f"a regular expression after pattern: ({error})") from error
        if count != 1:
            raise ValueError(rf"one group in parentheses, as in pattern:(.*)_\d+, and not {count}")
        return value
    raise ValueError("none, auto, folder:N or pattern:REGEX")


Group = Annotated[str, BeforeValidator(parse_group)]
"""How images that must not part are found."""
GROUP = (
    "Images that must not part: folder:N (the folder at level N), pattern:REGEX (found in the file name), auto "
    "(copies), or none; a manifest's column `group` always holds."
)
Share = Annotated[float, Field(ge=0)]
Ratio = Annotated[tuple[Share, Share, Share], BeforeValidator(parse_ratio)]
Side = Annotated[int, Field(ge=16, le=2048)]
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
SecondsOrNone = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
Formats = Annotated[
    tuple[Literal["pt2", "torchscript", "safetensors", "openvino", "tensorrt", "triton", "edge"], ...],
    BeforeValidator(parse_names),
]
_OTHER_NAMES = {"jpg": "jpeg", "tif": "tiff", "heif": "heic", "jpeg2000": "jp2"}


def parse_image_formats(value: Any) -> Any:
    """Split `jpeg,png` or a sequence into a tuple of formats; their other usual names are also taken."""
    names = parse_names(value)
    if not isinstance(names, (tuple, list)):
        return names
    known = [_OTHER_NAMES.get(str(name).lower(), str(name).lower()) for name in names]
    return tuple(dict.fromkeys(known))


def without_brackets(value: Any) -> Any:
    """An IPv6 address out of the brackets that it has in a URL, as [::1]; anything else unchanged."""
    return value[1:-1] if isinstance(value, str) and re.fullmatch(r"\[[0-9a-fA-F:.]+(%\w+)?\]", value) else value


Host = Annotated[str, BeforeValidator(without_brackets)]
ImageFormats = Annotated[
    tuple[Literal["jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "heic", "jp2", "ppm"], ...],
    BeforeValidator(parse_image_formats),
    Field(min_length=1),
]
Sizes = Annotated[tuple[Side, ...] | None, BeforeValidator(parse_sizes)]
Names = Annotated[tuple[str, ...], BeforeValidator(parse_names), Field(min_length=1)]
Scopes = Annotated[tuple[Literal["predict", "admin"], ...], BeforeValidator(parse_names)]
