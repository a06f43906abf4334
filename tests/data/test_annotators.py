"""`data agreement` on files: figures of annotators, consensus, contested images, and sources of every kind."""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lensmith import agreement
from lensmith.data.agreement import NOTHING_IN_COMMON
from lensmith.data.annotators import AgreementResult
from lensmith.data.scan import scan
from lensmith.errors import DataError, MissingPackageError, OutputError, SettingsError

VOTES = [
    ("1.png", "cat", "anna"), ("1.png", "cat", "bert"), ("1.png", "cat", "chris"),
    ("2.png", "dog", "anna"), ("2.png", "dog", "bert"), ("2.png", "cat", "chris"),
    ("3.png", "dog", "anna"), ("3.png", "cat", "bert"),
    ("a b/ü.png", "dog", "anna"), ("a b/ü.png", "dog", "bert"), ("a b/ü.png", "dog", "chris"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lensmith.data.agreement.DRAWS", 50)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, and no table yet."""
    for number, name in enumerate(("1.png", "2.png", "3.png", "a b/ü.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (24, 24), (60 * number, 90, 120)).save(tmp_path / name)
    return tmp_path


def write(file: Path, votes: list[tuple[str, ...]] = VOTES, columns: str = "path,label,annotator") -> Path:  # type: ignore[assignment]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([columns, *(",".join(vote) for vote in votes)]) + "\n", encoding="utf-8")
    return file


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def by_name(result: AgreementResult) -> dict[str, Any]:
    return {each.annotator: each for each in result.annotators}


def test_figures_annotators_and_classes_of_a_table(folder: Path) -> None:
    found = agreement(write(folder / "votes.csv"))
    assert (found.images, found.compared, found.labels, found.classes) == (4, 4, 11, ("cat", "dog"))
    assert found.percentage_agreement.value == pytest.approx(7 / 10)
    assert found.confusion == ((3, 3), (3, 4))
    assert found.mixed_up == (("cat", "dog", 3),)
    assert (found.fleiss_images, found.fleiss_labels) == (3, 3)
    assert [(each.path, each.votes) for each in found.contested] == [("3.png", {"cat": 1, "dog": 1})]
    assert found.decided == 3
    chris = by_name(found)["chris"]
    assert (chris.images, chris.compared, chris.agreement.value) == (3, 3, pytest.approx(2 / 3))
    assert chris.mixed_up == (("dog", "cat", 1),)
    assert found.annotators[0].agreement.value is not None
    assert [each.agreement.value for each in found.annotators] == sorted(e.agreement.value for e in found.annotators)
    assert found.files is None
    assert sorted(path.name for path in folder.iterdir()) == ["1.png", "2.png", "3.png", "a b", "votes.csv"]


def test_out_writes_a_manifest_that_is_read_and_a_work_list_and_a_page(folder: Path) -> None:
    found = agreement(write(folder / "votes.csv"), out=folder / "out/consensus.csv")
    assert found.files is not None
    images = scan(found.files.manifest)
    labels = {images.file(sample).resolve().name: images.labels[sample.label] for sample in images.samples}
    assert labels == {"1.png": "cat", "2.png": "dog", "ü.png": "dog"}
    assert (images.set_aside, images.contested) == ((), ())
    (contested,) = rows(found.files.contested)
    assert (found.files.contested.parent / contested["path"]).resolve() == folder / "3.png"
    assert (contested["candidates"], contested["votes"]) == ("cat; dog", "anna: dog; bert: cat")
    assert (contested["suggested"], float(contested["score"])) == ("", 0.5)
    page = found.files.report.read_text(encoding="utf-8")
    assert page.count('src="data:image/jpeg;base64,') == 2  # 3.png is contested, and 2.png decided against chris
    assert 'alt="3.png, called cat by bert; dog by anna"' in page
    assert not re.search(r'(src|href)="(?!data:)|url\(|<script', page)


def test_the_same_files_are_written_again_and_others_only_with_overwrite(folder: Path) -> None:
    source, out = write(folder / "votes.csv"), folder / "consensus.csv"
    agreement(source, out=out)
    agreement(source, out=out)
    before = {file.name: file.read_bytes() for file in folder.glob("*.*") if file.name != "votes.csv"}
    write(source, [*VOTES, ("3.png", "dog", "chris")])
    with pytest.raises(OutputError, match="--overwrite"):
        agreement(source, out=out)
    assert {file.name: file.read_bytes() for file in folder.glob("*.*") if file.name != "votes.csv"} == before
    agreement(source, out=out, overwrite=True)
    assert rows(folder / "contested.csv") == []
    assert len(rows(out)) == 4


def test_parts_and_groups_come_into_the_manifest(folder: Path) -> None:
    votes = [(*vote[:2], "train" if vote[0] != "2.png" else "test", "g1", vote[2]) for vote in VOTES]
    found = agreement(write(folder / "votes.csv", votes, "path,label,split,group,annotator"), out=folder / "out.csv")
    assert found.decided == 3
    assert rows(folder / "out.csv")[1] == {"path": "2.png", "label": "dog", "split": "test", "group": "g1"}


def test_a_file_for_each_annotator_is_named_as_the_file_is(folder: Path) -> None:
    for name in ("anna", "bert", "chris"):
        write(folder / f"{name}.csv", [vote[:2] for vote in VOTES if vote[2] == name], "path,label")
    together = agreement(write(folder / "votes.csv"))
    found = agreement([folder / f"{name}.csv" for name in ("anna", "bert", "chris")])
    assert found.krippendorff_alpha == together.krippendorff_alpha
    assert (found.pairs, found.contested) == (together.pairs, together.contested)


def test_files_of_one_name_are_told_apart_and_copies_of_pictures_compared_by_path(folder: Path, tmp_path: Path) -> None:
    sources = [
        write(tmp_path / name / "labels.csv", [vote[:2] for vote in VOTES if vote[2] == name], "path,label")
        for name in ("anna", "bert")
    ]
    found = agreement(sources)
    assert [pair.annotators for pair in found.pairs] == [("anna/labels", "bert/labels")]
    assert found.compared == 4
    assert any("paths in the sources" in note for note in found.notes)


def test_label_studio_with_several_people_on_a_task_is_a_source(folder: Path) -> None:
    def annotated(who: int, choice: str) -> dict[str, Any]:
        result = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [choice]}}
        return {"completed_by": who, "was_cancelled": False, "result": [result]}

    people = {"anna": 1, "bert": 2, "chris": 3}
    tasks: dict[str, list[dict[str, Any]]] = {}
    for path, label, who in VOTES:
        tasks.setdefault(path, []).append(annotated(people[who], label))
    content = [
        {"id": number, "data": {"image": path}, "annotations": given}
        for number, (path, given) in enumerate(tasks.items())
    ]
    (folder / "project.json").write_text(json.dumps(content), encoding="utf-8")
    found, table = agreement(folder / "project.json"), agreement(write(folder / "votes.csv"))
    assert found.krippendorff_alpha == table.krippendorff_alpha
    assert [each.votes for each in found.contested] == [{"cat": 1, "dog": 1}]


def test_pictures_of_a_table_need_not_be_there(tmp_path: Path) -> None:
    found = agreement(write(tmp_path / "votes.csv"), out=tmp_path / "consensus.csv")
    assert found.images == 4
    assert found.files is not None
    assert "no picture" in found.files.report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        ([("1.png", "cat", "anna"), ("2.png", "dog", "ANNA ")], "All are by 'anna'"),
        ([("1.png", "cat", ""), ("2.png", "dog", "")], "does not say who"),
        ([("1.png", "cat", "anna"), ("1.png", "Cat", "bert")], "look alike"),
        ([("1.png", "", "anna")], "path or label is empty"),
    ],
)
def test_sources_without_two_annotators_or_with_classes_that_look_alike_are_refused(
    folder: Path, votes: list[tuple[str, ...]], said: str
) -> None:
    with pytest.raises(DataError) as refused:
        agreement(write(folder / "votes.csv", votes))
    assert said in refused.value.arrived


def test_sources_that_are_missing_no_table_or_of_other_pictures_are_refused(folder: Path) -> None:
    one, other = write(folder / "one.csv", [("1.png", "cat")], "path,label"), folder / "other.csv"
    write(other, [("2.png", "dog")], "path,label")
    with pytest.raises(DataError, match="No picture is in two of them"):
        agreement([one, other])
    with pytest.raises(DataError, match="Nothing is there"):
        agreement(folder / "none.csv")
    with pytest.raises(DataError, match="folder without either"):
        agreement(folder / "a b")


def test_two_columns_that_can_be_the_annotator_are_none_and_a_folder_must_take_files(folder: Path) -> None:
    votes = [(*vote, "x") for vote in VOTES]
    table = write(folder / "votes.csv", votes, "path,label,user,reviewer")
    with pytest.raises(DataError, match="does not say who"):
        agreement(table)
    assert [each.path for each in scan(table).contested] == ["2.png", "3.png"]
    assert "not used: user, reviewer" in scan(table).notes[0]
    with pytest.raises(OutputError, match="cannot be written"):
        agreement(write(folder / "votes.csv"), out=folder / "1.png/out.csv")


@pytest.mark.parametrize("name", ["consensus.txt", "contested.csv"])
def test_a_manifest_is_called_as_a_csv_and_not_as_the_work_list(folder: Path, name: str) -> None:
    with pytest.raises(SettingsError):
        agreement(write(folder / "votes.csv"), out=folder / name)


def test_annotators_who_share_no_image_have_no_figure_and_are_named(folder: Path) -> None:
    lonely = agreement(write(folder / "votes.csv", [("1.png", "cat", "anna"), ("2.png", "dog", "bert")]))
    assert lonely.krippendorff_alpha.value is None
    assert lonely.krippendorff_alpha.reason == NOTHING_IN_COMMON
    assert NOTHING_IN_COMMON in lonely.meaning
    assert json.loads(json.dumps(lonely.as_dict()))["krippendorff_alpha"]["value"] is None
    assert (lonely.pairs, lonely.decided) == ((), 2)
    found = agreement(write(folder / "votes.csv", [*VOTES, ("new.png", "owl", "dora")]))
    assert by_name(found)["dora"].agreement.value is None
    assert by_name(found)["dora"].alone == ("owl",)
    assert found.annotators[-1].annotator == "dora"
    assert any("share no image with another, and are not compared: dora" in warning for warning in found.warnings)


def test_equal_labels_have_no_kappa_and_the_words_say_why(folder: Path) -> None:
    found = agreement(write(folder / "votes.csv", [(vote[0], "cat", vote[2]) for vote in VOTES]))
    assert found.percentage_agreement.value == 1
    assert found.krippendorff_alpha.value is None
    assert "one class" in found.meaning
    assert all(pair.cohen_kappa.value is None and pair.agreement == 1 for pair in found.pairs)


def test_an_annotator_with_two_labels_for_one_image_has_no_vote_for_it_and_that_is_listed(folder: Path) -> None:
    found = agreement(write(folder / "votes.csv", [*VOTES, ("1.png", "dog", "chris"), ("new.png", "cat", "anna"),
                                                   ("new.png", "dog", "anna")]), out=folder / "out.csv")  # fmt: skip
    assert by_name(found)["chris"].images == 2
    assert any("none of which counts: 2 (1.png, new.png)" in warning for warning in found.warnings)
    listed = {row["path"]: row["votes"] for row in rows(folder / "contested.csv")}
    assert listed == {"3.png": "anna: dog; bert: cat", "new.png": "anna: cat; anna: dog"}


def test_dawid_and_skene_decide_what_two_cannot(folder: Path) -> None:
    votes = [
        (f"{number}.png", ("cat", "dog")[(number + wrong) % 2], who)
        for number in range(40)
        for who, wrong in (("anna", 0), ("bert", 0), ("chris", int(number % 3 == 0)))
        if not (who == "anna" and number < 4)
    ]
    source = write(folder / "votes.csv", votes)
    assert len(agreement(source).contested) == 2
    found = agreement(source, consensus="dawid-skene", out=folder / "out.csv")
    assert (found.contested, found.consensus) == ((), "dawid-skene")
    assert {row["path"]: row["label"] for row in rows(folder / "out.csv")}["3.png"] == "dog"
    accuracy = {name: each.accuracy for name, each in by_name(found).items()}
    assert accuracy["chris"] < 0.75 < 0.97 < accuracy["bert"]
    assert agreement(source).files is None


def test_cvat_jobs_are_annotators_in_one_folder_and_as_single_files(folder: Path) -> None:
    for who in ("anna", "bert", "chris"):
        images = "".join(
            f'<image id="{number}" name="{path}" width="24" height="24"><tag label="{label}"/></image>'
            for number, (path, label, by) in enumerate(VOTES)
            if by == who
        )
        xml = f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{images}</annotations>'
        (folder / f"{who}.xml").write_text(xml, encoding="utf-8")
    table = agreement(write(folder / "elsewhere.csv"))
    (folder / "elsewhere.csv").unlink()
    for source in (folder, [folder / f"{who}.xml" for who in ("anna", "bert", "chris")]):
        found = agreement(source)
        assert found.krippendorff_alpha == table.krippendorff_alpha
        assert [each.annotator for each in found.annotators] == [each.annotator for each in table.annotators]
        assert [each.path for each in found.contested] == ["3.png"]


def test_figures_alone_need_no_templates(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lensmith.core.packages._is_installed", lambda package: package != "jinja2")
    monkeypatch.setitem(sys.modules, "lensmith.data.agreement_page", None)
    assert agreement(write(folder / "votes.csv")).decided == 3
    with pytest.raises(MissingPackageError, match="jinja2"):
        agreement(folder / "votes.csv", out=folder / "consensus.csv")
