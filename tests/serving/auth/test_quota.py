"""Quotas: images of one caller, counted in memory or in a real Redis that is killed and restarted."""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fixtures.redis_server import RedisServer
from lensmith.config import ServeSettings
from lensmith.errors import MissingPackageError, SettingsError
from lensmith.serving.auth import rate_limit, rate_limit_redis
from lensmith.serving.auth.quota import Quota
from lensmith.serving.auth.rate_limit import MemoryRateLimiter, Rate
from lensmith.serving.problems import ProblemError

pytestmark = pytest.mark.anyio

OfRedis = Callable[..., Quota]


def settings(**given: Any) -> ServeSettings:
    return ServeSettings(bundle="x", **given)


def take(quota: Quota, caller: str = "robot", images: int = 1) -> int | None:
    """None: allowed; else the seconds of Retry-After; -1: waiting does not help."""
    return asyncio.run(taken(quota, caller, images))


async def taken(quota: Quota, caller: str = "robot", images: int = 1) -> int | None:
    try:
        await quota.take(caller, images)
    except ProblemError as error:
        problem = error
    else:
        return None
    assert (problem.kind, problem.status) == ("over-quota", 429)
    return int((problem.headers or {}).get("retry-after", -1))


# Which quota


def test_callers_with_tokens_have_200_images_a_minute_and_others_no_quota() -> None:
    quota = Quota.of(settings(), authenticated=True)
    assert quota is not None
    assert quota.rate == Rate(200, 60)
    assert Quota.of(settings(), authenticated=False) is None
    assert Quota.of(settings(quota="none"), authenticated=True) is None
    assert Quota.of(settings(quota="5/second"), authenticated=False) is not None


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1/second", (1, 1)),
        (" 30 / minute ", (30, 60)),
        ("10/hour", (10, 3600)),
        ("999999999/day", (999_999_999, 86_400)),
    ],
)
def test_a_quota_is_a_number_of_images_and_a_window(text: str, rate: tuple[int, int]) -> None:
    assert Rate.parse(text) == Rate(*rate)


@pytest.mark.parametrize(
    "text", ["", "200", "200/", "/minute", "0/minute", "-1/minute", "1.5/minute", "200/week", "200 per minute",
             "200/minute;5/second", "2/3minute", "9999999999/day"],
)  # fmt: skip
def test_a_quota_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="NUMBER/second"):
        Rate.parse(text)


# Counted in this process


def test_a_caller_may_send_the_quota_and_then_is_told_when_to_come_back(clock: Any) -> None:
    quota = Quota(Rate(3, 60))
    assert [take(quota) for _ in range(4)] == [None, None, None, 80]
    assert take(quota, "another") is None
    clock.now += 79
    assert take(quota) == 1
    clock.now += 1
    assert [take(quota), take(quota)] == [None, 20]


@pytest.mark.parametrize("rate", [Rate(1, 1), Rate(3, 60), Rate(200, 60), Rate(7, 3600)])
@pytest.mark.parametrize("images", [1, 2, 7])
def test_who_waits_as_long_as_told_is_let_in_and_not_a_moment_before(clock: Any, rate: Rate, images: int) -> None:
    counts = MemoryRateLimiter(rate)
    images = min(images, rate.images)
    for _ in range(300):
        wait = counts.take("robot", images)
        if not wait:
            clock.now += rate.seconds / 97
            continue
        moment = clock.now
        clock.now = moment + wait * 0.999
        assert counts.take("robot", images) > 0
        clock.now = moment + wait + 1e-6 * rate.seconds
        assert counts.take("robot", images) == 0


def test_no_burst_around_the_border_of_two_windows_is_larger_than_the_quota(clock: Any) -> None:
    counts, let_in = MemoryRateLimiter(Rate(60, 60)), []
    clock.now += 54  # six seconds of ten images each before the border; fixed windows would allow six more after it
    for _ in range(1300):
        if not counts.take("robot", 1):
            let_in.append(clock.now)
        clock.now += 0.1

    def most_within(seconds: float) -> int:
        return max(sum(start <= moment < start + seconds for moment in let_in) for start in let_in)

    assert let_in[59] < 6060 < let_in[60]
    assert most_within(12) <= 60 + 12 * 60 / 60
    assert most_within(60) <= 60 + 60
    assert 60 + 110 <= len(let_in) <= 60 + 130  # in the long run the quota, and neither more nor less


def test_a_batch_counts_each_of_its_images_or_none(clock: Any) -> None:
    quota = Quota(Rate(10, 60))
    assert take(quota, images=11) == -1  # larger than the quota: waiting does not help
    assert take(quota, images=8) is None
    assert take(quota, images=3)
    assert take(quota, images=2) is None
    assert take(quota, images=1)


def test_refused_images_do_not_count_and_after_two_windows_of_silence_none_does(clock: Any) -> None:
    quota = Quota(Rate(2, 60))
    assert take(quota, images=2) is None
    assert all(take(quota) for _ in range(50))
    clock.now += 90
    assert take(quota) is None
    clock.now += 120
    assert take(quota, images=2) is None


def test_many_callers_take_little_memory_and_silent_ones_none(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CALLERS", 100)
    counts = MemoryRateLimiter(Rate(5, 60))
    for number in range(1000):
        assert counts.take(f"robot {number}", 5) == 0
        assert len(counts._callers) <= 100
    assert counts.take("robot 999", 1) > 0
    assert counts.take("robot 0", 5) == 0  # forgotten
    clock.now += 180
    for number in range(60):
        counts.take(f"new robot {number}", 1)
    assert len(counts._callers) == 60


def test_callers_are_kept_apart_whatever_they_are_called(clock: Any) -> None:
    quota = Quota(Rate(1, 60))
    for name in ("a", "a/b", "a/", "A", "", "ä", "a\0", "\ud800", "x" * 10_000):
        assert take(quota, name) is None
        assert take(quota, name)


# Counted in Redis


@pytest.fixture
def redis(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """A running Redis, however slow the machine is."""
    monkeypatch.delenv("LENSMITH_REDIS_PASSWORD", raising=False)
    monkeypatch.delenv("LENSMITH_REDIS_PASSWORD_FILE", raising=False)
    # Time-outs are counted, not timed: a busy machine must not make a healthy Redis seem slow.
    monkeypatch.setattr(rate_limit_redis, "TIMEOUT_S", 20.0)
    return redis_server


class Asked:
    """How often a quota has asked Redis, and a clock for how long it leaves Redis alone."""

    def __init__(self, quota: Quota, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self.now = 1000.0
        shared = quota.shared
        assert shared is not None
        ask = shared._ask

        async def counted(key: str, images: int) -> float:
            self.times += 1
            return await ask(key, images)

        monkeypatch.setattr(shared, "_ask", counted)
        monkeypatch.setattr(rate_limit_redis, "time", self)

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
async def of(redis: RedisServer) -> AsyncIterator[Callable[..., Quota]]:
    """`of("5/hour")`: such a quota, counted in that Redis."""
    made: list[Any] = []

    def make(quota: str = "5/hour") -> Any:
        made.append(Quota.of(settings(quota=quota, quota_store=redis.url), authenticated=True))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_replicas_share_one_count(of: OfRedis) -> None:
    one, two, other = of(), of(), of("3/hour")
    found = [await taken(quota) for quota in (one, two, one, two, one)]
    assert found == [None] * 5
    for quota in (one, two):
        wait = await taken(quota)
        assert wait is not None
        assert 3600 < wait <= 3600 + 3600 / 5
    assert await taken(one, "another", 5) is None
    assert await taken(two, "another", 1) is not None
    assert await taken(other) is None  # another quota is another count


async def test_many_at_once_are_let_in_as_often_as_the_quota_says(of: OfRedis) -> None:
    one, two = of("100/hour"), of("100/hour")
    found = await asyncio.gather(*(taken((one, two)[number % 2]) for number in range(300)))
    assert found.count(None) == 100


async def test_redis_learns_no_names_and_what_is_counted_expires(redis: RedisServer, of: OfRedis) -> None:
    from redis.asyncio import Redis

    await of("5/minute").take("robot@example.org")
    async with Redis.from_url(redis.url) as client:
        (key,) = await client.keys("*")
        left_s = await client.ttl(key)
    assert b"robot" not in key
    assert key.startswith(b"lensmith-quota:")
    assert 0 < left_s <= 120


async def test_when_redis_is_killed_and_comes_back_no_request_fails_and_both_are_said_once(
    redis: RedisServer, of: OfRedis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "lensmith")
    quota, other = of(), of()
    asked = Asked(quota, monkeypatch)
    assert await taken(quota, images=2) is None
    assert await taken(other, images=2) is None
    redis.kill()
    # This process continues with the images that it allowed itself: 2 of 5, whatever the other one did.
    assert [await taken(quota) for _ in range(3)] == [None] * 3
    assert await taken(quota) is not None
    assert asked.times == 2
    assert len(caplog.records) == 1
    assert urlsplit(redis.url).netloc in caplog.text
    asked.now += rate_limit_redis.RETRY_S
    assert await taken(quota, "another") is None  # asks again, in vain
    assert asked.times == 3
    assert len(caplog.records) == 1
    redis.start()
    assert await taken(quota, "another") is None  # leaves it alone
    assert asked.times == 3
    asked.now += rate_limit_redis.RETRY_S
    assert await taken(quota, "another") is None
    assert asked.times == 4
    assert len(caplog.records) == 2
    assert [await taken(quota, "another") for _ in range(5)].count(None) == 4  # one is counted there already
    assert len(caplog.records) == 2


async def test_a_redis_that_hangs_costs_one_request_a_time_out_and_the_others_nothing(
    redis: RedisServer, of: OfRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = of("1000/hour")
    asked = Asked(quota, monkeypatch)
    assert await taken(quota) is None
    redis.process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(rate_limit_redis, "TIMEOUT_S", 0.05)
    assert [await taken(quota) for _ in range(50)] == [None] * 50
    assert asked.times == 2
    for _ in range(3):
        asked.now += rate_limit_redis.RETRY_S
        assert await asyncio.gather(*(taken(quota) for _ in range(50))) == [None] * 50
    assert asked.times == 5
    redis.process.send_signal(signal.SIGCONT)
    monkeypatch.setattr(rate_limit_redis, "TIMEOUT_S", 20.0)
    asked.now += rate_limit_redis.RETRY_S
    # No answer of a question that was given up is taken for that of another.
    assert await taken(quota, "another", 1000) is None
    assert await taken(quota, "another", 1) is not None
    assert await taken(quota, "a third", 1) is None


async def test_a_redis_that_never_was_there_is_no_reason_not_to_start(redis: RedisServer, of: OfRedis) -> None:
    redis.kill()
    quota = of()
    assert [await taken(quota) for _ in range(6)].count(None) == 5


async def test_the_password_comes_from_the_environment_or_a_file_and_is_not_logged(
    redis: RedisServer, of: OfRedis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: Any
) -> None:
    from redis import Redis

    async def shares_a_count() -> bool:
        one, two, caller = of(), of(), f"robot {time.monotonic_ns()}"
        await one.take(caller, 5)
        return await taken(two, caller) is not None

    with Redis.from_url(redis.url) as client:
        client.config_set("requirepass", "open sesame")
    caplog.set_level(logging.DEBUG)
    assert not await shares_a_count()
    assert "AuthenticationError" in caplog.text
    monkeypatch.setenv("LENSMITH_REDIS_PASSWORD", "open barley")
    assert not await shares_a_count()
    monkeypatch.delenv("LENSMITH_REDIS_PASSWORD")
    (tmp_path / "password").write_text("open sesame\n")
    monkeypatch.setenv("LENSMITH_REDIS_PASSWORD_FILE", str(tmp_path / "password"))
    assert await shares_a_count()
    monkeypatch.delenv("LENSMITH_REDIS_PASSWORD_FILE")
    monkeypatch.setenv("LENSMITH_REDIS_PASSWORD", "open sesame")
    assert await shares_a_count()
    assert "open" not in caplog.text


@pytest.mark.parametrize(
    "url",
    ["redis://:hunter22@127.0.0.1:6379/0", "redis://me:hunter22@127.0.0.1/0", "redis://127.0.0.1/0?password=hunter22",
     "redis://127.0.0.1:hunter22/0", "memcached://hunter22", "redis://127.0.0.1/hunter22", "redis://", "Memory"],
)  # fmt: skip
def test_a_store_of_another_form_or_with_a_password_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError, match="LENSMITH_REDIS_PASSWORD") as caught:
        Quota.of(settings(quota_store=url), authenticated=True)
    assert "hunter22" not in str(caught.value)


def test_a_password_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("redis")
    monkeypatch.delenv("LENSMITH_REDIS_PASSWORD", raising=False)
    for content in (None, b"", b"\xff"):
        file = tmp_path / "password"
        if content is not None:
            file.write_bytes(content)
        monkeypatch.setenv("LENSMITH_REDIS_PASSWORD_FILE", str(file))
        with pytest.raises(SettingsError, match="password"):
            Quota.of(settings(quota_store="redis://127.0.0.1:1/0"), authenticated=True)


def test_without_the_package_the_extra_to_install_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "redis.asyncio", raising=False)
    with pytest.raises(ModuleNotFoundError) as caught:
        Quota.of(settings(quota_store="redis://127.0.0.1:1/0"), authenticated=True)
    assert "pip install 'lensmith[redis]'" in str(MissingPackageError.of(caught.value))
