"""Rate limit in Redis: images of each caller counted together by several processes and replicas.

Redis may be slow or gone at any time: then only one request in a few seconds waits for it, briefly.
"""

import asyncio
import logging
import time
from urllib.parse import urlsplit

from lensmith.core.credentials import redis_password
from lensmith.errors import SettingsError
from lensmith.serving.auth.rate_limit import Rate

logger = logging.getLogger(__name__)

TIMEOUT_S = 0.05
"""Seconds that a request waits for Redis at most, connecting included."""
RETRY_S = 3.0
"""Seconds without requests to a Redis that did not answer; then one request tries it again."""
CONNECTIONS = 16
"""Most connections of one process."""
PREFIX = "lensmith-quota"


class RedisRateLimiter:
    """Sliding windows in Redis, by the scripts of the package `limits`; circuit breaking while Redis does not answer.

    Args:
        url: redis://HOST:PORT/DB, or rediss:// for TLS; the password comes from LENSMITH_REDIS_PASSWORD or the file
            that LENSMITH_REDIS_PASSWORD_FILE names.
        rate: images that one caller may send in a window.

    Attributes:
        answers: whether Redis answered when it was last asked.

    Raises:
        SettingsError: the URL has another form, or contains a password.
        ModuleNotFoundError: `limits` or `redis` is not installed.
    """

    def __init__(self, url: str, rate: Rate) -> None:
        self._rate = rate
        self._where = _checked(url)
        import redis.asyncio
        import redis.backoff
        from limits.aio.storage import RedisStorage
        from redis.asyncio.retry import Retry

        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            password=redis_password(),
            max_connections=CONNECTIONS,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(redis.backoff.NoBackoff(), 0),
        )
        self._client = redis.asyncio.Redis.from_pool(pool)
        self._storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=PREFIX,
            connection_pool=pool,  # type: ignore[arg-type]
        )
        self._errors = (redis.RedisError, OSError, TimeoutError)
        self._silent_until = 0.0
        self.answers = True

    async def take(self, key: str, images: int) -> float | None:
        """Count `images` if they are allowed.

        Returns:
            Seconds until they would be allowed; 0.0: they are counted; None: Redis does not answer.
        """
        now = time.monotonic()
        if now < self._silent_until:
            return None
        if not self.answers:
            self._silent_until = now + RETRY_S  # this request alone tries again
        try:
            async with asyncio.timeout(TIMEOUT_S):
                wait = await self._ask(key, images)
        except self._errors as error:
            self._silent_until = time.monotonic() + RETRY_S
            if self.answers:
                message = "Redis at %s does not answer (%s); quotas are counted in this process until it does"
                logger.warning(message, self._where, type(error).__name__)
            self.answers = False
            return None
        if not self.answers:
            logger.warning("Redis at %s answers again; quotas are counted there", self._where)
            self.answers, self._silent_until = True, 0.0
        return wait

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose(close_connection_pool=True)

    async def _ask(self, key: str, images: int) -> float:
        allowed, window_s = self._rate.images, self._rate.seconds
        name = f"{key}/{allowed}/{window_s}"
        if await self._storage.acquire_sliding_window_entry(name, allowed, window_s, images):
            return 0.0
        previous, previous_left, current, current_left = await self._storage.get_sliding_window(name, window_s)
        # The current window's key lives on for another window, in which it is the previous one.
        left = previous_left if previous else max(0.0, current_left - window_s)
        return max(0.001, self._rate.wait_s(previous, current, left, images))


def _checked(url: str) -> str:
    """HOST:PORT of a usable URL; nothing of an unusable one is repeated, as it may contain a password."""
    try:
        address = urlsplit(url)
        port, database = address.port or 6379, address.path.strip("/")
        usable = address.scheme in ("redis", "rediss") and address.hostname and (not database or database.isdecimal())
    except ValueError:
        usable = None
    if not usable or address.password is not None or address.query:
        raise SettingsError(
            "The quota's store was expected as memory, or as redis://HOST:PORT/DB without a password.",
            "Something else arrived.",
            "Set the password as LENSMITH_REDIS_PASSWORD, or name a file with it in LENSMITH_REDIS_PASSWORD_FILE.",
        )
    return f"{address.hostname}:{port}"
