"""The result: a manifest that other verbs read, what was left out, and the history."""

import csv
from pathlib import Path

from curation.reviewing.conftest import Begin
from lensmith.curation.reviewing import outcome
from lensmith.curation.reviewing.items import ReviewItem, ReviewSource
from lensmith.curation.reviewing.sources import open_source
from lensmith.data.scan import scan


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_set_gives_a_whole_manifest(photos: Path, begin: Begin, tmp_path: Path) -> None:
    session = begin(photos)
    session.decide("1", "anna", 0, "label", label="red")
    session.decide("2", "anna", 1, "exclude")
    session.decide("3", "anna", 2, "skip")
    session.decide("4", "anna", 3, "label", label="teal, dark", new_class=True)
    (tmp_path / "made").mkdir()
    out = tmp_path / "made" / "reviewed.csv"
    written = outcome.write(session.source, session.decided, session.journal.decisions, out)
    found = rows(out)
    assert written == len(found) == 8
    assert found[0] == {"path": "../photos/blue/0.png", "label": "red", "annotator": "anna"}
    assert found[1] == {"path": "../photos/blue/2.png", "label": "blue", "annotator": ""}
    assert found[2]["label"] == "teal, dark"
    assert scan(out).labels == ("blue", "green", "red", "teal, dark")
    assert rows(out.with_name("reviewed.excluded.csv")) == [{"path": "../photos/blue/1.png", "reviewer": "anna"}]
    history = rows(out.with_name("reviewed.history.csv"))
    assert [(each["action"], each["before"], each["after"]) for each in history] == [
        ("label", "blue", "red"), ("exclude", "blue", ""), ("skip", "blue", ""), ("label", "green", "teal, dark"),
    ]  # fmt: skip
    made = outcome.result(session.source, session.decided, out, written)
    assert (made.decided, made.changed, made.skipped, made.contested, made.unlabelled) == (3, 3, 1, 0, 0)
    assert made.reviewers == {"anna": 4}
    assert made.excluded is not None

    session.decide("5", "anna", 1, "undo", undoes="2")
    outcome.write(session.source, session.decided, session.journal.decisions, out)
    assert not made.excluded.exists()
    assert len(rows(out)) == 9


def test_reviewers_who_disagree_have_a_line_each(photos: Path, begin: Begin, tmp_path: Path) -> None:
    session = begin(photos)
    session.decide("1", "anna", 0, "label", label="red")
    session.decide("2", "bob", 0, "label", label="green")
    out = tmp_path / "reviewed.csv"
    outcome.write(session.source, session.decided, session.journal.decisions, out)
    assert [tuple(each.values()) for each in rows(out)][:2] == [
        ("photos/blue/0.png", "red", "anna"), ("photos/blue/0.png", "green", "bob"),
    ]  # fmt: skip


def test_a_list_gives_what_was_decided_on(photos: Path, begin: Begin, tmp_path: Path) -> None:
    items = tuple(ReviewItem(path, label) for path, label in (("red/0.png", "green"), ("red/1.png", "green")))
    session = begin(ReviewSource(photos, photos, "list", "suspects", items, ("green", "red")))
    session.decide("1", "anna", 1, "label", label="red")
    out = tmp_path / "reviewed.csv"
    assert outcome.write(session.source, session.decided, session.journal.decisions, out) == 1
    assert rows(out) == [{"path": "photos/red/1.png", "label": "red", "annotator": "anna"}]


def test_split_group_fold_and_crops_are_carried_along(photos: Path, begin: Begin, tmp_path: Path) -> None:
    manifest = tmp_path / "labels.csv"
    manifest.write_text(
        "path,label,split,group,fold,annotator\n"
        '"photos/red/0.png#xywh=1,2,8,8",red,train,a,0,\n'
        "photos/green/0.png,green,test,b,,carl\n"
        "photos/green/0.png,red,test,b,,dora\n"
    )
    session = begin(open_source(manifest))
    session.decide("1", "anna", 0, "label", label="green")
    out = tmp_path / "reviewed.csv"
    outcome.write(session.source, session.decided, session.journal.decisions, out)
    assert out.read_text() == (
        "path,label,split,group,fold,annotator\n"
        '"photos/red/0.png#xywh=1,2,8,8",green,train,a,0,anna\n'
        "photos/green/0.png,green,test,b,,carl\n"
        "photos/green/0.png,red,test,b,,dora\n"
    )
