"""A real nginx, from the files that are written for it, in front of real replicas."""

import http.client
import itertools
import json
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lensmith import api
from lensmith.bundle.format import Bundle
from lensmith.serving.child_process import ServiceProcess, start_service


@pytest.fixture(scope="module", autouse=True)
def _patient() -> Iterator[None]:
    """Replicas and proxy wait longer than usual: this machine may be busy with other tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LENSMITH_SERVE_DEADLINE_MS", "20000")
        yield


@pytest.fixture(scope="module")
def replicas(_patient: None, colour_bundle: Bundle) -> Iterator[list[ServiceProcess]]:
    with start_service(colour_bundle.path, threads=1) as one, start_service(colour_bundle.path, threads=1) as two:
        yield [one, two]


@pytest.fixture(scope="module")
def picture(shared_colours: Path) -> bytes:
    return (shared_colours / "red" / "001.jpg").read_bytes()


def ask(
    url: str,
    method: str = "GET",
    path: str = "/",
    body: Any = None,
    headers: dict[str, str] | None = None,
    source: str = "127.0.0.1",
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case and body of one request over a connection of its own."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60, source_address=(source, 0))
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def problem(answer: tuple[int, dict[str, str], bytes]) -> dict[str, Any]:
    """The envelope, after a look at what all of them have in common."""
    status, headers, body = answer
    assert headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = json.loads(body)
    assert set(found) == {"type", "title", "status", "detail", "request_id"}
    assert (found["status"], found["request_id"]) == (status, headers["x-request-id"])
    return found


def test_requests_reach_both_replicas_and_their_identifier_goes_through(
    proxy: Callable[..., Any], replicas: list[ServiceProcess], picture: bytes
) -> None:
    front = proxy(*(replica.url for replica in replicas))
    for number in range(4):
        status, headers, body = ask(front.url, "POST", "/predict", picture, {"X-Request-ID": f"mine-{number}"})
        assert (status, json.loads(body)["label"]) == (200, "red")
        assert headers["x-request-id"] == json.loads(body)["request_id"] == f"mine-{number}"
    _, headers, _ = ask(front.url, "POST", "/predict", picture, {"X-Request-ID": 'odd "one"'})
    assert len(headers["x-request-id"]) == 32
    lines = [json.loads(line) for line in front.log().splitlines() if "/predict" in line]
    assert {line["replica"] for line in lines} == {replica.url.removeprefix("http://") for replica in replicas}
    assert [line["request_id"] for line in lines[:4]] == [f"mine-{number}" for number in range(4)]


def test_what_is_not_for_the_world_is_not_there(proxy: Callable[..., Any], replicas: list[ServiceProcess]) -> None:
    front = proxy(*(replica.url for replica in replicas))
    for path in ("/metrics", "/admin/model"):
        assert problem(ask(front.url, path=path))["type"].endswith(":not-found")
    assert ask(front.url, path="/readyz")[0] == 200
    assert problem(ask(front.url, path="/readyz", source="127.0.0.2"))["type"].endswith(":not-found")
    assert ask(front.url, path="/livez", source="127.0.0.2")[0] == 200


def test_too_large_a_body_is_refused_as_the_service_would(
    proxy: Callable[..., Any], replicas: list[ServiceProcess]
) -> None:
    front = proxy(*(replica.url for replica in replicas))
    announced = ask(front.url, "POST", "/predict", b"x" * 6_000_000)
    pieces = itertools.repeat(b"x" * 60_000, 100)
    streamed = ask(front.url, "POST", "/predict", pieces, {"X-Request-ID": "streamed"})
    for answer in (announced, streamed):
        assert problem(answer)["type"] == "urn:lensmith:problem:too-large"
        assert answer[0] == 413
    assert streamed[1]["x-request-id"] == "streamed"
    # A little too large is for the service to say, which knows the limit to the byte.
    closer = ask(front.url, "POST", "/predict", b"x" * 5_000_001)
    assert problem(closer)["status"] == 413


def test_a_replica_never_gets_an_incomplete_request(
    proxy: Callable[..., Any], replicas: list[ServiceProcess], picture: bytes
) -> None:
    front = proxy(replicas[0].url)
    slow = http.client.HTTPConnection(front.url.removeprefix("http://"), timeout=60)
    slow.putrequest("POST", "/predict")
    slow.putheader("Content-Length", str(len(picture)))
    slow.endheaders(picture[:100])
    assert ask(front.url, "POST", "/predict", picture)[0] == 200  # the first is with nginx by now
    page = ask(replicas[0].url, path="/metrics")[2].decode()
    assert "lensmith_requests_in_flight 1.0" in page  # this scrape, and nothing else
    slow.send(picture[100:])
    assert slow.getresponse().status == 200
    slow.close()


def test_with_no_replica_left_the_answer_has_retry_after(
    proxy: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    front = proxy(f"http://127.0.0.1:{free_port()}")
    answer = ask(front.url, "POST", "/predict", b"x")
    assert problem(answer)["type"] == "urn:lensmith:problem:not-ready"
    assert (answer[0], answer[1]["retry-after"]) == (503, "1")


def test_a_replica_killed_under_load_costs_no_request(
    proxy: Callable[..., Any], replicas: list[ServiceProcess], colour_bundle: Bundle, picture: bytes
) -> None:
    doomed = start_service(colour_bundle.path, threads=1)
    front = proxy(doomed.url, replicas[1].url)
    requests, clients, killed_after = 300, 8, 60
    numbers = itertools.count(1)
    answered: Counter[int] = Counter()
    lock = threading.Lock()

    def client(_: int) -> None:
        connection = http.client.HTTPConnection(front.url.removeprefix("http://"), timeout=60)
        while (number := next(numbers)) <= requests:
            if number == killed_after:
                doomed.process.kill()
            connection.request("POST", "/predict", picture)
            answer = connection.getresponse()
            answer.read()
            with lock:
                answered[answer.status] += 1
        connection.close()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))

    doomed.process.wait()
    assert answered == {200: requests}
    assert '"replica_status":"502, 200"' in front.log()  # it was asked again, not lucky


def test_feedback_finds_the_replica_that_gave_the_answer(
    proxy: Callable[..., Any], replicas: list[ServiceProcess], picture: bytes
) -> None:
    front = proxy(*(replica.url for replica in replicas))
    for number in range(8):
        request_id = json.loads(ask(front.url, "POST", "/predict", picture)[2])["request_id"]
        said = json.dumps({"request_id": request_id, "label": "red" if number % 2 else "blue"})
        status, _, body = ask(front.url, "POST", "/feedback", said)
        assert (status, json.loads(body)["right"]) == (200, bool(number % 2))
    unknown = problem(ask(front.url, "POST", "/feedback", json.dumps({"request_id": "nobody", "label": "red"})))
    assert unknown["type"].endswith(":no-such-answer")  # as the service says it, once all were asked
    heard = [each for one in replicas for each in json.loads(ask(one.url, path="/feedback")[2])["versions"]]
    assert (sum(each["labels"] for each in heard), sum(each["right"] for each in heard)) == (8, 4)
    lines = [json.loads(line) for line in front.log().splitlines() if '"POST","path":"/feedback"' in line]
    assert {line["replica_status"] for line in lines} >= {"404, 200"}


def test_tls_is_written_where_certificate_and_key_are_named(
    program: Callable[..., str], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    nginx, openssl = program("nginx", "nginx-light"), program("openssl", "openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    folder = tmp_path / "nginx"
    api.deploy(
        "nginx",
        out=folder,
        listen=f"127.0.0.1:{free_port()}",
        tls_certificate=certificate,
        tls_key=key,
        logs=tmp_path,
    )
    command = [nginx, "-t", "-e", "stderr", "-p", str(folder), "-c", "nginx.conf"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    text = (folder / "lensmith.conf").read_text()
    assert " ssl;" in text
    assert "Without TLS" not in text
