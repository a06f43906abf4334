"""What a client may send before it is understood, on real connections."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from lensmith.serving.server import protocol as connection
from lensmith.serving.server.protocol import MAX_BUFFERED_BYTES, MAX_HEAD_BYTES, BoundedProtocol, BufferedTransport


async def echo_lengths(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the bytes of the headers' values and of the body."""
    body, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += len(message["body"])
        more = message["more_body"]
    text = f"{sum(len(value) for _, value in scope['headers'])} {body}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


@pytest.fixture
def server() -> uvicorn.Server:
    config = uvicorn.Config(echo_lengths, http=BoundedProtocol, lifespan="off", log_config=None, access_log=False)
    return uvicorn.Server(config)


@pytest.fixture
def address(server: uvicorn.Server) -> Iterator[tuple[str, int]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=lambda: server.run([listener]), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()
        server.should_exit = True
        thread.join()


def send(address: tuple[str, int], *parts: bytes) -> bytes:
    """What is answered until the connection closes; what can no longer be sent is left."""
    answer = b""
    with socket.create_connection(address, timeout=60) as client:
        try:
            for part in parts:
                client.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            while chunk := client.recv(65_536):
                answer += chunk
        except ConnectionResetError:
            pass
    return answer


GET = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nauthorization: Bearer %s" % (b"a" * 5_000_000),
        b"GET / HTTP/1.1\r\n%s: b" % (b"a" * 5_000_000),
        b"GET /%s HTTP/1.1\r\n" % (b"a" * 5_000_000),
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1_000_000,
    ],
    ids=["value", "name", "address", "many"],
)
def test_a_head_without_end_is_cut(address: tuple[str, int], head: bytes) -> None:
    answer = send(address, head)
    assert answer in (b"", connection._TOO_LARGE)  # the answer is lost where the client has not stopped sending
    assert send(address, GET, b"\r\n").endswith(b"6 0")


def test_a_head_that_is_too_large_by_little_is_told_so(address: tuple[str, int]) -> None:
    begun = b"GET / HTTP/1.1\r\na: "
    answer = send(address, begun, b"b" * (MAX_HEAD_BYTES + 1 - len(begun)))
    assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("sent", "cause"),
    [
        (b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + b"\xff" * 190, b"TLS arrived"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/2 arrived"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n" + GET + b"\r\n", b"PROXY protocol arrived"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + GET + b"\r\n", b"PROXY protocol arrived"),
        (GET + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc", b"Duplicate Content-Length"),
        (POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc", b"Transfer-Encoding"),
        ("GET /é HTTP/1.1\r\n\r\n".encode(), b"Invalid char in url"),
        (b"GET /%s HTTP/1.1\r\n\r\n" % (b"a" * 65_536), b"url is too long"),
        (b"POST / HTTP/1.1\r\nhost: x\r\n\r\n\x89PNG\r\n", b"A body needs a Content-Length"),
    ],
)
def test_what_is_no_request_is_refused_with_its_cause(address: tuple[str, int], sent: bytes, cause: bytes) -> None:
    answer = send(address, sent)
    assert b"HTTP/1.1 400 " in answer
    assert cause in answer
    assert send(address, GET, b"\r\n").endswith(b"6 0")


def test_a_head_and_a_body_within_their_limits_pass_whole_or_in_pieces(address: tuple[str, int]) -> None:
    head = POST + b"content-length: 3000000\r\na: " + b"b" * 30_000 + b"\r\n\r\n"
    for parts in ([head + bytes(3_000_000)], [head, bytes(3_000_000)], [head[:9], head[9:], *[bytes(30_000)] * 100]):
        assert send(address, *parts).endswith(b"30013 3000000")


def test_a_body_in_small_chunks_passes(address: tuple[str, int]) -> None:
    chunks = b"8\r\n12345678\r\n" * 50_000
    answer = send(address, POST + b"transfer-encoding: chunked\r\n\r\n", chunks, b"0\r\n\r\n")
    assert answer.endswith(b"400000")


@pytest.mark.parametrize("beside", [b"0\r\nx: %s", b"1;x=%s"], ids=["trailers", "chunk extensions"])
def test_what_goes_on_without_end_beside_a_body_is_cut(address: tuple[str, int], beside: bytes) -> None:
    answer = send(address, POST + b"transfer-encoding: chunked\r\n\r\n", beside % (b"a" * 5_000_000))
    assert b"200 OK" not in answer
    assert send(address, GET, b"\r\n").endswith(b"6 0")


def test_many_requests_on_one_connection_are_each_counted_alone(address: tuple[str, int]) -> None:
    one = b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 20_000 + b"\r\n\r\n"
    last = GET + b"\r\n"
    with socket.create_connection(address, timeout=60) as client:
        for _ in range(20):
            client.sendall(one)
            answer = b""
            while not answer.endswith(b"20001 0"):
                answer += client.recv(65_536)
    assert send(address, *[one] * 20, last).count(b"200 OK") == 21


def test_a_connection_on_which_no_head_arrives_is_closed(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_connection(address, timeout=60) as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"1 0"):
            answer += kept.recv(65_536)
        monkeypatch.setattr(connection, "HEAD_S", 0.1)
        kept.sendall(b"GET / HTTP/1.1\r\n")
        assert kept.recv(65_536) == b""
    assert send(address) == b""
    assert send(address, b"GET / HTTP/1.1\r\na: b") == b""


def test_a_head_that_has_arrived_leaves_all_time_for_the_rest(server: uvicorn.Server, address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(POST + b"content-length: 5\r\n\r\n12")
        while not server.server_state.tasks:
            time.sleep(0.01)
        (protocol,) = server.server_state.connections
        assert isinstance(protocol, BoundedProtocol)
        assert protocol._timer is None
        client.sendall(b"345")
        answer = b""
        while not answer.endswith(b"7 5"):
            answer += client.recv(65_536)


# Write buffering: of a process that is killed, either all of an answer arrives or nothing


class Wire:
    """A transport that notes what is written to it."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.written.append("close")

    def is_closing(self) -> bool:
        return "close" in self.written

    def get_extra_info(self, name: str) -> str:
        return f"the {name}"


def told(*turns: Any) -> list[Any]:
    """What reaches the wire of these turns of an event loop, each a function of the transport."""

    async def scenario() -> list[Any]:
        wire = Wire()
        transport = BufferedTransport(wire, asyncio.get_running_loop())  # type: ignore[arg-type]
        for turn in turns:
            turn(transport)
            await asyncio.sleep(0)
        return wire.written

    return asyncio.run(scenario())


def test_head_and_body_written_in_one_turn_are_one_piece() -> None:
    assert told(lambda it: (it.write(b"head"), it.write(b"body")), lambda it: it.write(b"next")) == [
        b"headbody",
        b"next",
    ]


def test_what_was_written_goes_out_before_the_connection_closes_and_nothing_after() -> None:
    assert told(lambda it: (it.write(b"last"), it.close(), it.write(b"more"))) == [b"last", "close"]


def test_a_long_answer_does_not_pile_up() -> None:
    piece = b"x" * MAX_BUFFERED_BYTES
    assert told(lambda it: [it.write(piece) for _ in range(4)]) == [2 * piece, 2 * piece]


def test_everything_else_is_asked_of_the_transport() -> None:
    assert told(lambda it: it.write(it.get_extra_info("peer").encode())) == [b"the peer"]


OFFERS = {
    "h2c": b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
    "websocket": b"connection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n",
    "two headers": b"connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: TLS/1.0, h2c\r\n",
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("pieces", [1, 2, 7], ids=["one piece", "two", "seven"])
def test_an_offer_to_upgrade_is_ignored_and_body_and_later_requests_arrive(
    address: tuple[str, int], offer: bytes, pieces: int
) -> None:
    body = bytes(range(256)) * 40
    sized = b"POST / HTTP/1.1\r\nhost: x\r\n%scontent-length: %d\r\n\r\n%s" % (offer, len(body), body)
    chunked = b"POST / HTTP/1.1\r\nhost: x\r\n%stransfer-encoding: chunked\r\n\r\n" % offer
    chunked += b"2800\r\n" + body + b"\r\n0\r\n\r\n"
    without = b"GET / HTTP/1.1\r\nhost: x\r\n" + offer + b"\r\n"
    sent = sized + without + chunked + sized + GET + b"\r\n"
    size = -(-len(sent) // pieces)
    answer = send(address, *(sent[start : start + size] for start in range(0, len(sent), size)))
    bodies = [int(each.split(b"\r\n\r\n")[1].split()[1]) for each in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [len(body), 0, len(body), len(body), 0]


def test_a_connection_that_is_to_close_closes_though_an_upgrade_is_offered(address: tuple[str, int]) -> None:
    answer = send(address, b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close, Upgrade\r\nupgrade: h2c\r\n"
                  b"content-length: 3\r\n\r\nabc")  # fmt: skip
    assert answer.endswith(b" 3")
    assert answer.count(b"200 OK") == 1
