"""What the client does to a server, and what it notes of each request."""

import signal
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lensmith.ops.loadtest.client import send_load, send_one_request
from lensmith.ops.loadtest.load_profile import LoadProfile
from lensmith.ops.loadtest.request_log import CONNECTION, TIMEOUT
from lensmith.ops.loadtest.results import summarize
from lensmith.ops.loadtest.target import Target


def requests_to(url: str) -> tuple[Target, list[bytes]]:
    target = Target.parse(url)
    return target, [target.request(b"picture", "image/jpeg")]


def test_a_stall_of_the_server_is_seen_by_all_who_came_in_it_and_of_waiting_clients_only_by_one(
    server_of: Any, answer: Any
) -> None:
    seen, p99 = {}, {}
    for kind, load in {
        "closed": LoadProfile(duration_s=0.8, clients=1),
        "open": LoadProfile(duration_s=0.8, rate=150, arrivals="constant"),
    }.items():
        server = server_of(lambda number: answer(stall_s=0.3 if number == 20 else 0.0, wait_s=0.001))
        record = send_load(*requests_to(server.url), load)
        seen[kind] = sum(latency > 0.1 for latency in record.latency_s)
        p99[kind] = summarize(record, load, server.url, 200.0).latency_ms["p99"]
    assert seen["closed"] >= 1
    assert seen["open"] > 20  # 30 were due in the first 0.2 s of it
    assert seen["open"] > 5 * seen["closed"]
    assert p99["open"] > 250


def test_waiting_for_a_connection_counts_from_when_the_request_was_due(server_of: Any, answer: Any) -> None:
    server = server_of(lambda number: answer(wait_s=0.05))  # 20 a second on one connection
    load = LoadProfile(duration_s=0.5, rate=60, arrivals="constant", clients=1)
    found = summarize(send_load(*requests_to(server.url), load), load, server.url, 200.0)
    assert server.connections == 1
    assert found.latency_ms["max"] > 700
    assert found.from_sending_ms["p50"] < 300
    assert found.offered_per_second == pytest.approx(60, abs=2)
    assert found.ok_per_second < 21
    assert found.goodput_per_second < found.ok_per_second


def test_with_a_rate_slow_answers_do_not_slow_the_requests_down(server_of: Any, answer: Any) -> None:
    server = server_of(lambda number: answer(wait_s=0.5))
    load = LoadProfile(duration_s=1.0, rate=100, clients=1000)
    record = send_load(*requests_to(server.url), load)
    assert len(server.heads) == len(record.outcome) == len(list(load.due_times()))
    assert server.connections > 40


def test_so_many_clients_are_so_many_connections(server_of: Any, answer: Any) -> None:
    server = server_of(lambda number: answer(wait_s=0.01))
    record = send_load(*requests_to(server.url), LoadProfile(duration_s=0.5, clients=7))
    assert server.connections == 7
    assert set(record.outcome) == {200}
    assert set(server.bodies) == {b"picture"}


def test_a_load_test_leaves_ctrl_c_to_its_caller_and_runs_in_any_thread(server_of: Any, answer: Any) -> None:
    server = server_of(lambda number: answer(wait_s=0.01))
    load, before = LoadProfile(duration_s=0.1, clients=1), signal.getsignal(signal.SIGINT)
    send_load(*requests_to(server.url), load)
    assert signal.getsignal(signal.SIGINT) is before
    with ThreadPoolExecutor() as pool:
        assert pool.submit(send_load, *requests_to(server.url), load).result().outcome
    assert signal.getsignal(signal.SIGINT) is before


def test_statuses_are_counted_apart(server_of: Any, answer: Any) -> None:
    statuses = (200, 200, 503, 200, 429)
    server = server_of(lambda number: answer(status=statuses[number % 5], wait_s=0.001))
    load = LoadProfile(duration_s=0.5, clients=2)
    found = summarize(send_load(*requests_to(server.url), load), load, server.url, 200.0)
    assert set(found.by_status) == {"200", "429", "503"}
    assert sum(found.by_status.values()) == found.requests
    assert found.ok == found.by_status["200"]
    assert found.by_status["200"] / found.requests == pytest.approx(0.6, abs=0.05)
    assert found.refusal_p99_ms is not None


def test_a_connection_that_the_server_closes_after_its_answer_is_replaced_without_an_error(
    server_of: Any, answer: Any
) -> None:
    server = server_of(lambda number: answer(close=number % 3 == 0, wait_s=0.001))
    record = send_load(*requests_to(server.url), LoadProfile(duration_s=0.5, clients=2))
    assert set(record.outcome) == {200}
    assert server.connections > len(record.outcome) / 4


def test_a_connection_closed_before_the_answer_is_an_error_and_is_replaced(server_of: Any, answer: Any) -> None:
    server = server_of(lambda number: answer(status=0 if number % 4 == 0 else 200, wait_s=0.001))
    outcomes = Counter(send_load(*requests_to(server.url), LoadProfile(duration_s=0.5, clients=2)).outcome)
    assert set(outcomes) == {200, CONNECTION}
    assert outcomes[CONNECTION] / outcomes.total() == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("rate", [None, 20.0])
def test_a_request_without_an_answer_is_given_up_and_counts_with_the_time_waited(
    server_of: Any, answer: Any, rate: float | None
) -> None:
    server = server_of(lambda number: answer(status=-1))
    load = LoadProfile(duration_s=0.5, clients=4, rate=rate, arrivals="constant", timeout_s=0.4)
    record = send_load(*requests_to(server.url), load)
    assert set(record.outcome) == {TIMEOUT}
    found = summarize(record, load, server.url, 200.0)
    assert found.timeouts == found.requests == len(record.outcome)
    assert found.latency_ms["p50"] >= 400
    assert found.goodput_per_second == found.ok_per_second == 0


def test_a_server_that_is_gone_is_not_retried_in_a_tight_loop() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        target, requests = requests_to(f"http://127.0.0.1:{unheard.getsockname()[1]}")
        record = send_load(target, requests, LoadProfile(duration_s=0.5, clients=2))
    assert set(record.outcome) == {CONNECTION}
    assert len(record.outcome) < 50
    assert record.problem


def test_what_is_no_http_is_a_connection_error(server_of: Any, answer: Any) -> None:
    server = server_of(lambda number: answer(status=7))  # a status line that no parser takes
    assert send_one_request(*[requests_to(server.url)[0], requests_to(server.url)[1][0]], 2.0).outcome[0] == CONNECTION


def test_one_request_is_one(server_of: Any, answer: Any) -> None:
    server = server_of(lambda number: answer(status=204))
    target, requests = requests_to(server.url + "/other?top_k=1")
    assert list(send_one_request(target, requests[0], 5.0).outcome) == [204]
    assert [head.partition("\r\n")[0] for head in server.heads] == ["POST /other?top_k=1 HTTP/1.1"]


def test_the_warm_up_is_not_counted(server_of: Any, answer: Any) -> None:
    server = server_of(lambda number: answer(status=500 if number <= 5 else 200, wait_s=0.01))
    load = LoadProfile(duration_s=0.3, warmup_s=0.4, clients=1)
    found = summarize(send_load(*requests_to(server.url), load), load, server.url, 200.0)
    assert set(found.by_status) == {"200"}
    assert found.seconds == pytest.approx(0.3, abs=0.01)
    assert found.requests < len(server.heads) - 5
