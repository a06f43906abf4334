"""Sockets at every address of a name, and programs that were faster."""

import errno
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from lensmith.errors import ServiceError
from lensmith.serving.server import listeners
from lensmith.serving.server.listeners import bind, listen


@pytest.fixture
def name_means(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`name_means("::1", "127.0.0.1")`: what every name stands for in this test."""
    honest = socket.getaddrinfo

    def change(*addresses: str) -> None:
        def found(_host: Any, *rest: Any, **more: Any) -> list[Any]:
            return [each for address in addresses for each in honest(address, *rest, **more)]

        monkeypatch.setattr(listeners.socket, "getaddrinfo", found)

    return change


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
@pytest.mark.parametrize("port", [0, None], ids=["any port", "a port"])
def test_a_name_is_listened_at_by_all_its_addresses_at_one_port(
    name_means: Callable[..., None], free_port: Callable[[], int], port: int | None
) -> None:
    name_means("::1", "127.0.0.1", "::1")
    bound = bind("localhost", free_port() if port is None else port)
    try:
        assert [each.getsockname()[0] for each in bound] == ["127.0.0.1", "::1"]
        number = bound[0].getsockname()[1]
        listen(bound)
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, number), 5).close()
    finally:
        for each in bound:
            each.close()


def test_an_address_of_a_name_that_this_machine_has_not_is_left_out(name_means: Callable[..., None]) -> None:
    name_means("127.0.0.1", "2001:db8::1")
    [bound] = bind("localhost", 0)
    bound.close()


def test_no_address_of_this_machine_is_an_error(name_means: Callable[..., None]) -> None:
    name_means("2001:db8::1", "192.0.2.1")
    with pytest.raises(ServiceError, match="elsewhere, port 80"):
        bind("elsewhere", 80)


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "a b"])
def test_a_host_that_is_no_name_is_named(host: str) -> None:
    with pytest.raises(ServiceError, match=re.escape(host)):
        bind(host, 0)


def test_a_taken_address_of_a_name_is_an_error_though_others_are_free(
    name_means: Callable[..., None], free_port: Callable[[], int]
) -> None:
    name_means("127.0.0.2", "127.0.0.3")
    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.3", port))
        other.listen()
        with pytest.raises(ServiceError) as caught:
            bind("localhost", port)
    assert str(port) in str(caught.value)
    with socket.socket() as again:  # nothing is left bound
        again.bind(("127.0.0.2", port))


def test_a_program_that_listens_first_is_named() -> None:
    first, second = bind("127.0.0.1", 0), None
    try:
        second = bind("127.0.0.1", first[0].getsockname()[1])
        listen(first)
        with pytest.raises(ServiceError) as caught:
            listen(second)
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.EADDRINUSE
    finally:
        for each in (*first, *(second or ())):
            each.close()
