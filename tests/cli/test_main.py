"""The command line's frame: help, errors in plain words, exit codes."""

import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.command_line import Run
from lensmith import api
from lensmith.cli import VERBS, main
from lensmith.errors import DataError


def test_help_names_every_verb(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(run: Run, verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0
    groups = {"bundle", "cache", "data", "feedback", "pipeline", "recipe", "registry", "rollout", "track"}
    assert "--json" in out or verb in {*groups, "serve"}


def test_for_a_mistyped_verb_the_nearest_is_offered(run: Run) -> None:
    code, _, err = run("tran")
    assert code == 2
    assert "'train'" in err


@pytest.mark.parametrize(
    "args",
    [
        ("tran", "--json"),
        ("data", "fetsh", "--json"),
        ("train", "x", "--epochs", "many", "--json"),
    ],
)
def test_with_json_a_usage_error_is_an_object_too(run: Run, args: tuple[str, ...]) -> None:
    code, out, err = run(*args)
    assert code == 2
    assert json.loads(out)["error"] == "UsageError"
    assert "Usage: lensmith" in err


def test_a_shell_completes_verbs_and_flags() -> None:
    for line, completed in (("lensmith tr", "train"), ("lensmith train --bat", "--batch-size")):
        words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_LENSMITH_COMPLETE": "complete_bash"}
        ran = subprocess.run(
            [sys.executable, "-m", "lensmith"], env={**os.environ, **words}, capture_output=True, text=True, check=False
        )
        assert completed in ran.stdout.split()


def test_an_error_is_one_paragraph_and_exit_code_2(run: Run, tmp_path: Path) -> None:
    code, out, err = run("data", "check", str(tmp_path / "nowhere"))
    assert (code, out) == (2, "")
    assert err.startswith("lensmith: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    for args in (["--debug", "data", "check"], ["data", "check", "--debug"]):
        with pytest.raises(DataError):
            main([*args, str(tmp_path / "nowhere")])


def test_with_json_the_error_is_an_object_too(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("data", "check", str(tmp_path / "nowhere"), "--json")
    assert code == 2
    assert json.loads(out)["error"] == "DataError"


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data"), "Free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/root"), "rights"),
        (ModuleNotFoundError("no", name="torch"), "pip install 'lensmith[train]'"),
    ],
)
def test_the_system_s_errors_come_with_a_remedy(
    run: Run, monkeypatch: pytest.MonkeyPatch, raised: Exception, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(api, "check", fail)
    code, _, err = run("data", "check", "x")
    assert code == 2
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["x" * 300, "file/x", "loop/x"])
def test_a_path_that_cannot_be_written_to_is_bad_input(run: Run, colours: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "file").write_bytes(b"")
    (folder / "loop").symlink_to("loop")
    for arguments in (
        ("data", "split", colours, "--out", folder / f"{name}.csv"),
        ("deploy", "nginx", "--out", folder / name),
    ):
        code, _, err = run(*arguments)
        assert (code, "name another path" in err) == (2, True), (arguments, err)
    assert {each.name for each in folder.iterdir()} == {"file", "loop"}


def test_a_fault_of_lensmith_exits_with_1_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "check", lambda **given: 1 / 0)
    code, _, err = run("data", "check", "x")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "--debug" in err


def test_brackets_in_names_are_printed_as_they_are(run: Run, tmp_path: Path, colours: Path) -> None:
    (colours / "red").rename(colours / "red [bold]")
    _, out, _ = run("data", "check", str(colours))
    assert "red [bold]" in out


CHECK, PREDICT = ["data", "check", "colours"], ["predict", "nø-where", "x.jpg"]


@pytest.mark.parametrize(
    ("locale", "arguments"),
    [
        ("PYTHONIOENCODING=ascii", [*CHECK, "--json"]),
        ("PYTHONIOENCODING=cp1252", CHECK),
        ("PYTHONIOENCODING=cp1252", PREDICT),
        ("LC_ALL=C", CHECK),
        ("LC_ALL=C", PREDICT),
    ],
)
def test_output_fits_any_locale(locale: str, arguments: list[str], colours: Path) -> None:
    (colours / "red").rename(colours / "rød 红 🟥")
    (colours / "blue" / "000.png").rename(colours / "blue" / os.fsdecode(b"\xff.png"))
    foreign = ("LC_", "LANG", "PYTHONIO")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    done = subprocess.run(
        [sys.executable, "-m", "lensmith", *arguments],
        env={**environment, **dict([locale.split("=")])},
        cwd=colours.parent,
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 2), done.stderr.decode(errors="replace")
    for words in (b"Traceback", b"UnicodeEncodeError", b"fault of lensmith"):
        assert words not in done.stderr
    if "--json" in arguments:
        assert "rød 红 🟥" in json.dumps(json.loads(done.stdout), ensure_ascii=False)


def test_names_are_read_as_utf8_in_every_locale(colours: Path) -> None:
    """Where Python reads them in the locale's encoding, a class would be another one or none."""
    (colours / "red").rename(colours / "rød 红")
    command = [sys.executable, "-X", "faulthandler", "-m", "lensmith", "data", "check", "colours", "--json"]
    other = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    reads = "import sys; print(sys.getfilesystemencoding())"
    assert subprocess.check_output([sys.executable, "-c", reads], env={**os.environ, **other}, text=True) == "ascii\n"
    done = subprocess.run(command, env={**os.environ, **other}, cwd=colours.parent, capture_output=True, check=True)
    assert "rød 红" in json.loads(done.stdout)["counts"]


def test_a_rank_that_a_scheduler_has_set_silences_no_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    code, _, error = run("predict", "nowhere", "x.jpg")
    assert code == 2
    assert "nowhere" in error


def test_a_usage_error_of_the_service_has_its_exit_code_with_a_full_standard_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115 - closing it fails, as it is full
    monkeypatch.setattr(sys, "stderr", full)
    with pytest.raises(SystemExit) as ended:
        main(["serve", "bundle", "--no-such-flag"])
    assert ended.value.code == 2
    with contextlib.suppress(OSError):
        full.close()
