"""Labels of pictures → files of a labelling tool, written whole or not at all."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lensmith.config.values import LabelFormat
from lensmith.core.files import replace_directory, staging_directory
from lensmith.core.output_names import require_folder_name
from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.data.annotation import Annotation
from lensmith.data.label_export import coco, cvat, imagenet, label_studio
from lensmith.data.label_export.marked_picture import Mark, MarkedPicture, MarkedPictures
from lensmith.data.matched_boxes import match_boxes
from lensmith.errors import ImageError, OutputError, SettingsError
from lensmith.imaging.crops import box_of, crop_path
from lensmith.imaging.decoding import decoded_size

WRITERS: Mapping[LabelFormat, Callable[[MarkedPictures, Path], None]] = {
    "cvat": cvat.write,
    "label-studio": label_studio.write,
    "coco": coco.write,
    "imagenet": imagenet.write,
}
Predict = Callable[[Sequence[Path]], Iterable[Mark | None]]
"""Paths of pictures and crops → the model's answer for each; None where a picture cannot be read."""


@dataclass(frozen=True)
class LabelExport(Result):
    """Result of an export of labels.

    Attributes:
        format: name of the format.
        out: folder that was written.
        root: folder that the names of pictures are relative to.
        files: files in the folder, relative to it; pictures of an ImageNet folder are not listed.
        pictures: number of pictures.
        labelled: number of pictures with a label.
        labels: class → number of labels, each once however many annotators gave it.
        annotators: names of the annotators.
        predicted: number of pictures with a model's answer.
        set_aside: path and reason of what is left out.
        notes: sentences about how the labels were read, and about what the format does not hold.
    """

    format: LabelFormat
    out: Path
    root: Path
    files: list[str]
    pictures: int
    labelled: int
    labels: dict[str, int]
    annotators: list[str]
    predicted: int
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def export(
    given: MarkedPictures,
    form: LabelFormat,
    out: Path,
    predict: Predict | None = None,
    classes: Sequence[str] = (),
) -> LabelExport:
    """Write labels into a new folder.

    Args:
        given: the pictures with their labels; sizes and predictions are added here.
        form: name of the format.
        out: folder that is not there, or empty.
        predict: function that answers for pictures and crops; None: no pre-annotations.
        classes: names of the model's classes, which join those of the labels.

    Raises:
        OutputError: the folder is there and holds something, or cannot be written.
        SettingsError: predictions for a format that has no place for them.
    """
    require_folder_name(out, "the labels")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            f"A new folder was expected at {out}.",
            "A file is there." if not out.is_dir() else "It holds files.",
            "Name another with --out, or remove it.",
        )
    if predict is not None and form == "imagenet":
        raise SettingsError(
            "A format with a place for a model's answers was expected.",
            "An ImageNet folder has none: an answer would be a label.",
            "Choose --format label-studio, cvat or coco, or leave --predictions out.",
        )
    given.classes = tuple(sorted({*given.classes, *classes}))
    _add_sizes(given)
    if form in ("coco", "imagenet"):  # which do not tell annotators apart
        given.pictures = list(map(_with_matched_boxes, given.pictures))
    if predict is not None:
        _add_predictions(given, predict)
    with staging_directory(out) as staging:
        WRITERS[form](given, staging)
        files = [] if form == "imagenet" else sorted(
            file.relative_to(staging).as_posix() for file in staging.rglob("*") if file.is_file()
        )  # fmt: skip
        if out.exists():
            out.rmdir()
        replace_directory(staging, out)
    return _result(given, form, out, files)


def _result(given: MarkedPictures, form: LabelFormat, out: Path, files: list[str]) -> LabelExport:
    labels = Counter(label for picture in given.pictures for label, _ in picture.labels)
    return LabelExport(
        format=form,
        out=out,
        root=given.root,
        files=files,
        pictures=len(given.pictures),
        labelled=sum(bool(picture.marks) for picture in given.pictures),
        labels={name: labels[name] for name in given.classes},
        annotators=sorted(given.annotators()),
        predicted=sum(bool(picture.predictions) for picture in given.pictures),
        set_aside=given.aside,
        notes=given.notes,
    )


def _add_sizes(given: MarkedPictures) -> None:
    """Add the size of each picture; those that are no images are left out."""
    found = []
    for picture in track(given.pictures, "reading sizes", len(given.pictures)):
        try:
            size = decoded_size(given.root / picture.path)
        except ImageError as error:
            given.aside.append((picture.path, error.arrived.rstrip(".")))
        else:
            found.append(replace(picture, size=size))
    given.pictures = found


def _with_matched_boxes(picture: MarkedPicture) -> MarkedPicture:
    """The picture with one box for each object, where several annotators drew one each."""
    places = [picture.path if mark.box is None else crop_path(picture.path, mark.box) for mark in picture.marks]
    rows = [
        Annotation(path, mark.label, annotator=mark.annotator) for path, mark in zip(places, picture.marks, strict=True)
    ]
    matched = match_boxes(rows).rows
    marks = (mark._replace(box=box_of(Path(row.path))) for mark, row in zip(picture.marks, matched, strict=True))
    return replace(picture, marks=tuple(dict.fromkeys(marks)))


def _add_predictions(given: MarkedPictures, predict: Predict) -> None:
    """Add a model's answers: for each box where labels are those of boxes, else for each picture."""
    has_boxes = given.has_boxes
    targets = [target for picture in given.pictures for target in _targets(picture, has_boxes)]
    paths = [given.root / path for path, _ in targets]
    answers = iter(track(predict(paths), "classifying", len(paths)))
    if has_boxes and any(not picture.marks for picture in given.pictures):
        given.notes.append("The model answers for boxes; pictures without one have no answer.")
    given.pictures = [
        replace(picture, predictions=tuple(_answers(picture, has_boxes, answers))) for picture in given.pictures
    ]


def _targets(picture: MarkedPicture, has_boxes: bool) -> list[tuple[str, Mark]]:
    """Path of the picture or of each of its boxes, each with a mark that has that box."""
    if not has_boxes:
        return [(picture.path, Mark(""))]
    boxes = dict.fromkeys(box for _, box in picture.labels if box is not None)
    return [(crop_path(picture.path, box), Mark("", box)) for box in boxes]


def _answers(picture: MarkedPicture, has_boxes: bool, answers: Iterator[Mark | None]) -> Iterator[Mark]:
    for _, mark in _targets(picture, has_boxes):
        answer = next(answers)
        if answer is not None:
            yield answer._replace(box=mark.box)
