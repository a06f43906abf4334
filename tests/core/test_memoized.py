"""A measurement is made once a machine."""

from pathlib import Path

import pytest

from lensmith.core import memoized
from lensmith.core.memoized import clear_memoized, memoized_on_disk


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path))


def test_it_is_made_once_for_what_it_depends_on() -> None:
    answers = iter(["bf16", "fp32", "fp16"])
    said = [memoized_on_disk("step", {"model": name}, lambda: next(answers)) for name in ("a", "a", "b", "a")]
    assert said == ["bf16", "bf16", "fp32", "bf16"]
    assert clear_memoized() == 2
    assert memoized_on_disk("step", {"model": "a"}, lambda: next(answers)) == "fp16"


def test_another_machine_measures_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memoized_on_disk("step", {}, lambda: 1) == 1
    monkeypatch.setattr(memoized, "description", lambda: {"cores": 999})
    assert memoized_on_disk("step", {}, lambda: 2) == 2


def test_of_two_processes_that_measure_at_once_the_first_is_right_for_both() -> None:
    def slowly() -> str:
        assert memoized_on_disk("step", {}, lambda: "first") == "first"
        return "second"

    assert memoized_on_disk("step", {}, slowly) == "first"


@pytest.mark.parametrize("content", ["", "{}"])
def test_a_file_that_a_power_cut_has_left_is_replaced(tmp_path: Path, content: str) -> None:
    memoized_on_disk("step", {}, lambda: 1)
    (file,) = (tmp_path / "measured").glob("*.json")
    file.write_text(content)
    assert [memoized_on_disk("step", {}, lambda answer=answer: answer) for answer in (2, 3)] == [2, 2]


def test_a_folder_that_cannot_be_written_to_costs_a_trial_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "file"))
    assert [memoized_on_disk("step", {}, lambda answer=answer: answer) for answer in (1, 2)] == [1, 2]
