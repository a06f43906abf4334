"""Quota: the rate limit of each caller in images, counted in this process or in Redis for several replicas."""

from __future__ import annotations

import hashlib
import math

from lensmith.config import ServeSettings
from lensmith.serving.auth.rate_limit import MemoryRateLimiter, Rate
from lensmith.serving.auth.rate_limit_redis import RedisRateLimiter
from lensmith.serving.problems import ProblemError

DEFAULT = "200/minute"


class Quota:
    """The rate limit of every caller.

    While Redis does not answer, this process counts alone: each replica then allows the whole quota. Images that Redis
    allowed are counted here, too, so that callers do not start from zero when it fails.

    Args:
        rate: images that one caller may send in a window.
        shared: the limiter in Redis; None: this process counts alone.
    """

    def __init__(self, rate: Rate, shared: RedisRateLimiter | None = None) -> None:
        self.rate = rate
        self.shared = shared
        self._local = MemoryRateLimiter(rate)

    @classmethod
    def of(cls, settings: ServeSettings, authenticated: bool) -> Quota | None:
        """The quota of the settings; None: there is no quota.

        Args:
            settings: settings of the service, with `quota` and `quota_store`.
            authenticated: whether callers have tokens; without them there is a quota only if one is set.

        Raises:
            SettingsError: `quota` or `quota_store` cannot be used.
            ModuleNotFoundError: the packages for Redis are not installed.
        """
        text = settings.quota or (DEFAULT if authenticated else "none")
        if text.strip().lower() == "none":
            return None
        rate = Rate.parse(text)
        if settings.quota_store == "memory":
            return cls(rate)
        return cls(rate, RedisRateLimiter(settings.quota_store, rate))

    async def take(self, caller_key: str, images: int = 1) -> None:
        """Count a request's images against its caller's quota.

        Args:
            caller_key: the caller's subject or address; only its hash is stored.
            images: number of images in the request, at least 1.

        Raises:
            ProblemError: `over-quota`, with Retry-After in seconds where waiting helps; no image is counted then.
        """
        allowed = f"One caller may send {self.rate.images:,} images in {self.rate.seconds:,} s"
        if images > self.rate.images:
            raise ProblemError("over-quota", f"{allowed}. This request alone holds {images:,}: send fewer at once.")
        key = hashlib.sha256(caller_key.encode(errors="replace")).hexdigest()[:32]
        wait = await self.shared.take(key, images) if self.shared else None
        if wait is None:
            wait = self._local.take(key, images)
        elif not wait:
            self._local.record(key, images)
        if wait:
            seconds = max(1, math.ceil(wait))
            detail = f"{allowed}. These {images:,} would be more: send them again in {seconds:,} s."
            raise ProblemError("over-quota", detail, {"retry-after": str(seconds)})

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self.shared:
            await self.shared.close()
