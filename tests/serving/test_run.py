"""Starts that are refused, before a bundle is loaded."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lensmith import api
from lensmith.bundle.format import Bundle
from lensmith.config import ServeSettings
from lensmith.errors import LensmithError, ServiceError, SettingsError
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.server.server import Server


@pytest.fixture
def refused(colour_bundle: Bundle) -> Callable[..., LensmithError]:
    """`refused(**settings)`: the error with which `serve` ends."""

    def serve(**settings: Any) -> LensmithError:
        with ThreadPoolExecutor(1) as other, pytest.raises(LensmithError) as caught:  # this thread's signals stay
            other.submit(api.serve, colour_bundle.path, **settings).result()
        return caught.value

    return serve


@pytest.mark.parametrize("held", ["listening", "only bound"])
def test_a_taken_port_is_told_with_the_remedy(held: str, refused: Callable[..., LensmithError]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if held == "listening":
            other.listen()
        port = other.getsockname()[1]
        error = refused(port=port)
    assert isinstance(error, ServiceError)
    assert f"127.0.0.1, port {port}" in str(error)
    assert "--port" in str(error)


def test_an_address_of_another_machine_is_refused(refused: Callable[..., LensmithError]) -> None:
    error = refused(host="192.0.2.1", port=0)
    assert isinstance(error, ServiceError)
    assert "192.0.2.1" in str(error)


def test_a_platform_opens_no_address_to_everybody(
    refused: Callable[..., LensmithError], free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIP_HTTP_PORT", str(free_port()))
    error = refused(host="0.0.0.0")
    assert isinstance(error, ServiceError)
    assert "--insecure" in str(error)


def test_a_platforms_port_that_is_none_is_a_setting_that_cannot_be_used(
    refused: Callable[..., LensmithError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIP_HTTP_PORT", "http")
    error = refused()
    assert isinstance(error, SettingsError)
    assert "port = 'http'" in str(error)


@pytest.mark.parametrize("value", ["", "auto", "4"])
def test_a_variable_of_other_web_servers_changes_nothing(
    value: str, colour_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", value)
    settings = ServeSettings(bundle=colour_bundle.path, batching="off", threads=1)
    assert Server(ModelManager.load(settings), settings, [], lambda _: None).config.workers == 1
