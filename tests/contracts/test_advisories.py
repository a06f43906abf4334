"""Known advisories: pyproject.toml admits, and constraints.txt pins, no release of a dependency that has one."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]

FIRST_FIXED = {
    "cryptography": "46.0.5",  # public keys outside the prime-order subgroup
    "filelock": "3.20.3",  # symbolic links raced for in a lock's folder
    "jinja2": "3.1.6",  # escape from the sandbox by |attr
    "mlflow": "3.11",
    "mlflow-skinny": "3.11",
    "onnx": "1.21",  # external data outside the model's folder
    "pillow": "12.2",  # PostScript's and other decoders
    "pyjwt": "2.12",  # the `crit` header was not checked
    "python-multipart": "0.0.27",
    "ray": "2.60",
    "starlette": "1.3",
    "urllib3": "2.7",
}
"""Package → the first release without a known advisory of consequence to lensmith, as of 2026-11-29."""

EXCLUDED = {"lightning": ("2.6.2", "2.6.3")}
"""Package → releases in between that were not the maintainers' own."""


_FLOOR = re.compile(r"(?<![\w.-])([A-Za-z][\w-]*)(?:\[[\w,-]+\])? ?(==|>=|~=|<=|<) ?(\d+(?:\.\d+)*)")
_PEERS = {"requirements-mlserver.txt": {"starlette"}}
"""File of a benchmark's peer → what that peer itself holds back; it runs in an environment of its own."""


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    listed = [project["project"]["dependencies"], *extras, *project["dependency-groups"].values()]
    return [Requirement(text) for each in listed for text in each]


@pytest.mark.parametrize("name", FIRST_FIXED)
def test_floors_are_at_or_above_the_first_release_without_the_advisory(name: str) -> None:
    wanted = Version(FIRST_FIXED[name])
    found = [each for each in requirements() if canonicalize_name(each.name) == name]
    assert found, f"pyproject.toml names no {name}"
    for requirement in found:
        floors = [Version(each.version) for each in requirement.specifier if each.operator in (">=", "==", "~=")]
        assert max(floors, default=Version("0")) >= wanted, str(requirement)


@pytest.mark.parametrize("name", EXCLUDED)
def test_releases_that_were_not_the_maintainers_own_are_excluded(name: str) -> None:
    found = [each for each in requirements() if each.name == name]
    assert found
    assert not [str(each) for each in found for release in EXCLUDED[name] if each.specifier.contains(release)]


def test_pins_are_at_or_above_the_floors() -> None:
    pins = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8")))
    pinned = {canonicalize_name(name): Version(version) for name, version in pins.items()}
    missing = {name for name in FIRST_FIXED if name not in pinned}
    assert not missing
    assert not {name for name, fixed in FIRST_FIXED.items() if pinned[name] < Version(fixed)}
    assert not {name for name, releases in EXCLUDED.items() if str(pinned[name]) in releases}
    outside = {str(each) for each in requirements() if (name := canonicalize_name(each.name)) in pinned
               and not each.specifier.contains(pinned[name], prereleases=True)}  # fmt: skip
    assert not outside


def test_no_other_file_names_an_older_release() -> None:
    """Not what `export` and `deploy` write, the documentation, examples, benchmarks or CI."""
    folders = ("src", "docs", "examples", "bench", "tools", ".ci", ".github")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file()]
    files += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile") if (ROOT / name).exists()]
    found, older = 0, []
    for file in files:
        if file.suffix in (".pyc", ".gz", ".png", ".json") or file.name == "log.md":
            continue
        for name, sign, version in _FLOOR.findall(file.read_text(encoding="utf-8", errors="replace")):
            fixed = FIRST_FIXED.get(canonicalize_name(name))
            if fixed is None or canonicalize_name(name) in _PEERS.get(file.name, ()):
                continue
            found += 1
            if Version(version) < Version(fixed) or (sign == "<" and Version(version) == Version(fixed)):
                older.append(f"{file.relative_to(ROOT)}: {name}{sign}{version}")
    assert found
    assert not older
