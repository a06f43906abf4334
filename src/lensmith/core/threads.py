"""Thread pools over long streams of work: results in order, with bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(
    function: Callable[[T], R], items: Iterable[T], threads: int, most_pending: int, name: str
) -> Generator[R, None, None]:
    """Apply `function` to items in a pool of threads, and yield the results in the order of the items.

    Args:
        function: work on one item; its exception is raised here, in the item's turn.
        items: an iterable of any length, read only as far as there is work to hand out.
        threads: number of threads.
        most_pending: number of items under way or finished but not yet yielded, at most.
        name: prefix of the threads' names.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= most_pending:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
