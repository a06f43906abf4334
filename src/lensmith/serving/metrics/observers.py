"""Failures of observers (metrics, feedback, drift, usage): logged once and counted, never passed on to a request."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric

logger = logging.getLogger(__name__)


class ObserverFailures:
    """Counts the failures of a service's observers, so that they do not end what they observe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        what = "Failures of the service's observers (metrics, feedback, …); the requests themselves were answered."
        self._counted = Counter("lensmith_observer_failures", what, ["observer"], registry=registry)
        self._counted.labels("metrics")  # shown as 0 before the first
        self._logged: set[tuple[str, type[Exception]]] = set()

    def note(self, observer: str, error: Exception) -> None:
        """Count a failure; log it unless this observer has failed in the same way before."""
        if (observer, type(error)) not in self._logged:
            self._logged.add((observer, type(error)))
            logger.error("%s failed and the service goes on without: %r", observer, error, exc_info=error)
        self._counted.labels(observer).inc()

    @contextmanager
    def guard(self, observer: str) -> Iterator[None]:
        """A block of an observer's work, whose exceptions are noted and go no further."""
        try:
            yield
        except Exception as error:
            self.note(observer, error)


class GuardedCollector:
    """A collector of Prometheus whose failure leaves only its own metrics out of the page."""

    def __init__(self, name: str, collect: Callable[[], Iterator[Metric]], failures: ObserverFailures) -> None:
        self._name, self._collect, self._failures = name, collect, failures

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's collectors."""
        try:
            yield from list(self._collect())
        except Exception as error:
            self._failures.note(self._name, error)
