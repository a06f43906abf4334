"""Many requests, and no more memory for them."""

import pytest

from fixtures.faults import Load, Serve, figures, sized, usage

pytestmark = pytest.mark.slow


@pytest.mark.timeout(3600)
def test_memory_does_not_grow_with_requests(serve: Serve, predict: bytes) -> None:
    requests = sized(3000, 200_000)
    service = serve()
    held = []
    with Load(service.url, predict) as clients:
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
