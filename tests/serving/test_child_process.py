"""The service as a real process over real HTTP: how it starts and stops."""

import http.client
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lensmith.bundle.format import Bundle
from lensmith.errors import ServiceError
from lensmith.serving.child_process import start_service


def connect(url: str) -> http.client.HTTPConnection:
    address = urlsplit(url)
    return http.client.HTTPConnection(address.hostname, address.port, timeout=20)


def test_a_corrupt_bundle_is_not_served_and_the_caller_reads_why(colour_bundle: Bundle, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(colour_bundle.path, broken)
    with (broken / "model.onnx").open("ab") as graph:
        graph.write(b"x")
    with pytest.raises(ServiceError, match=r"exit code 2.*model\.onnx has changed") as caught:
        start_service(broken)
    assert "Traceback" not in str(caught.value)


def test_sigterm_when_idle_ends_at_once_with_exit_code_0(colour_bundle: Bundle) -> None:
    service = start_service(colour_bundle.path)
    kept = connect(service.url)  # an idle kept connection does not hold it up
    kept.request("GET", "/readyz")
    assert kept.getresponse().read() == b'{"status":"ready"}'
    started = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - started < 5
    with pytest.raises(ConnectionRefusedError):
        connect(service.url).connect()


def begin_upload(url: str) -> http.client.HTTPConnection:
    """Send the beginning of an image and no more, and give the service time to read it."""
    slow = connect(url)
    slow.putrequest("POST", "/predict")
    slow.putheader("content-length", "1000")
    slow.endheaders(b"\xff\xd8\xff")
    time.sleep(0.3)
    return slow


@pytest.mark.slow
def test_an_upload_that_has_not_arrived_when_the_grace_is_over_gets_a_problem_and_exit_code_is_0(
    colour_bundle: Bundle,
) -> None:
    service = start_service(colour_bundle.path, grace_s=1)
    slow = begin_upload(service.url)
    started = time.monotonic()
    service.process.terminate()
    response = slow.getresponse()
    assert response.status == 503
    assert b"urn:lensmith:problem:draining" in response.read()
    assert service.process.wait(10) == 0
    assert 0.9 < time.monotonic() - started < 6
    service.stop()


@pytest.mark.slow
def test_a_second_signal_does_not_wait_for_the_grace(colour_bundle: Bundle) -> None:
    service = start_service(colour_bundle.path, grace_s=30)
    slow = begin_upload(service.url)
    started = time.monotonic()
    service.process.terminate()
    time.sleep(0.5)
    service.process.terminate()
    service.process.wait(10)
    assert time.monotonic() - started < 5
    slow.close()
    service.stop()
