"""Sockets of the service: bound to every address that a host name means, and listening once the service is ready."""

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from lensmith.errors import ServiceError

BACKLOG = 2048
PORT_ATTEMPTS = 20
"""Free ports that are tried, where one is wanted that is free at several addresses."""
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of `host` at one port, an IPv4 address first.

    Args:
        host: address or name; `localhost` may mean 127.0.0.1 and ::1, on machines that have both.
        port: port; 0 picks one that is free at all addresses.

    Raises:
        ServiceError: an address is taken or not of this machine.
    """
    attempts = PORT_ATTEMPTS if port == 0 else 1
    try:
        while True:
            attempts -= 1
            try:
                return _bind_all(host, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not attempts:
                    raise
    except OSError as error:
        raise _unusable(f"{host or 'every address'}, port {port}", error) from error


def _bind_all(host: str, port: int) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except ValueError as error:  # no host name at all, as a..b
        raise OSError(errno.EINVAL, "It is no name of a machine") from error
    addresses = sorted({(family, address) for family, *_, address in found}, key=lambda each: each[0])
    refused: OSError | None = None
    with ExitStack() as on_error:
        bound: list[socket.socket] = []
        for family, address in addresses:
            try:
                each = on_error.enter_context(socket.socket(family, socket.SOCK_STREAM))
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6 and len(addresses) > 1:
                    each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
                number = port or (bound[0].getsockname()[1] if bound else 0)
                each.bind((address[0], number, *address[2:]))
            except OSError as error:
                if error.errno not in _NO_SUCH_ADDRESS:
                    raise
                refused = error  # a name may stand for an address that this machine has not, such as ::1
            else:
                bound.append(each)
        if not bound:
            raise refused or OSError(errno.EADDRNOTAVAIL, "The name has no address")
        on_error.pop_all()
    return bound


def listen(listeners: Sequence[socket.socket]) -> None:
    """Let bound sockets take connections.

    Not left to the event loop: uvloop ignores that another program, which was started at the same time and bound the
    same address, listens already.

    Raises:
        ServiceError: another program listens there.
    """
    for each in listeners:
        try:
            each.listen(BACKLOG)
        except OSError as error:
            host, port = each.getsockname()[:2]
            raise _unusable(f"{host}, port {port}", error) from error


def _unusable(address: str, error: OSError) -> ServiceError:
    return ServiceError(
        f"An address that can be listened on was expected: {address}.",
        f"The system reported: {error.strerror}.",
        "Name another with --port or --health-port (0 takes any free one) or --host, or stop what listens there.",
    )
