"""Answers that leave in one piece: of a process that is killed, either all of an answer arrives or nothing."""

import asyncio
from typing import Any

from lensmith.serving.server.write_buffer import MAX_BYTES, BufferedTransport


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
    piece = b"x" * MAX_BYTES
    assert told(lambda it: [it.write(piece) for _ in range(4)]) == [2 * piece, 2 * piece]


def test_everything_else_is_asked_of_the_transport() -> None:
    assert told(lambda it: it.write(it.get_extra_info("peer").encode())) == [b"the peer"]
