"""Corrections: lists of images to leave out and of new labels, matched by path, and refused where they do not fit."""

from pathlib import Path

import pytest

from lensmith.config import SplitSettings
from lensmith.data.corrections import apply, from_files
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.scan import scan
from lensmith.data.split import prepare, split
from lensmith.data.verify import check
from lensmith.errors import DataError

LABELS = ("cat", "dog", "owl")


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    samples = [Sample(f"{label}/{n}.png", index) for index, label in enumerate(LABELS) for n in range(3)]
    return ImageSet(tmp_path / "set", LABELS, tuple(samples))


def written(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def labels_of(images: ImageSet) -> dict[str, str]:
    return {sample.path: images.labels[sample.label] for sample in images.samples}


@pytest.mark.parametrize(
    "text",
    [
        "cat/0.png\n\ndog/2.png\n",  # relative to the set
        "../set/cat/0.png\n../set/dog/2.png\n",  # relative to the list
        "path,label,score\n../set/cat/0.png,cat,0.9\n../set/dog/2.png,dog,0.8\n",
        "\ufeffscore;file\n1;../set/cat/0.png\n1;../set/dog/2.png\n",
    ],
)
def test_excluded_images_are_gone_and_named(images: ImageSet, tmp_path: Path, text: str) -> None:
    found = from_files(written(tmp_path / "lists/out.csv", text), None)(images)
    assert found.excluded == ("cat/0.png", "dog/2.png")
    assert labels_of(found).keys() == labels_of(images).keys() - {"cat/0.png", "dog/2.png"}
    assert not found.warnings


def test_rows_that_are_not_flagged_stay_in_the_set(images: ImageSet, tmp_path: Path) -> None:
    text = "path,label,flagged\ncat/0.png,cat,yes\ncat/1.png,cat,no\ncat/1.png,dog,No \ndog/2.png,dog,\n"
    assert from_files(written(tmp_path / "out.csv", text), None)(images).excluded == ("cat/0.png", "dog/2.png")


def test_an_absolute_path_is_that_of_the_set(images: ImageSet, tmp_path: Path) -> None:
    file = written(tmp_path / "elsewhere/out.txt", f"{images.root / 'owl/1.png'}\n")
    assert from_files(file, None)(images).excluded == ("owl/1.png",)


def test_leaving_out_a_picture_leaves_out_its_crops(tmp_path: Path) -> None:
    names = ("a.jpg#xywh=0,0,9,9", "a.jpg#xywh=5,5,9,9", "b.jpg#xywh=0,0,9,9", "c.jpg#xywh=0,0,9,9")
    images = ImageSet(tmp_path, ("x", "y"), tuple(Sample(name, n % 2) for n, name in enumerate(names)))
    assert from_files(written(tmp_path / "out.txt", "a.jpg\n"), None)(images).excluded == names[:2]
    assert from_files(written(tmp_path / "out.txt", f"{names[1]}\n"), None)(images).excluded == names[1:2]


def test_new_labels_change_nothing_else(images: ImageSet, tmp_path: Path) -> None:
    file = written(tmp_path / "new.csv", "path,label\nset/cat/0.png,owl\nset/dog/0.png,dog\n")
    found = from_files(None, file)(images)
    assert found.relabelled == (("cat/0.png", "cat", "owl"),)  # dog was dog before
    assert labels_of(found) == labels_of(images) | {"cat/0.png": "owl"}


def test_a_new_class_comes_in_by_new_labels_and_is_named(images: ImageSet, tmp_path: Path) -> None:
    file = written(tmp_path / "new.csv", "path,label\ncat/0.png,bird\ncat/1.png,bird\ndog/0.png,ow\n")
    found = from_files(None, file)(images)
    assert found.labels == ("bird", "cat", "dog", "ow", "owl")
    assert labels_of(found) == labels_of(images) | {"cat/0.png": "bird", "cat/1.png": "bird", "dog/0.png": "ow"}
    assert "'bird' (2 images), 'ow' (1 image; did you mean 'owl'?)" in found.warnings[-1]
    assert apply(images, (), {path: after for path, _, after in found.relabelled}).samples == found.samples


def test_an_image_in_both_lists_is_left_out(images: ImageSet, tmp_path: Path) -> None:
    out, new = written(tmp_path / "out.txt", "cat/0.png"), written(tmp_path / "new.csv", "path,label\ncat/0.png,owl\n")
    found = from_files(out, new)(images)
    assert found.excluded == ("cat/0.png",)
    assert found.relabelled == ()


def test_paths_that_are_not_in_the_set_are_named(images: ImageSet, tmp_path: Path) -> None:
    found = from_files(written(tmp_path / "out.txt", "cat/0.png\ncat/77.png\n"), None)(images)
    assert "cat/77.png" in found.warnings[-1]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("path,label\nother/1.png,cat\n", "other/1.png"),  # of another set
        ("path,label\ncat/0.png,Owl\n", "look alike"),
        ("path,label\ncat/0.png,dog\ncat/0.png,owl\n", "line 3"),
        ("path,label,suggested\ncat/0.png,cat,dog\n", "work list"),
        ("path,score\ncat/0.png,1\n", "path,score"),
        ("path,label\ncat/0.png,\n", "no label"),
        ("", "nothing"),
    ],
)
def test_a_list_of_new_labels_that_does_not_fit_is_an_error(
    images: ImageSet, tmp_path: Path, text: str, named: str
) -> None:
    with pytest.raises(DataError, match=named):
        from_files(None, written(tmp_path / "new.csv", text))(images)


def test_a_list_that_cannot_be_read_is_an_error(images: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\x00\xfe")
    for file in (tmp_path / "missing.csv", tmp_path / "binary", tmp_path):
        with pytest.raises(DataError):
            from_files(file, None)(images)


def test_a_class_without_images_is_dropped_with_a_warning(images: ImageSet) -> None:
    found = apply(images, [f"cat/{n}.png" for n in range(3)], {})
    assert found.labels == ("dog", "owl")
    assert labels_of(found)["dog/0.png"] == "dog"
    assert "cat" in found.warnings[-1]
    with pytest.raises(DataError):
        apply(images, [f"{label}/{n}.png" for label in ("cat", "dog") for n in range(3)], {})


def test_split_check_and_training_obey_the_lists(colours: Path, tmp_path: Path) -> None:
    first, second, *_ = scan(colours).samples
    labels = scan(colours).labels
    out = written(tmp_path / "out.txt", f"{first.path}\n")
    new = written(tmp_path / "new.csv", f"path,label\n{second.path},{labels[2]}\n")
    done = split(SplitSettings(folder=colours, out=tmp_path / "m.csv", exclude=out, relabel=new))
    after = labels_of(scan(tmp_path / "m.csv"))
    assert not any(path.endswith(first.path) for path in after)
    assert len(after) == 23
    assert done.excluded == (first.path,)
    assert done.relabelled == ((second.path, labels[0], labels[2]),)
    assert [after[path] for path in after if path.endswith(second.path)] == [labels[2]]
    assert check(colours, exclude=out, relabel=new).counts[labels[2]] == {"all": 9}
    assert len(prepare(colours, (5, 3, 2), 0, correct=from_files(out, new)).samples) == 23


def test_a_new_label_decides_a_contested_image_and_an_exclusion_takes_it_off_the_list(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"):
        (tmp_path / name).write_bytes(b"\xff\xd8 not decoded by scan")
    votes = {"1.jpg": "cat cat", "2.jpg": "dog dog", "3.jpg": "cat dog", "4.jpg": "dog cat", "5.jpg": "cat dog"}
    lines = [
        f"{name},{label},g{name[0]},{who}"
        for name, labels in votes.items()
        for label, who in zip(labels.split(), ("anna", "bert"), strict=True)
    ]
    (tmp_path / "votes.csv").write_text("\n".join(["path,label,group,annotator", *lines]) + "\n", encoding="utf-8")
    (tmp_path / "decided.csv").write_text("path,label\n3.jpg,dog\n", encoding="utf-8")
    (tmp_path / "out.txt").write_text("4.jpg\n", encoding="utf-8")
    images = scan(tmp_path / "votes.csv")
    assert [each.path for each in images.contested] == ["3.jpg", "4.jpg", "5.jpg"]
    corrected = from_files(tmp_path / "out.txt", tmp_path / "decided.csv")(images)
    labels = {sample.path: (corrected.labels[sample.label], sample.group) for sample in corrected.samples}
    assert labels == {"1.jpg": ("cat", "g1"), "2.jpg": ("dog", "g2"), "3.jpg": ("dog", "g3")}
    assert [each.path for each in corrected.contested] == ["5.jpg"]
    assert [path for path, _ in corrected.set_aside] == ["5.jpg"]
    assert sum("do not agree" in warning for warning in corrected.warnings) == 1
    assert "do not agree: 1 (5.jpg)" in corrected.warnings[0]
    assert corrected.excluded == ("4.jpg",)
    assert corrected.relabelled == (("3.jpg", "(contested)", "dog"),)
