"""The documentation cannot drift from the code."""

import re
import runpy
from pathlib import Path

from lensmith.cli import VERBS

ROOT = Path(__file__).parents[2]


def test_the_page_of_settings_is_the_one_that_the_code_makes() -> None:
    page = runpy.run_path(str(ROOT / "tools/generate_settings.py"))["page"]()
    assert (ROOT / "docs/settings.md").read_text() == page, "run: python tools/generate_settings.py"


def test_every_room_has_its_line_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    source = ROOT / "src/lensmith"
    files = [
        file.relative_to(source) for file in source.rglob("*.py") if file.name not in {"__init__.py", "__main__.py"}
    ]
    missing = [str(file) for file in files if not re.search(rf"\b{re.escape(file.name)}\b", text)]
    assert not missing


def test_every_verb_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert [verb for verb in VERBS if f"lensmith {verb}" not in text] == []


def test_links_between_documents_lead_somewhere() -> None:
    for file in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", file.read_text()):
            if "://" not in target:
                assert (file.parent / target).exists(), (file.name, target)
