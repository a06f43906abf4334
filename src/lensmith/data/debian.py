"""Files of a Debian package, downloaded by apt and unpacked without root and without installing it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lensmith.core.progress import track
from lensmith.errors import DataError

TIMEOUT_S = 300


def unpack(package: str, into: Path) -> str:
    """Download a package by `apt-get`, with the machine's sources, and unpack its files below `into`.

    The package lists go to a temporary folder, so this works for any user, and where the machine's own lists are empty
    (as in container images).

    Returns:
        The package's file name, which holds its version.

    Raises:
        DataError: the machine lacks apt or dpkg, or its sources lack the package or do not answer.
    """
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise _failed(package, f"there is no {tool} on this machine")
    with tempfile.TemporaryDirectory(prefix="lensmith-apt-") as state:
        apt = ["apt-get", "-q", *_apt_options(Path(state))]
        steps = ([*apt, "update"], [*apt, "download", package])
        errors = [_run(package, command, Path(state)) for command in track(steps, f"Debian package {package}")]
        archive = next(Path(state).glob("*.deb"), None)
        if archive is None:
            # A source that cannot be updated does no harm while another has the package: only the download counts.
            complaints = [line for text in errors for line in text.splitlines() if line[:2] in ("E:", "W:")]
            raise _failed(package, complaints[-1] if complaints else "apt-get downloaded no package")
        into.mkdir(parents=True, exist_ok=True)
        complaint = _run(package, ["dpkg", "-x", str(archive), str(into)], Path(state))
        if complaint:
            raise _failed(package, complaint.splitlines()[0])
        return archive.name


def _apt_options(folder: Path) -> list[str]:
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    options = {
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
        "Dir::Cache::archives": folder / "archives",
        "Acquire::Languages": "none",
        "Acquire::Retries": 1,
        "Acquire::http::Timeout": 10,
        "Acquire::https::Timeout": 10,
        # As root, apt would fetch as user _apt, who may not write here.
        "APT::Sandbox::User": "root" if hasattr(os, "geteuid") and os.geteuid() == 0 else "",
    }
    return [part for name, value in options.items() for part in ("-o", f"{name}={value}")]


def _run(package: str, command: list[str], folder: Path) -> str:
    """Run a command; returns its standard error if it failed, else an empty text."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=TIMEOUT_S, check=False, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _failed(package, f"{command[0]} took more than {TIMEOUT_S} s") from error
    return (done.stderr or f"{command[0]} failed with {done.returncode}") if done.returncode else ""


def _failed(package: str, reason: str) -> DataError:
    return DataError(
        f"The Debian package {package} was expected from this machine's package sources.",
        f"It did not come: {reason}.",
        "On a Debian or Ubuntu machine, check its sources; elsewhere, another source is needed.",
    )
