"""`lensmith data`: what people and programs get from fetch, check and split."""

import json
import shutil
from pathlib import Path

import pytest

from fixtures.command_line import Run


def test_fetch_says_source_and_counts_then_that_it_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    code, said, _ = run("data", "fetch", "digits", tmp_path / "digits", "--max-train", 50, "--max-test", 20)
    assert code == 0
    assert "10 classes, 50 train, 20 test (70 images written)" in said
    assert "Source: scikit-learn" in said
    code, out, _ = run("data", "fetch", "digits", tmp_path / "digits", "--max-train", 50, "--max-test", 20, "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["written"], result["counts"]) == (0, {"train": 50, "test": 20})


def test_fetch_refuses_an_unknown_name_with_the_known_ones(tmp_path: Path, run: Run) -> None:
    code, out, err = run("data", "fetch", "fashion", tmp_path / "set")
    assert code == 2
    assert out == ""
    assert "fashion-mnist, cifar10, flowers102, pets, digits" in err


def test_check_lists_counts_and_names_what_is_wrong_and_exits_with_0(colours: Path, run: Run) -> None:
    (colours / "red/[bold]cut\r\x1b.jpg").write_bytes((colours / "red/001.jpg").read_bytes()[:300])
    shutil.copy(colours / "red/000.png", colours / "blue/red[copy].png")
    code, said, _ = run("data", "check", colours)
    assert code == 0
    assert "25 usable images of 26" in said
    assert "2 files with something wrong" in said
    assert r"red/[bold]cut\r\x1b.jpg" in said  # brackets in a name are no markup, and control characters are shown
    assert "label conflict" in said
    assert "the same content as blue/red[copy].png, which is 'blue'" in said


def test_check_lists_no_finding_or_twenty_and_all_in_json(colours: Path, run: Run) -> None:
    assert "No problem was found." in run("data", "check", colours)[1]
    for number in range(25):
        (colours / f"red/empty{number:02d}.png").touch()
    said = run("data", "check", colours)[1]
    assert "red/empty19.png" in said
    assert "red/empty20.png" not in said
    assert "and 5 more" in said
    findings = json.loads(run("data", "check", colours, "--json")[1])["findings"]
    assert (len(findings), findings[0]) == (25, {"path": "red/empty00.png", "kind": "empty", "reason": "empty"})


def test_split_writes_a_manifest_and_says_the_numbers(colours: Path, run: Run) -> None:
    code, out, _ = run("data", "split", colours, "--ratio", "6:1:1", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["counts"] == {"train": 18, "val": 3, "test": 3}
    assert Path(result["manifest"]) == colours / "splits.csv"
    code, said, _ = run("data", "split", colours, "--ratio", "6:1:1")
    assert code == 0
    assert "was there already, the same" in said
    assert "No image is new, and all parts stay: 18 train, 3 val, 3 test." in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("split", "{colours}", "--ratio", "0:1:1"), "leaves a share for training"),
        (("split", "{colours}/none"), "Nothing is there"),
        (("check", "{colours}/.."), "give {colours} instead"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_code_2(
    colours: Path, run: Run, arguments: tuple[str, ...], said: str
) -> None:
    code, _, err = run("data", *(argument.format(colours=colours) for argument in arguments))
    assert code == 2
    assert said.format(colours=colours) in err.replace("/colours/../", "/")
    assert err.count("\n") == 1
    assert not (colours / "splits.csv").exists()


def test_split_and_check_name_contested_images_in_text_and_json(colours: Path, run: Run) -> None:
    table = colours / "votes.csv"
    files = sorted(file.relative_to(colours).as_posix() for file in colours.glob("*/*.*"))
    lines = [f"{file},{file.split('/')[0]},{who}" for file in files for who in ("anna", "bert")]
    lines[0] = f"{files[0]},red,anna"
    assert files[0].startswith("blue")
    table.write_text("path,label,annotator\n" + "\n".join(lines) + "\n", encoding="utf-8")
    contested = [{"path": files[0], "votes": {"blue": 1, "red": 1}, "reason": "contested: blue by 1, red by 1"}]
    for verb in ("check", "split"):
        code, out, _ = run("data", verb, table, "--json")
        assert code == 0
        assert json.loads(out)["contested"] == contested
        said = run("data", verb, table)[1]
        assert f"Images that are left out, since their annotators do not agree: 1 ({files[0]})" in said
        assert "Labels of 2 annotators, 48 for 24 images; they differ on 1" in said


def test_agreement_prints_figures_and_what_they_mean_and_next_steps(tmp_path: Path, run: Run) -> None:
    votes = [(f"{number}.png", "cat" if number % 2 else "dog", who) for number in range(40) for who in ("anna", "bert")]
    votes[0] = ("0.png", "cat", "anna")
    lines = ["path,label,annotator", *(",".join(vote) for vote in votes)]
    (tmp_path / "votes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, said, _ = run("data", "agreement", tmp_path / "votes.csv")
    assert code == 0
    assert "2 annotators, 80 labels for 40 images, of which 40 have two or more" in said
    assert "Krippendorff's alpha  0.95" in said
    assert "the labels are reliable" in said
    assert "Consensus (majority): 39 images decided, 1 contested" in said
    code, out, _ = run("data", "agreement", tmp_path / "votes.csv", "--out", tmp_path / "consensus.csv", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["pairs"][0]["cohen_kappa"]["value"] == pytest.approx(0.95)
    assert result["contested"] == [
        {"path": "0.png", "votes": {"cat": 1, "dog": 1}, "reason": "contested: cat by 1, dog by 1"}
    ]
    assert Path(result["files"]["contested"]) == tmp_path / "contested.csv"
    code, _, err = run("data", "agreement", tmp_path / "none.csv")
    assert code == 2
    assert "Nothing is there" in err
