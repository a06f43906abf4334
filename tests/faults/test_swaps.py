"""Models that change while clients send."""

import json
import time
from collections.abc import Callable

import numpy as np
import psutil
import pytest

from fixtures.faults import Load, Serve, ask, figures, sized, usage
from lensmith.bundle.format import Bundle

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("guarded")]


def swap(url: str, bundle: Bundle) -> tuple[int, dict[str, str], bytes]:
    body = json.dumps({"bundle": str(bundle.path)}).encode()
    return ask(url, "/admin/model", body, "Content-Type: application/json")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("workers", [1, 2])
def test_swaps_under_load_cost_no_request_and_no_memory(
    workers: int, serve: Serve, remake: Callable[..., Bundle], predict: bytes
) -> None:
    swaps = sized(10, 100)
    versions = [remake("one", version="1"), remake("two", version="2")]
    broken = remake("broken")
    with (broken.path / "model.onnx").open("r+b") as graph:
        graph.seek(50)
        graph.write(b"\0\0\0\0")
    service = serve(workers=workers, threads=2 // workers, quota="none")
    own = psutil.Process(service.process.pid)
    processes = len(own.children())

    def memory() -> float:
        while len(own.children()) > processes:  # those that were replaced are still ending
            time.sleep(0.05)
        return float(sum(usage(each.pid).rss_mb for each in (own, *own.children())))

    with Load(service.url, predict, clients=4) as clients:
        clients.until(sized(500, 3000))
        calm = len(clients.outcome.latency_s)
        early = 0.0
        assert swap(service.url, broken)[0] == 422
        for number in range(swaps):
            bundle = versions[number % 2]
            status, _, answer = swap(service.url, bundle)
            assert (status, json.loads(answer)["version"]) == (200, bundle.manifest.version)
            if number == swaps // 10:
                early = memory()
        outcome = clients.stop()
        late = memory()
    before, during = (
        float(np.percentile(part, 99)) * 1000
        for part in (outcome.latency_s[calm // 5 : calm], outcome.latency_s[calm:])
    )
    figures(
        swaps=swaps, answered=outcome.answered, lost=outcome.lost, statuses=outcome.statuses,
        p99_calm_ms=before, p99_swapping_ms=during, ratio=during / before, rss_mb=(early, late),
    )  # fmt: skip
    assert outcome.lost == []
    assert set(outcome.statuses) == {200}
    # A model of some kilobytes; what grows with each swap is what counts.
    assert late - early < 30 * workers
    assert json.loads(ask(service.url, "/model")[2])["version"] == versions[(swaps - 1) % 2].manifest.version
