"""A review under way: whose decision counts, which classes may be given, and which journal fits."""

from pathlib import Path

import pytest

from curation.reviewing.conftest import Begin
from lensmith.curation.reviewing.session import RefusedError, Session, astray_notes, require_same_data, standing
from lensmith.curation.reviewing.sources import open_source
from lensmith.errors import DataError


def refused(session: Session, label: str, **more: bool) -> tuple[str, tuple[str, ...]]:
    with pytest.raises(RefusedError) as caught:
        session.decide("refused1", "anna", 0, "label", label=label, **more)
    return caught.value.kind, caught.value.similar


def test_the_last_decision_of_each_reviewer_counts(photos: Path, begin: Begin) -> None:
    session = begin(photos)
    session.decide("1", "anna", 0, "label", label="red")
    session.decide("2", "bob", 0, "label", label="green")
    session.decide("3", "anna", 0, "label", label="blue")
    assert {who: each.label for who, each in session.decided[0].items()} == {"bob": "green", "anna": "blue"}
    assert session.label_of(0, "anna") == "blue"
    assert session.label_of(0, "bob") == "green"
    assert session.label_of(0, "carl") == "blue"  # the latest
    assert session.summary() == "1 of 9 pictures decided, 1 contested"


def test_before_and_content_are_written_down(photos: Path, begin: Begin) -> None:
    session = begin(photos)
    size = (photos / "blue/0.png").stat().st_size
    first = session.decide("1", "anna", 0, "label", label="red")
    second = session.decide("2", "anna", 0, "label", label="green")
    assert (first.path, first.before, second.before) == ("blue/0.png", "blue", "red")
    assert first.content.startswith(f"{size}-")


def test_undo_brings_back_what_was_before_also_after_a_restart(photos: Path, begin: Begin) -> None:
    session = begin(photos)
    session.decide("1", "anna", 0, "label", label="red")
    session.decide("2", "anna", 0, "exclude")
    session.decide("3", "anna", 0, "undo", undoes="2")
    assert session.label_of(0, "anna") == "red"
    again = begin(photos)
    assert again.label_of(0, "anna") == "red"
    again.decide("4", "anna", 0, "undo", undoes="1")
    assert again.label_of(0, "anna") == "blue"
    assert not again.decided[0]
    assert not begin(photos).decided[0]


def test_nobody_undoes_what_others_have_done(photos: Path, begin: Begin) -> None:
    session = begin(photos)
    session.decide("1", "anna", 0, "label", label="red")
    for by, position, name in (("bob", 0, "1"), ("anna", 1, "1"), ("anna", 0, "9")):
        with pytest.raises(RefusedError) as caught:
            session.decide("2", by, position, "undo", undoes=name)
        assert caught.value.kind == "nothing-to-undo"
    assert len(session.journal.decisions) == 1


def test_a_repeated_request_counts_once(photos: Path, begin: Begin) -> None:
    session = begin(photos)
    first = session.decide("1", "anna", 0, "label", label="red")
    assert session.decide("1", "anna", 0, "label", label="red") is first
    assert session.log == [0]
    assert begin(photos).decide("1", "anna", 0, "label", label="red").at == first.at


def test_classes_are_added_on_demand_and_never_twins(photos: Path, begin: Begin) -> None:
    session = begin(photos)
    assert refused(session, "teal") == ("new-class", ())
    assert refused(session, "Red") == ("looks-alike", ("red",))
    assert refused(session, "rеd", new_class=True) == ("looks-alike", ("red",))  # a Cyrillic е
    assert refused(session, " \u200b")[0] == "no-label"
    assert refused(session, "x" * 101, new_class=True)[0] == "no-label"
    assert session.decide("1", "anna", 0, "label", label=" teal\u200b ", new_class=True).label == "teal"
    assert session.labels == ["blue", "green", "red", "teal"]
    assert begin(photos).labels == ["blue", "green", "red", "teal"]


def test_listed_classes_are_all_there_are(photos: Path, begin: Begin) -> None:
    session = begin(open_source(photos, ["red", "green", "blue"]), closed=True)
    assert session.labels == ["red", "green", "blue"]
    assert refused(session, "teal", new_class=True)[0] == "closed"


def test_a_reviewer_has_a_name_and_a_picture_a_place(photos: Path, begin: Begin) -> None:
    session = begin(photos)
    for by, position, kind in (("", 0, "no-name"), (" \u200b", 0, "no-name"), ("x" * 101, 0, "no-name"),
                               ("anna", -1, "no-such-picture"), ("anna", 9, "no-such-picture")):  # fmt: skip
        with pytest.raises(RefusedError) as caught:
            session.decide("1", by, position, "skip")
        assert caught.value.kind == kind
    assert session.decide("1", "  anna  b ", 0, "skip").by == "anna b"


def test_a_changed_picture_waits_again_and_a_lost_one_is_named(photos: Path, begin: Begin) -> None:
    session = begin(photos)
    for position in range(5):
        session.decide(str(position), "anna", position, "label", label="red")
    (photos / "blue/0.png").write_bytes((photos / "red/2.png").read_bytes())
    (photos / "blue/1.png").unlink()
    source = open_source(photos)
    found = standing(source, session.journal.decisions)
    assert (len(found.decided), found.changed, found.gone) == (3, 1, 1)
    assert len(astray_notes(found)) == 2
    require_same_data(source, found, session.journal.path)


def test_a_journal_of_other_pictures_is_refused(photos: Path, begin: Begin, tmp_path: Path) -> None:
    session = begin(photos)
    for position in range(4):
        session.decide(str(position), "anna", position, "label", label="red")
    other = tmp_path / "other"
    photos.rename(other)
    require_same_data(open_source(other), standing(open_source(other), session.journal.decisions), Path("j"))  # moved
    for file in sorted(other.glob("blue/*")):
        file.write_bytes(file.read_bytes()[::-1])
    source = open_source(other)
    found = standing(source, session.journal.decisions)
    with pytest.raises(DataError) as caught:
        require_same_data(source, found, Path("j"))
    assert "3 are other pictures under the same name" in caught.value.arrived
