"""The journal: nothing acknowledged is lost, nothing is doubled, nobody else writes to it."""

import json
import os
import threading
from pathlib import Path

import pytest

from lensmith.curation.reviewing.items import ReviewItem, ReviewSource
from lensmith.curation.reviewing.journal import Journal, LabelDecision, opened, read
from lensmith.errors import DataError, OutputError

SOURCE = ReviewSource(Path("photos"), Path("photos"), "set", "a labelled set", (ReviewItem("a.png"),), ("cat", "dog"))


def decision(name: str, label: str = "cat", by: str = "anna") -> LabelDecision:
    return LabelDecision(name, by, "a.png", "label", label, content="1-a")


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    with opened(file, SOURCE) as journal:
        first = journal.append(decision("one", "Ülm\u2028“x”"))
        assert [each.id for each in read(file)] == ["one"]  # while it is open
    with opened(file, SOURCE) as journal:
        assert journal.decisions == [first]
        journal.append(decision("two"))
    assert [each.id for each in read(file)] == ["one", "two"]
    assert first.at.endswith("Z")
    assert json.loads(file.read_text().splitlines()[0])["journal"] == "lensmith review"


@pytest.mark.parametrize("torn", [b"{", b'{"id": "two", "by": "anna"', "ä".encode()[:1]])
def test_half_a_last_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    file = tmp_path / "j.jsonl"
    with opened(file, SOURCE) as journal:
        journal.append(decision("one"))
    whole = file.read_bytes()
    file.write_bytes(whole + torn)
    assert [each.id for each in read(file)] == ["one"]
    assert file.read_bytes() == whole + torn  # reading repairs nothing: another process may be writing
    with opened(file, SOURCE) as journal:
        assert file.read_bytes() == whole
        journal.append(decision("two"))
    assert [each.id for each in read(file)] == ["one", "two"]


def test_a_journal_cut_at_any_byte_keeps_all_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    with opened(file, SOURCE) as journal:
        for name in ("one", "two", "three"):
            journal.append(decision(name))
    content = file.read_bytes()
    first = content.index(b"\n") + 1
    for end in (*range(first, len(content), 11), *range(len(content) - 3, len(content) + 1)):
        file.write_bytes(content[:end])
        assert len(read(file)) == content[:end].count(b"\n") - 1


def test_a_repeated_id_is_written_once(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    with opened(file, SOURCE) as journal:
        first = journal.append(decision("one", "cat"))
        assert journal.append(decision("one", "dog")) == first
    with opened(file, SOURCE) as journal:
        assert journal.append(decision("one", "dog")) == first
    assert len(read(file)) == 1


def test_many_threads_lose_and_double_nothing(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    with opened(file, SOURCE) as journal:

        def work(by: str) -> None:
            for number in range(10):
                journal.append(decision(f"{number}", by=by))  # of the four, one wins each
                journal.append(decision(f"{by}-{number}", by=by))

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    names = [each.id for each in read(file)]
    assert len(names) == len(set(names)) == 50


def test_a_second_review_may_not_write_to_it(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    with opened(file, SOURCE), pytest.raises(OutputError, match="Another `lensmith review`"), opened(file, SOURCE):
        pass
    with opened(file, SOURCE):
        pass


def test_a_line_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "j.jsonl"
    with opened(file, SOURCE) as journal:
        journal.append(decision("one"))
        whole = file.read_bytes()
        write = os.write
        monkeypatch.setattr(os, "write", lambda where, line: write(where, line[:20]) if len(line) > 150 else full())

        def full() -> int:
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            journal.append(decision("two", "c" * 200))
        monkeypatch.undo()
        assert file.read_bytes() == whole
        journal.append(decision("two"))
    assert [each.id for each in read(file)] == ["one", "two"]


@pytest.mark.parametrize(
    "content",
    [
        b"path,label\na.png,cat\n",
        b"\xff\xd8\xff",
        b"[]\n",
        b'{"journal": "lensmith review", "version": 9}\n',
        b'{"journal": "lensmith review", "version": 1}\n{"id": 3}\n',
        b'{"journal": "lensmith review", "version": 1}\n{"id": "a", "path": "b", "action": "drop"}\n',
    ],
)
def test_another_file_is_no_journal_and_stays(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "j.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError), opened(file, SOURCE):
        pass
    assert file.read_bytes() == content


def test_find_knows_what_was_appended(tmp_path: Path) -> None:
    with opened(tmp_path / "j.jsonl", SOURCE) as journal:
        assert isinstance(journal, Journal)
        assert journal.find("one") is None
        assert journal.find(journal.append(decision("one")).id) == journal.decisions[0]
