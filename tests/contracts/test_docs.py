"""The documentation cannot drift from the code."""

import re
import runpy
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from typer.core import TyperGroup

from lensmith.cli import VERBS

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("name", ["settings", "architecture"])
def test_a_generated_page_is_the_one_that_the_code_makes(name: str) -> None:
    tool = runpy.run_path(str(ROOT / f"tools/generate_{name}.py"))
    assert tool["FILE"].read_text() == tool["page"](), f"run: python tools/generate_{name}.py"


def test_the_keywords_of_the_api_are_the_settings() -> None:
    generated = runpy.run_path(str(ROOT / "tools/generate_api.py"))["generated"]
    for file in (ROOT / "src/lensmith/api").glob("*.py"):
        assert file.read_text() == generated(file.read_text()), "run: python tools/generate_api.py"


def test_the_architecture_names_what_exists() -> None:
    named = set(re.findall(r"`([\w./]+(?:\.py|\.yml|/))`", (ROOT / "ARCHITECTURE.md").read_text()))
    paths = [f"/{path.relative_to(ROOT)}" for path in (*ROOT.glob("*/"), *ROOT.glob("tests/*/"))]
    paths += [f"/{path.relative_to(ROOT)}" for folder in ("src", "bench") for path in (ROOT / folder).rglob("*")]
    missing = [name for name in named if not any(path.endswith(f"/{name.rstrip('/')}") for path in paths)]
    assert [name for name in missing if name != "cli/VERB.py"] == []
    rooms = {f"{folder.parent.name}/" for folder in (ROOT / "src/lensmith").glob("*/__init__.py")}
    assert rooms <= named


def test_every_verb_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert [verb for verb in VERBS if f"lensmith {verb}" not in text] == []


def commands(page: str) -> Iterator[list[str]]:
    """Words of each command that a page shows in a block, or names between backquotes."""
    lines = re.findall(r"^(?:    |\$ |    \$ )lensmith (?!serving )(.*(?:\\\n.*)*)$", page, re.MULTILINE)
    for text in [*lines, *re.findall(r"`lensmith ([^`]+)`", page)]:
        words = re.split(r"[|;&>#]|  |\)|→", text.replace("\\\n", " "))[0].split()
        yield [word.strip("[]…,") for word in words]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "log.md"], ids=lambda page: page.name)
def test_commands_in_documents_have_verbs_and_options_that_exist(page: Path) -> None:
    for words in commands(page.read_text()):
        for verb in words[0].split("|") if words and words[0][0].islower() else ():
            assert verb in VERBS, words
            command, rest = import_module(f"lensmith.cli.{verb}").command, words[1:]
            while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
                name, *rest = rest
                command = command.commands[name.partition("|")[0]]
            known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
            given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
            assert given <= known | {"--json", "--help", "--debug", "-h"}, words


def test_links_between_documents_lead_somewhere() -> None:
    for file in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", file.read_text()):
            if "://" not in target:
                assert (file.parent / target).exists(), (file.name, target)


def test_every_page_is_linked_from_another() -> None:
    linked = {
        (page.parent / link).resolve() for page in PAGES for link in re.findall(r"\]\(([^)#]+)", page.read_text())
    }
    roots = {ROOT / "README.md", ROOT / "CHANGELOG.md"}
    assert [page.name for page in PAGES if page not in linked | roots] == []
