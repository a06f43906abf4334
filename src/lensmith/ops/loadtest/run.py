"""`lensmith bench`: a load test of a URL, or of a service that is started for a bundle."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lensmith.bundle.format import Bundle
from lensmith.config import BenchSettings
from lensmith.core.files import atomic_write
from lensmith.core.output_names import require_folder_name
from lensmith.core.progress import track
from lensmith.errors import ServiceError, SettingsError
from lensmith.ops.loadtest.client import send_load, send_one_request
from lensmith.ops.loadtest.images import read_images, synthetic_images
from lensmith.ops.loadtest.load_profile import LoadProfile
from lensmith.ops.loadtest.request_log import CONNECTION, TIMEOUT, RequestLog
from lensmith.ops.loadtest.results import LoadTestResult, RequestTable, summarize
from lensmith.ops.loadtest.target import Target, image_requests
from lensmith.serving.child_process import start_service

TOKEN = "LENSMITH_TOKEN"
SYNTHETIC_IMAGES = 16
CONNECTIONS = {"closed": 16, "open": 1024}
BUSY_STATUSES = (429, 503, 504)
"""Statuses of a service that runs but is overloaded, which a load test wants to measure."""


def bench(settings: BenchSettings) -> LoadTestResult:
    """Run a load test.

    Raises:
        SettingsError: a target that is neither a URL nor a bundle, or an unusable token.
        BundleError: a bundle that cannot be read.
        DataError: a folder without images.
        ServiceError: a service that does not answer, or refuses these requests.
        OutputError: `out` is named like a file.
        MissingPackageError: `out` is set, and matplotlib is not installed.
    """
    if settings.out is not None:
        require_folder_name(settings.out, "bench.json and bench.png, with --out")
        import matplotlib.figure  # noqa: F401  # fails before the test rather than after it
    images = read_images(settings.image_files, settings.seed) if settings.image_files else None
    token = _token(settings.token_file)
    with _service(settings.target) as (url, golden):
        target = Target.parse(url)
        encoded = images or golden or synthetic_images(SYNTHETIC_IMAGES)
        requests = image_requests(target, encoded, form=settings.form, token=token)
        return run_load_test(target, requests, load_profile(settings), settings.slo_ms, settings.out)


def run_load_test(
    target: Target, requests: Sequence[bytes], load: LoadProfile, slo_ms: float = 200.0, out: Path | None = None
) -> LoadTestResult:
    """Run a load test on any service, after one request has shown that it answers.

    Args:
        target: address of the service.
        requests: bytes of the requests, from `Target.request`, sent in turn.
        load: load profile.
        slo_ms: latency in milliseconds within which an answer counts as goodput.
        out: folder for `bench.json` and `bench.png`; None for none.

    Raises:
        ServiceError: a service that does not answer, or refuses these requests.
    """
    _require_answer(target, send_one_request(target, requests[0], load.timeout_s), load.timeout_s)
    seconds = iter(track(range(round(load.total_s)), "load test"))
    log = send_load(target, requests, load, lambda: next(seconds, None))
    for _ in seconds:  # completes the progress bar
        pass
    found = summarize(log, load, target.url, slo_ms)
    if out is not None:
        from lensmith.ops.loadtest.plot import draw_latencies

        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / "bench.json", json.dumps(found.as_dict(), indent=2) + "\n")
        draw_latencies(RequestTable.of(log, load.warmup_s), found, out / "bench.png")
    return found


def load_profile(settings: BenchSettings) -> LoadProfile:
    """The load profile of the settings."""
    return LoadProfile(
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
    """URL of a service; for a bundle one is started, and the bundle's golden images are yielded as well."""
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
    if file is None and TOKEN not in os.environ:
        return None
    if file is None:
        token = os.environ[TOKEN].strip()
    else:
        try:
            token = file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            token = f"unreadable: {getattr(error, 'strerror', None) or 'it is no text'}"
    if not token or not token.isascii() or any(letter.isspace() or letter in "\"'" for letter in token):
        raise SettingsError(
            "One token, without spaces or quotation marks, was expected.",
            f"The content of {file or TOKEN} is not one.",
            f"Put only the token into a readable file and name it with --token-file, or into {TOKEN}.",
        )
    return token


def _require_answer(target: Target, log: RequestLog, timeout_s: float) -> None:
    outcome = log.outcome[-1] if log.outcome else CONNECTION
    if 200 <= outcome < 300 or outcome in BUSY_STATUSES or log.interrupted:
        return
    if outcome == TIMEOUT:
        arrived = f"It gave no answer within {timeout_s:g} s."
    elif outcome == CONNECTION:
        arrived = f"There is none ({(log.problem or 'it closed the connection').rstrip('.')})."
    else:
        arrived = f"It answered the first request with status {outcome}."
    remedy = {
        401: f"It requires a token: name its file with --token-file, or put it into {TOKEN}.",
        403: "The token does not permit predictions: use one with the scope predict.",
        404: "Give the address that `lensmith serve` printed; a path of another service goes into the URL.",
        415: "Name JPEG or PNG files with --image-files.",
        422: "Name images that it accepts with --image-files, or try --form.",
    }.get(outcome, "Check the address, and that the service is up: curl URL/readyz")
    raise ServiceError(f"A service that answers was expected at {target.url}.", arrived, remedy)
