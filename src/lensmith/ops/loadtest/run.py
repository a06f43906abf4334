"""From settings to what was measured; the service is started and stopped here where a bundle is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lensmith.bundle.format import Bundle
from lensmith.config import BenchSettings
from lensmith.core.progress import track
from lensmith.errors import ServiceError, SettingsError
from lensmith.ops.loadtest.client import ask, drive
from lensmith.ops.loadtest.measured import Measured, Requests, measure
from lensmith.ops.loadtest.pictures import draw, read_images
from lensmith.ops.loadtest.record import CONNECTION, TIMEOUT, Record
from lensmith.ops.loadtest.schedule import Load
from lensmith.ops.loadtest.target import Target, image_requests
from lensmith.serving.child_process import start_service

TOKEN = "LENSMITH_TOKEN"
DRAWN = 16
CONNECTIONS = {"closed": 16, "open": 1024}
BUSY_STATUSES = (429, 503, 504)
"""A service that is there and cannot answer just now, which is what a load test wants to know."""


def bench(settings: BenchSettings) -> Measured:
    """Put a service under load.

    Raises:
        SettingsError: neither a URL nor a bundle, or an unusable token.
        BundleError: a bundle that cannot be read.
        DataError: no images.
        ServiceError: nothing answers there, or it does not take these requests.
        MissingPackageError: `out` is given, and matplotlib is not installed.
    """
    if settings.out is not None:
        import matplotlib.figure  # noqa: F401  # that it is missing is told before the test and not after it
    images = read_images(settings.image_files, settings.seed) if settings.image_files else None
    token = _token(settings.token_file)
    with _service(settings.target) as (url, golden):
        target = Target.parse(url)
        requests = image_requests(target, images or golden or draw(DRAWN), form=settings.form, token=token)
        return run(target, requests, load_of(settings), settings.slo_ms, settings.out)


def run(
    target: Target, requests: Sequence[bytes], load: Load, slo_ms: float = 200.0, out: Path | None = None
) -> Measured:
    """Put whatever answers at `target` under load, once one request has shown that it does.

    Args:
        target: where to.
        requests: as `Target.request` makes them, sent in turn.
        load: how.
        slo_ms: latency within which an answer counts as goodput.
        out: folder for `bench.json` and `bench.png`.

    Raises:
        ServiceError: nothing answers there, or it does not take these requests.
    """
    _require_answer(target, ask(target, requests[0], load.timeout_s), load.timeout_s)
    bar = _Bar(load)
    record = drive(target, requests, load, bar.step)
    bar.close()
    found = measure(record, load, target.url, slo_ms)
    if out is not None:
        from lensmith.ops.loadtest.plot import draw_latencies

        out.mkdir(parents=True, exist_ok=True)
        (out / "bench.json").write_text(json.dumps(found.as_dict(), indent=2) + "\n", encoding="utf-8")
        draw_latencies(Requests.of(record, load.warmup_s), found, out / "bench.png")
    return found


def load_of(settings: BenchSettings) -> Load:
    """The load that settings describe."""
    return Load(
        duration_s=settings.duration,
        warmup_s=settings.warmup_time,
        clients=settings.clients or CONNECTIONS["open" if settings.rate else "closed"],
        rate=settings.rate,
        arrivals=settings.arrivals,
        timeout_s=settings.timeout,
        seed=settings.seed,
    )


@contextmanager
def _service(target: str) -> Iterator[tuple[str, tuple[bytes, ...] | None]]:
    """The URL of a service, and a bundle's golden images where it was started for one."""
    if "://" in target:
        yield target, None
        return
    if not (bundle := Path(target)).exists():
        raise SettingsError(
            "The URL of a service, or a bundle, was expected.",
            f"{target} arrived, where nothing is.",
            "Give a URL such as http://127.0.0.1:8000, the folder or zip of a bundle, or NAME@ALIAS.",
        )
    golden = Bundle.load(bundle).golden().images
    with start_service(bundle) as service:
        yield service.url, golden


def _token(file: Path | None) -> str | None:
    if file is None:
        token = os.environ.get(TOKEN, "").strip()
    else:
        try:
            token = file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            token = f"unreadable: {getattr(error, 'strerror', None) or 'it is no text'}"
    if token and (not token.isascii() or any(letter.isspace() for letter in token)):
        raise SettingsError(
            "One token, without spaces, was expected.",
            f"What is in {file or TOKEN} is none.",
            f"Put the token alone into a file that you may read and name it with --token-file, or into {TOKEN}.",
        )
    return token or None


def _require_answer(target: Target, record: Record, timeout_s: float) -> None:
    outcome = record.outcome[-1] if record.outcome else CONNECTION
    if 200 <= outcome < 300 or outcome in BUSY_STATUSES or record.interrupted:
        return
    if outcome == TIMEOUT:
        said = f"It gave no answer within {timeout_s:g} s."
    elif outcome == CONNECTION:
        said = f"There is none ({(record.problem or 'it closed the connection').rstrip('.')})."
    else:
        said = f"It answered the first request with status {outcome}."
    remedy = {
        401: f"It asks for a token: name its file with --token-file, or put it into {TOKEN}.",
        403: "Its token does not allow predicting: take one of scope predict.",
        404: "Give the address that `lensmith serve` printed; a path of another service goes into the URL.",
        415: "Name JPEG or PNG files with --image-files.",
        422: "Name images that it takes with --image-files, or try --form.",
    }.get(outcome, "Check the address, and that the service is up: curl URL/readyz")
    raise ServiceError(f"A service that answers was expected at {target.url}.", said, remedy)


class _Bar:
    """The seconds of a test as a bar on standard error, moved on from within the event loop."""

    def __init__(self, load: Load) -> None:
        self._seconds = iter(track(range(round(load.total_s)), "load test"))
        self.step: Callable[[], object] = lambda: next(self._seconds, None)

    def close(self) -> None:
        """Take it away."""
        for _ in self._seconds:
            pass
