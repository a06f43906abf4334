"""Helpers for tests of workflows that train."""

from collections.abc import Callable
from typing import Any

import pytest

from lensmith.training.trainer import Trainer


@pytest.fixture
def reaching_trainer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """What a call hands to the trainer: a new run's settings, or those a resumed one must have; nothing is trained."""

    class Reached(Exception):  # noqa: N818
        pass

    def call(work: Callable[[], Any]) -> Any:
        seen: list[Any] = []

        def stop(self: Trainer, *given: Any) -> None:
            seen.append(given[-1])
            raise Reached

        with monkeypatch.context() as patched:
            patched.setattr(Trainer, "start", stop)
            patched.setattr(Trainer, "resume", stop)
            with pytest.raises(Reached):
                work()
        return seen[0]

    return call
