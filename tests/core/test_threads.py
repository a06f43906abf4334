"""Work in threads comes back in order, never too much of it at a time, and stops with whoever wants it."""

import threading
from collections.abc import Iterator

import pytest

from lensmith.core.threads import map_in_order


def test_results_come_in_order_with_bounded_work_ahead() -> None:
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        for number in range(100):
            read += 1
            yield number

    for place, result in enumerate(map_in_order(lambda number: 2 * number, items(), 3, 8, "test")):
        assert result == 2 * place
        assert read <= place + 8


def test_an_error_comes_in_its_turn_and_cancels_the_rest() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    results = map_in_order(work, range(1000), 1, 500, "test")
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(begun) < 1000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test_")]
