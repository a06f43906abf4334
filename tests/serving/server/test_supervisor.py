"""Several processes, as real processes."""

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.faults import ask, eventually, sample, workers_of
from fixtures.tokens import SECRET
from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.errors import ServiceError
from lensmith.serving.child_process import ServiceProcess, start_service

pytestmark = pytest.mark.slow

JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def bundle(colour_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle that is served, to be changed."""
    folder = tmp_path_factory.mktemp("bundles") / "served"
    shutil.copytree(colour_bundle.path, folder)
    return Bundle.load(folder)


@pytest.fixture(scope="module")
def service(bundle: Bundle) -> Iterator[ServiceProcess]:
    """Two processes that ask for tokens."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LENSMITH_JWT_SECRET", SECRET)
        service = start_service(bundle.path, workers=2, threads=1, quota="none", deadline_ms=20_000)
    with service:
        yield service


def change(bundle: Bundle, version: str) -> None:
    """Put another version of the bundle in its place."""
    manifest = bundle.manifest.model_copy(update={"version": version})
    (bundle.path / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")


def classify(service: ServiceProcess, image: bytes, times: int) -> set[str]:
    """Send an image on connections of their own, so that both processes get some; the versions that answered."""
    answers = [ask(service.url, "/predict", image) for _ in range(times)]
    assert {status for status, _, _ in answers} == {200}
    return {json.loads(body)["model"]["version"] for _, _, body in answers}


def counted(service: ServiceProcess) -> float:
    return sample(service.url, "lensmith_requests_total", route="/predict", status="200")


def kill_one(service: ServiceProcess) -> None:
    """Kill a process, and wait until another has taken its place."""
    restarts = sample(service.url, "lensmith_worker_restarts_total")
    dead = workers_of(service)[0]
    dead.kill()
    eventually(lambda: sample(service.url, "lensmith_worker_restarts_total") == restarts + 1)
    eventually(lambda: len(workers_of(service)) == 2 and dead not in workers_of(service))
    eventually(lambda: sample(service.url, "lensmith_threads") == 2)


def swap(service: ServiceProcess, bundle: Path | None = None) -> tuple[int, dict[str, str]]:
    body = json.dumps({"bundle": str(bundle)} if bundle else {}).encode()
    status, _, answer = ask(service.url, "/admin/model", body, JSON)
    return status, json.loads(answer)


def test_metrics_add_up_over_processes_and_survive_the_death_of_one(service: ServiceProcess, red_png: bytes) -> None:
    assert len(workers_of(service)) == 2
    before = counted(service)
    classify(service, red_png, 40)
    assert counted(service) == before + 40
    kill_one(service)
    classify(service, red_png, 10)
    assert counted(service) == before + 50
    assert sample(service.url, "lensmith_memory_bytes") > 5e7


def test_a_swap_is_taken_by_every_process_and_by_those_that_come_later_and_counts_go_on(
    service: ServiceProcess, bundle: Bundle, red_png: bytes, tmp_path: Path
) -> None:
    before = counted(service)
    classify(service, red_png, 10)
    status, problem = swap(service, tmp_path / "nothing")
    assert (status, problem["type"]) == (422, "urn:lensmith:problem:unusable-bundle")
    eventually(lambda: len(workers_of(service)) == 2)
    change(bundle, "2")
    status, model = swap(service)  # a bundle that could not be served leaves the way free
    assert (status, model["version"]) == (200, "2")
    eventually(lambda: len(workers_of(service)) == 2)
    assert counted(service) == before + 10
    kill_one(service)
    assert classify(service, red_png, 30) == {"2"}
    (folder,) = {each.environ()["PROMETHEUS_MULTIPROC_DIR"] for each in workers_of(service)}
    counters = list(Path(folder).glob("counter*"))
    assert len(counters) <= 4  # two processes, the supervisor, the dead


def test_a_hangup_reads_the_bundle_again(service: ServiceProcess, bundle: Bundle, red_png: bytes) -> None:
    change(bundle, "9")
    service.process.send_signal(signal.SIGHUP)
    eventually(lambda: classify(service, red_png, 10) == {"9"})


def test_a_damaged_bundle_stops_the_start_with_the_reason(remake: Callable[..., Bundle]) -> None:
    broken = remake("broken").path
    with (broken / "model.onnx").open("ab") as graph:
        graph.write(b"x")
    with pytest.raises(ServiceError, match=r"exit code 2.*model\.onnx has changed"):
        start_service(broken, workers=2)


def test_where_the_supervisor_learns_later_of_a_stop_the_processes_accept_until_it_does(
    bundle: Bundle, red_png: bytes
) -> None:
    with start_service(bundle.path, workers=2, threads=1, quota="none") as service:
        workers = workers_of(service)
        service.process.send_signal(signal.SIGSTOP)  # as if other programs had all the processor time
        for each in workers:
            each.terminate()
        stopped = time.monotonic()
        while time.monotonic() < stopped + 1:
            classify(service, red_png, 5)
        service.process.send_signal(signal.SIGTERM)
        service.process.send_signal(signal.SIGCONT)
        assert service.process.wait(30) == 0
        assert not any(each.is_running() for each in workers)
