"""How many images a caller may send, counted in this process, or in Redis for several processes and replicas."""

from __future__ import annotations

import hashlib
import math

from lensmith.config import ServeSettings
from lensmith.serving.auth.rate_limit import Counts, Rate
from lensmith.serving.auth.rate_limit_redis import SharedCounts
from lensmith.serving.problems import ProblemError

DEFAULT = "200/minute"


class Quota:
    """The quota of every caller.

    Where Redis is to count and does not answer, this process counts alone until it does: then each replica lets in as
    much as all should together. What Redis lets in is counted here as well, so that nobody begins anew.

    Args:
        rate: what one caller may send.
        shared: the count in Redis; None: this process's own.
    """

    def __init__(self, rate: Rate, shared: SharedCounts | None = None) -> None:
        self.rate = rate
        self.shared = shared
        self._counts = Counts(rate)

    @classmethod
    def of(cls, settings: ServeSettings, authenticated: bool) -> Quota | None:
        """As the settings say; None: there is no quota.

        Args:
            settings: `quota` and `quota_store`.
            authenticated: whether callers have names; without them there is a quota only where one is set.

        Raises:
            SettingsError: one of them is unusable.
            ModuleNotFoundError: the packages for Redis are not installed.
        """
        text = settings.quota or (DEFAULT if authenticated else "none")
        if text.strip().lower() == "none":
            return None
        rate = Rate.parse(text)
        if settings.quota_store == "memory":
            return cls(rate)
        return cls(rate, SharedCounts(settings.quota_store, rate))

    async def take(self, caller_key: str, images: int = 1) -> None:
        """Count `images` of a caller.

        Args:
            caller_key: the caller's subject, or address; only its hash is kept.
            images: of this request, at least 1.

        Raises:
            ProblemError: `over-quota`, with Retry-After in seconds where waiting helps; none of them is counted.
        """
        allowed = f"One caller may send {self.rate.images:,} images in {self.rate.seconds:,} s"
        if images > self.rate.images:
            raise ProblemError("over-quota", f"{allowed}. This request alone holds {images:,}: send fewer at once.")
        key = hashlib.sha256(caller_key.encode(errors="replace")).hexdigest()[:32]
        wait = await self.shared.take(key, images) if self.shared else None
        if wait is None:
            wait = self._counts.take(key, images)
        elif not wait:
            self._counts.note(key, images)
        if wait:
            seconds = max(1, math.ceil(wait))
            detail = f"{allowed}. These {images:,} would be more: send them again in {seconds:,} s."
            raise ProblemError("over-quota", detail, {"retry-after": str(seconds)})

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self.shared:
            await self.shared.close()
