"""A small review: nine pictures of three classes, its journal, and the application."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.pictures import COLOURS, coloured_picture
from lensmith.curation.reviewing import journal
from lensmith.curation.reviewing.items import ReviewSource
from lensmith.curation.reviewing.session import Session, standing
from lensmith.curation.reviewing.sources import open_source

Begin = Callable[..., Session]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes with three pictures each."""
    for label, colour in COLOURS.items():
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(3):
            coloured_picture(colour, seed=number).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """`begin(source)`: a review of it, with the journal of an earlier one."""
    with ExitStack() as stack:

        def make(source: ReviewSource | Path, closed: bool = False) -> Session:
            stack.close()  # the earlier one
            found = open_source(source) if isinstance(source, Path) else source
            opened = stack.enter_context(journal.opened(tmp_path / "reviewed.journal.jsonl", found))
            return Session(found, opened, standing(found, opened.decisions), closed)

        yield make
