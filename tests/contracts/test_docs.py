"""The documentation cannot drift from the code."""

import re
import runpy
from pathlib import Path

import pytest

from lensmith.cli import VERBS

ROOT = Path(__file__).parents[2]


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


def test_links_between_documents_lead_somewhere() -> None:
    for file in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", file.read_text()):
            if "://" not in target:
                assert (file.parent / target).exists(), (file.name, target)


def test_every_page_is_linked_from_another() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    linked = {
        (page.parent / link).resolve() for page in pages for link in re.findall(r"\]\(([^)#]+)", page.read_text())
    }
    roots = {ROOT / "README.md", ROOT / "CHANGELOG.md"}
    assert [page.name for page in pages if page not in linked | roots] == []
