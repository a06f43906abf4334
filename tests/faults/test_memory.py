"""Many requests, and no more memory for them."""

from collections.abc import Callable
from typing import Any

import pytest

from lensmith.serving.child_process import ServiceProcess

pytestmark = pytest.mark.slow


@pytest.mark.timeout(3600)
def test_memory_does_not_grow_with_requests(
    serve: Callable[..., ServiceProcess],
    load: Any,
    predict: bytes,
    usage: Callable[[int], Any],
    sized: Callable[[int, int], int],
    figures: Callable[..., None],
) -> None:
    requests = sized(5000, 200_000)
    service = serve()
    held = []
    with load(service.url, predict) as clients:
        for tenth in range(1, 11):
            clients.until(requests * tenth // 10, timeout_s=1800)
            held.append(usage(service.process.pid))
        outcome = clients.stop()
    figures(answered=outcome.answered, rss_mb=[each.rss_mb for each in held], p99_ms=outcome.p99_ms())
    assert outcome.lost == []
    assert set(outcome.statuses) == {200}
    warm = held[1]
    assert held[-1].rss_mb < warm.rss_mb * 1.05
    assert held[-1].files <= warm.files + 1
    assert held[-1].threads == warm.threads
