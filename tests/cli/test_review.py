"""`lensmith review` on the command line: what it writes, what it refuses, and that it changes no picture."""

import json
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fixtures.command_line import Run
from lensmith.curation.reviewing.journal import read
from lensmith.data.scan import scan
from lensmith.feedback.storage import Upload, store


def begun(source: Path, out: Path, label: str = "red") -> Path:
    """A review of `source` whose first picture, which is blue, was found to be something else."""
    from lensmith.curation.reviewing import journal
    from lensmith.curation.reviewing.outcome import journal_of
    from lensmith.curation.reviewing.session import Session, standing
    from lensmith.curation.reviewing.sources import open_source

    found = open_source(source)
    with journal.opened(journal_of(out), found) as opened:
        Session(found, opened, standing(found, ())).decide("one", "anna", 0, "label", label=label, new_class=True)
    return journal_of(out)


def test_the_manifest_can_be_written_without_the_page(shared_colours: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "mine.csv"
    begun(shared_colours, out)
    code, printed, _ = run("review", shared_colours, "--out", out, "--write", "--json")
    result = json.loads(printed)
    assert (code, result["written"], result["decided"], result["changed"]) == (0, 24, 1, 1)
    assert result["reviewers"] == {"anna": 1}
    code, printed, _ = run("review", shared_colours, "--out", out, "--write")
    assert f"Next: lensmith data split {out}" in printed
    with out.with_name("mine.journal.jsonl").open("a") as journal:
        journal.write('{"id": "two", "by": "anna", "path": "red/gone.png", "action": "skip"}\n')
    _, _, error = run("review", shared_colours, "--out", out, "--write")
    assert error == "Decided pictures that the source does not have any more: 1.\n"
    code, printed, _ = run("data", "check", out, "--json")
    assert json.loads(printed)["counts"]["red"] == {"all": 9}


def followed(printed: str, run: Run, *more: object) -> dict[str, Any]:
    """The result of the command that a review's output names last."""
    *_, last = printed.strip().splitlines()
    words = shlex.split(last.removeprefix("Next: lensmith "))
    code, printed, error = run(*words, *more, "--json")
    assert code == 0, error
    found: dict[str, Any] = json.loads(printed)
    return found


def test_labels_of_stored_uploads_and_new_classes_of_a_list_arrive_where_the_output_says(
    shared_colours: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kept, out = Path("my uploads"), Path("a b.csv")
    upload = Upload(request_id="r", at=datetime.now(UTC), model="m", version="1", label="red", confidence=0.4,
                    reason="unsure")  # fmt: skip
    store(kept, upload, (shared_colours / "blue/000.png").read_bytes())
    begun(kept, out, "teal")
    _, printed, _ = run("review", kept, "--out", out, "--write")
    assert followed(printed, run)["written"] == {"teal": 1}
    assert len(list(Path("photos-new/teal").iterdir())) == 1

    Path("suspects.csv").write_text(f"path,label,score\n{shared_colours}/blue/000.png,blue,0.9\n")
    begun(Path("suspects.csv"), Path("decided.csv"), "teal")
    _, printed, _ = run("review", "suspects.csv", "--out", "decided.csv", "--write")
    as_split = printed.replace("train DIR", f"data split {shared_colours} --out m.csv")
    assert followed(as_split, run)["relabelled"] == [["blue/000.png", "blue", "teal"]]
    assert scan(Path("m.csv")).labels == ("blue", "green", "red", "teal")


def test_what_is_refused_leaves_everything_as_it_was(
    shared_colours: Path, tmp_path: Path, run: Run, in_tmp_path: None
) -> None:
    taken = tmp_path / "taken.csv"
    taken.write_text("path,label\n")
    journal = begun(shared_colours, tmp_path / "old.csv")
    other = tmp_path / "other"
    for label in ("cat", "dog"):
        (other / label).mkdir(parents=True)
        (other / label / "1.png").write_bytes((shared_colours / "red/000.png").read_bytes())
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for line, expected in (
        (("nowhere",), "Nothing is there"),
        ((shared_colours, "--out", taken), "not the result of a review"),
        ((taken, "--out", taken), "is what is reviewed"),
        ((shared_colours, "--out", tmp_path), "is a folder"),
        ((shared_colours, "--out", "x.json"), "does not end in .csv"),
        ((shared_colours, "--out", "new.csv", "--write"), "Nothing is there"),
        ((shared_colours, "--classes", "red,green"), "These are none of them: 'blue'"),
        ((shared_colours, "--bundle", "none"), "bundle"),
        ((other, "--out", "old.csv"), "are not in"),  # a journal from other data
        ((other, "--out", "old.csv", "--write"), "are not in"),
        ((shared_colours, "--host", "192.0.2.1", "--port", "0"), "A free address was expected"),
    ):
        code, _, error = run("review", *line)
        assert (code, error.count("\n")) == (2, 1), line
        assert expected in error, line
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert len(read(journal)) == 1


@pytest.mark.slow
def test_one_review_at_a_time_and_ctrl_c_writes_the_manifest(
    shared_colours: Path, tmp_path: Path, run: Run, free_port: Callable[[], int]
) -> None:
    out, port = tmp_path / "reviewed.csv", free_port()
    line = [sys.executable, "-m", "lensmith", "review", shared_colours, "--out", out, "--port", port, "--json"]
    with subprocess.Popen([*map(str, line)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert f"http://127.0.0.1:{port}/" in process.stderr.readline()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/api/decisions",
                b'{"id": "decision-1", "by": "anna", "position": 0, "action": "exclude"}',
                {"content-type": "application/json"},
            )
            deadline = time.monotonic() + 30
            while True:
                try:
                    with urllib.request.urlopen(request, timeout=5):
                        break
                except ConnectionError:
                    assert time.monotonic() < deadline
            code, _, error = run("review", shared_colours, "--out", out, "--port", 0)
            assert code == 2
            assert "Another `lensmith review` has it open." in error
            code, _, error = run("review", shared_colours, "--out", tmp_path / "b.csv", "--port", port)
            assert code == 2
            assert "--port 0" in error
            process.send_signal(signal.SIGINT)
            printed, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert json.loads(printed)["written"] == 23
    assert (tmp_path / "reviewed.excluded.csv").is_file()
