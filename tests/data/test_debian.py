"""Unpacking a Debian package without root; stand-ins for apt-get and dpkg, so that it runs anywhere."""

from pathlib import Path

import pytest

from lensmith.data.debian import unpack
from lensmith.errors import DataError


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH; `script` puts tools there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_machine_without_apt_is_reported(tools: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="apt-get"):
        unpack("some-package", tmp_path / "out")


def test_the_last_error_of_apt_is_passed_on(tools: Path, tmp_path: Path) -> None:
    script(tools, "apt-get", 'echo "E: Unable to locate package some-package" >&2; exit 100')
    script(tools, "dpkg", "exit 0")
    with pytest.raises(DataError, match="Unable to locate package some-package"):
        unpack("some-package", tmp_path / "out")


def test_apt_keeps_all_state_in_a_folder_of_its_own_and_one_bad_source_does_no_harm(
    tools: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    script(
        tools,
        "apt-get",
        f'echo "$@" >> {log}\nfor last; do :; done\n'
        'case $last in update) echo "E: a source is down" >&2; exit 100;; *) echo deb > ${last}_1.2_all.deb;; esac',
    )
    script(tools, "dpkg", 'read line < "$2"; echo "$line" > "$3/unpacked"')
    assert unpack("some-package", tmp_path / "out") == "some-package_1.2_all.deb"
    assert (tmp_path / "out/unpacked").read_text() == "deb\n"
    update, download = log.read_text().splitlines()
    assert (update.split()[-1], download.split()[-2:]) == ("update", ["download", "some-package"])
    for line in (update, download):
        options = dict(option.split("=", 1) for option in line.split() if "=" in option)
        state = Path(options["Dir::State"])
        assert all(Path(options[name]).is_relative_to(state) for name in (
            "Dir::State::lists", "Dir::Cache", "Dir::Cache::archives",
        ))  # fmt: skip
        assert not state.exists()
